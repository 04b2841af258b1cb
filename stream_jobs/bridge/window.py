"""What is under way to the log, counted; and the answers, handed from the producer's thread to the bridge's.

**Delivery**: an answer that is never fetched is as if the append had failed. **Bounds**: at most `bytes_max` and
`records_max` are under way by the bridge's own doing; `room` says when to stop taking more.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from typing import NamedTuple

from stream_jobs.kafka_client import Done

from .partition import Ticket

__all__ = ["Answered", "Window"]


class Answered(NamedTuple):
    """What became of one append to `topic`. Dead letters and checkpoints have no ticket."""

    topic: str
    partition: int
    ticket: Ticket | None
    offset: int
    append_time_ms: int
    error: Exception | None


class Window:
    """Counts and a queue with a file descriptor to wait for."""

    def __init__(self, bytes_max: int, records_max: int) -> None:
        self._bytes_max = bytes_max
        self._records_max = records_max
        self._answered: deque[tuple[Answered, int]] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._woken = False
        self.bytes = 0
        self.records = 0

    @property
    def room(self) -> bool:
        """Whether more may be appended."""
        return self.bytes < self._bytes_max and self.records < self._records_max

    @property
    def overfull(self) -> bool:
        """Whether it is a quarter over: what comes now is refused."""
        return 4 * self.bytes > 5 * self._bytes_max or 4 * self.records > 5 * self._records_max

    def fileno(self) -> int:
        """Readable when answers wait."""
        return self._reader

    def started(self, topic: str, partition: int, ticket: Ticket | None, size: int) -> Done:
        """Count an append and return what its producer calls when it is over."""
        self.bytes += size
        self.records += 1

        def done(offset: int, append_time_ms: int, error: Exception | None) -> None:
            self._answered.append((Answered(topic, partition, ticket, offset, append_time_ms, error), size))
            self.wake()

        return done

    def cancelled(self, size: int) -> None:
        """An append that was counted did not even start."""
        self.bytes -= size
        self.records -= 1

    def wake(self) -> None:
        """Make `fileno` readable; any thread or signal handler may call it."""
        if not self._woken:
            self._woken = True
            with contextlib.suppress(OSError):
                os.write(self._writer, b"\0")

    def take(self) -> list[Answered]:
        """The answers so far, in the order in which they came; they count no longer."""
        self._woken = False
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        found: list[Answered] = []
        while self._answered:
            answered, size = self._answered.popleft()
            self.bytes -= size
            self.records -= 1
            found.append(answered)
        return found

    def close(self) -> None:
        """Close the pipe; only when no producer is left to answer."""
        os.close(self._reader)
        os.close(self._writer)
