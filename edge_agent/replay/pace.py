"""The pace of `--speed N`: a row is due so long after the first one as their times are apart, divided by N.

Rows go in the order of the file: one whose time is before its predecessor's is due at once.

**Delivery**: pure, apart from the clock. After a restart the pace begins anew with the first row that is left.
**Bounds**: none of its own.
"""

from __future__ import annotations

import math

from edge_agent.contract.clock import Clock

__all__ = ["Pace"]


class Pace:
    """`speed` infinite: no limit."""

    def __init__(self, speed: float, clock: Clock) -> None:
        self.limited = math.isfinite(speed)
        self._speed = speed
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._flushed_at_s = clock.monotonic_s()

    def due_s(self, ts_us: int) -> float:
        """When, by the monotonic clock, a row of this time is due."""
        if self._first is None:
            self._first = (ts_us, self._clock.monotonic_s())
        return self._first[1] + (ts_us - self._first[0]) / 1e6 / self._speed

    def flush_due(self, interval_s: float) -> bool:
        """Whether the last time that this was true is `interval_s` ago."""
        now_s = self._clock.monotonic_s()
        if now_s - self._flushed_at_s < interval_s:
            return False
        self._flushed_at_s = now_s
        return True
