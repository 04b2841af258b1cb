"""One function at work: when it is called, with what, and the batches that come of it. The process of a function
(`child.py`) and the test kit (`edge_agent/testing.py`) share it, so that a test sees what a device does.

**Delivery**: pure but for the user's code that it calls; an error of a call leaves out that call's rows only.
**Bounds**: as the collectors in `rows.py`. A coroutine runs to its end, on one event loop kept for the function.
"""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from edge_agent.contract.clock import Clock

from .api import Message
from .frames import Deliver, Rows
from .loader import Declared
from .row_values import rows_of_body
from .rows import Body, collector

if TYPE_CHECKING:
    import asyncio

__all__ = ["Work"]

_NEVER_S = float("inf")


class Work:
    """Calls one function, and gathers what it returns. Consume each iterator of batches to its end."""

    def __init__(
        self, name: str, declared: Declared, clock: Clock, *, batch_rows: int, flush_interval_s: float
    ) -> None:
        self.name = name
        self.declaration = declared.declaration
        self.calls = 0
        self.missed = 0
        self._call: Callable[..., Any] = declared.call
        self._clock = clock
        self._collector = collector(name, self.declaration.stream, batch_rows)
        self._flush_interval_s = flush_interval_s
        self._loop: asyncio.Runner | None = None
        self.flush_at_s = _NEVER_S
        self.next_call_s = clock.monotonic_s() if self.declaration.interval_s else _NEVER_S

    @property
    def due_s(self) -> float:
        """When `call` or `flush` is due next."""
        return min(self.next_call_s, self.flush_at_s)

    def call(self) -> Iterator[Body]:
        """One call by the timer. Whatever the function raises, and RejectError for what it returned."""
        return self._added(self._call)

    def called(self) -> None:
        """After `call`: the next one is at the first multiple of the interval that is not over already."""
        interval_s = self.declaration.interval_s
        left_out = max(0, int((self._clock.monotonic_s() - self.next_call_s) / interval_s))
        self.missed += left_out
        self.next_call_s += (left_out + 1) * interval_s

    def take(self, thing: Deliver | Rows) -> Iterator[Body]:
        """One call with a message, or with the rows of another function; errors as `call`."""
        if isinstance(thing, Deliver):
            return self._added(self._call, Message(thing.topic, thing.payload, thing.time_us))
        return self._added(self._call, rows_of_body(thing.body, thing.rows))

    def _added(self, call: Callable[..., Any], *arguments: object) -> Iterator[Body]:
        self.calls += 1
        began_us = self._clock.time_us()
        result = call(*arguments)
        if isinstance(result, (types.CoroutineType, Awaitable, AsyncIterator)):
            result = self._awaited(result)
        bodies = self._collector.add(result, began_us)
        return self._watched(bodies)

    def _watched(self, bodies: Iterator[Body]) -> Iterator[Body]:
        yield from bodies
        if not self._collector.rows:
            self.flush_at_s = _NEVER_S
        elif self.flush_at_s == _NEVER_S:
            self.flush_at_s = self._clock.monotonic_s() + self._flush_interval_s

    def _awaited(self, result: object) -> object:
        # Loaded by those who need it only: it is 2 MB.
        import asyncio

        if self._loop is None:
            self._loop = asyncio.Runner()

        async def finished() -> object:
            if isinstance(result, AsyncIterator):
                return [row async for row in result]
            assert isinstance(result, Awaitable), "as the caller found"
            return await result

        return self._loop.run(finished())

    def flush(self) -> Iterator[Body]:
        """What is gathered, as one batch."""
        self.flush_at_s = _NEVER_S
        if self._collector.rows:
            yield self._collector.take()

    def close(self) -> None:
        """End the event loop, if there is one."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None
