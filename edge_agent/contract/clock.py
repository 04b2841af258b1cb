"""Time as an argument: deciding code never reads a clock of its own.

**Delivery**: nothing here survives a process. **Bounds**: microseconds since 1970 fit 64 bits until the year 294247.
"""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "ManualClock", "SystemClock"]


class Clock(Protocol):
    """Two clocks: one for stamps that leave the process, one for durations."""

    def time_us(self) -> int:
        """Microseconds since 1970-01-01 UTC; may jump."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def time_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that tests and the simulation move by hand."""

    def __init__(self, time_us: int = 1_700_000_000_000_000) -> None:
        self._time_us = time_us
        self._monotonic_s = 0.0

    def time_us(self) -> int:
        return self._time_us

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._time_us += round(seconds * 1_000_000)
        self._monotonic_s += seconds

    def jump(self, seconds: float) -> None:
        """Move the wall clock only, as NTP or a flat battery does; `seconds` may be negative."""
        self._time_us += round(seconds * 1_000_000)
