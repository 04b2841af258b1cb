"""What the benchmarks share: CPU seconds and peak memory of processes from /proc, and medians.

**Delivery**: reads only. **Bounds**: Linux.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Usage", "descendants", "usage"]

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """User and system seconds since the process started, and its largest resident memory in MB (10^6 bytes)."""

    cpu_s: float
    peak_mb: float


def usage(pid: int) -> Usage:
    """Of one process, without its children; zeros when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return Usage(0.0, 0.0)
    fields = stat.rpartition(")")[2].split()
    peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, peak * 1024 / 1e6)


def descendants(pid: int) -> list[int]:
    """The ids of all processes below `pid`."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found
