"""What the system says of a process: whether it is there, and what memory it has.

Linux's /proc is read; where there is none, a process is there when a signal could be sent to it.

**Delivery**: reads only. **Bounds**: two small files a process.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["is_alive", "memory_bytes"]

_PROC = Path("/proc")
_TOLERANCE_S = 5.0
"""By how much a process' start may lie after a time it wrote, since the system's clock may have been set meanwhile."""


def is_alive(pid: int, wrote_at_s: float) -> bool:
    """Whether the process that wrote something at this time (Unix seconds) still runs, not another of its number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    except (OverflowError, ValueError):
        return False
    stat = _stat(pid)
    if stat is None:
        return True
    state, started_at_s = stat
    return state not in ("Z", "X") and started_at_s <= wrote_at_s + _TOLERANCE_S


def _stat(pid: int) -> tuple[str, float] | None:
    """(state, start in Unix seconds) of a process, or None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name, in parentheses, may hold anything; what follows the last one does not.
        fields = (_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        booted_at_s = next(
            float(line.split()[1]) for line in (_PROC / "stat").read_text().splitlines() if line.startswith("btime ")
        )
        return fields[0], booted_at_s + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return None


def memory_bytes(pid: int) -> int | None:
    """Resident memory of a process; None where the system does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None
