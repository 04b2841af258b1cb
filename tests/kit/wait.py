"""Wait for a condition with a deadline, instead of sleeping and hoping.

**Delivery**: nothing is kept. **Bounds**: a wait ends at its deadline with an AssertionError saying what was awaited
and what was last seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["until"]

T = TypeVar("T")


def until(condition: Callable[[], T | None], timeout_s: float = 10.0, what: str = "", poll_s: float = 0.01) -> T:
    """Call `condition` until it returns something true, and return that.

    Between calls it pauses `poll_s` seconds, growing to at most 0.1. `what` completes "waited N s for ...".

    Raises AssertionError at the deadline, with the last value; the condition is always tried at least once.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() >= deadline:
            name = what or getattr(condition, "__name__", "the condition")
            raise AssertionError(f"waited {timeout_s} s for {name}; last seen: {found!r}")
        time.sleep(poll_s)
        poll_s = min(poll_s * 1.5, 0.1)
