"""Crash points: named places where a test lets a process kill itself, to see what a restart makes of it.

EDGEWATER_CRASH_POINT=bridge.append.after:3 ends the process with SIGKILL at the third pass of that place.

**Delivery**: as after `kill -9`: nothing is flushed, closed or answered. **Bounds**: one point a process; without
the variable a pass costs one comparison.
"""

from __future__ import annotations

import os
import signal

from .errors import SettingsError, quoted

__all__ = ["crash_point"]


def _armed() -> tuple[str, int]:
    text = os.environ.get("EDGEWATER_CRASH_POINT", "")
    name, _, count = text.partition(":")
    if text and not (name and (count or "1").isdecimal() and int(count or "1") > 0):
        raise SettingsError(f"EDGEWATER_CRASH_POINT is {quoted(text)}; write name or name:n with n from 1")
    return name, int(count or "1")


_NAME, _passes_left = _armed()


def crash_point(name: str) -> None:
    """Kill this process here, if EDGEWATER_CRASH_POINT names this place and this is its n-th pass."""
    global _passes_left  # noqa: PLW0603 - one counter a process is the point
    if name != _NAME:
        return
    _passes_left -= 1
    if _passes_left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
