"""A test kit for functions: no services and no processes; a test moves the time, publishes messages, looks at rows.

    from edge_agent import FunctionKit

    def test_the_boiler() -> None:
        kit = FunctionKit("boiler.py")
        kit.advance(1)
        kit.publish("sensors/kitchen/temperature", "21.5")
        assert kit.rows("readings")[0]["value"] == 71.5

The kit calls functions and gathers their rows with the code that a device runs (`functions/work.py`), encodes every
batch and decodes it again: what a test sees is what a table gets. A function's error is raised in the test as it is,
with what the agent would say of it as a note. Code that reads a clock itself sees the real time; the time of the kit
begins at 2025-01-01 UTC.

**Delivery**: nothing leaves the test. **Bounds**: all rows stay in memory; a chain of functions ends, since circles are
refused when the kit is made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import RejectError, StopError, quoted

from .functions.chains import cycle_text
from .functions.child import line_of, place_of, text_of
from .functions.frames import Deliver, Rows
from .functions.loader import Declared, load_file, load_module
from .functions.row_values import rows_of_body
from .functions.rows import Body
from .functions.topic_filter import check_topic, matches
from .functions.work import Work

__all__ = ["FunctionKit"]

START_US = 1_735_689_600_000_000
"""2025-01-01 UTC."""
BATCH_ROWS = 1000
FLUSH_INTERVAL_S = 0.2

Source = str | Path | ModuleType


class FunctionKit:
    """The functions of some files or modules, as one device would run them."""

    def __init__(self, *sources: Source, batch_rows: int = BATCH_ROWS, start_us: int = START_US) -> None:
        """Load `sources`: paths of function files, or modules. The first calls of functions with a timer are due at
        once, that is with the first `advance`.

        Raises what the files raise, and RejectError for what the agent would refuse.
        """
        if not sources:
            raise RejectError('FunctionKit needs a function file or a module, as FunctionKit("boiler.py")')
        self._clock = ManualClock(start_us)
        self._works: dict[str, Work] = {}
        self._lines: dict[str, tuple[str, str]] = {}
        self._rows: dict[str, list[dict[str, Any]]] = {}
        self.app: Callable[..., Any] | None = None
        """The WSGI application of the first source that has one."""
        for source in sources:
            self._load(source, batch_rows)
        if circle := cycle_text({name: work.declaration for name, work in self._works.items()}):
            raise RejectError(circle)

    def _load(self, source: Source, batch_rows: int) -> None:
        program = load_module(source) if isinstance(source, ModuleType) else load_file(Path(source))
        path = str(getattr(source, "__file__", source)) if isinstance(source, ModuleType) else str(Path(source))
        self.app = self.app or program.app
        for name, declared in program.functions.items():
            if declared.declaration.http:
                continue
            if name in self._works:
                raise RejectError(f"two files have a function {name}; rename one of them")
            self._works[name] = self._work(name, declared, batch_rows)
            self._lines[name] = path, line_of(path, declared.call)

    def _work(self, name: str, declared: Declared, batch_rows: int) -> Work:
        return Work(name, declared, self._clock, batch_rows=batch_rows, flush_interval_s=FLUSH_INTERVAL_S)

    # -- time --------------------------------------------------------------------------------------------------

    @property
    def time_us(self) -> int:
        """The kit's time, in microseconds since 1970-01-01 UTC; rows without a `ts` of their own have it."""
        return self._clock.time_us()

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of the functions, in order."""
        return tuple(self._works)

    def advance(self, seconds: float) -> None:
        """Move the time, and call what is due on the way, each at its time; rows for functions on_stream follow."""
        if not seconds >= 0:
            raise RejectError(f"advance({quoted(seconds)}): time does not go back")
        end_s = self._clock.monotonic_s() + seconds
        while (due_s := min((work.due_s for work in self._works.values()), default=end_s)) <= end_s:
            self._clock.advance(max(0.0, due_s - self._clock.monotonic_s()))
            self._run_due()
        self._clock.advance(max(0.0, end_s - self._clock.monotonic_s()))
        self._flush()

    def _run_due(self) -> None:
        now_s = self._clock.monotonic_s()
        for work in self._works.values():
            if now_s >= work.next_call_s:
                try:
                    self._attempt(work, work.call)
                finally:
                    work.called()
            if now_s >= work.flush_at_s:
                self._send(work, work.flush())

    # -- messages and rows -------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes | str | float | dict[str, Any] | list[Any] | None) -> int:
        """Give a message to each function that listens at `topic`; how many do.

        Bytes are taken as they are, text as UTF-8; anything else becomes JSON.
        """
        message = Deliver(check_topic(topic), _payload(payload), self._clock.time_us())
        wanted = [
            work
            for work in self._works.values()
            if work.declaration.topic and matches(work.declaration.topic, message.topic)
        ]
        for work in wanted:
            self._attempt(work, lambda work=work: work.take(message))  # type: ignore[misc]  # bound at once
        self._flush()
        return len(wanted)

    def rows(self, stream: str = "readings") -> list[dict[str, Any]]:
        """All rows that functions have put into `stream` so far, in order: `ts` and the columns, null as None."""
        return list(self._rows.get(stream, ()))

    def clear(self) -> None:
        """Forget the rows so far."""
        self._rows.clear()

    def close(self) -> None:
        """End the event loops of async functions."""
        for work in self._works.values():
            work.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not sys.is_finalizing() and hasattr(self, "_works"):
            self.close()

    def _flush(self) -> None:
        """Send what is gathered; rows that this brings about too."""
        while waiting := [work for work in self._works.values() if work.flush_at_s < float("inf")]:
            for work in waiting:
                self._send(work, work.flush())

    def _attempt(self, work: Work, call: Callable[[], Iterator[Body]]) -> None:
        try:
            bodies = list(call())
        except Exception as error:
            path, line = self._lines[work.name]
            place = place_of(error, path, line)
            error.add_note(f"the agent would say: function {work.name}: {text_of(error)} ({place})")
            raise
        self._send(work, bodies)

    def _send(self, work: Work, bodies: Iterable[Body]) -> None:
        stream = work.declaration.stream
        for rows, body in bodies:
            self._rows.setdefault(stream, []).extend(rows_of_body(body, rows))
            for reader in self._works.values():
                if reader.declaration.reads == stream:
                    batch = Rows(stream, rows, body)
                    self._attempt(reader, lambda reader=reader, batch=batch: reader.take(batch))  # type: ignore[misc]  # bound at once


def _payload(payload: object) -> bytes:
    if isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        return payload.encode()
    import json

    try:
        return json.dumps(payload).encode()
    except (TypeError, ValueError) as error:
        raise StopError(f"payload {quoted(payload)} is no JSON: {error}; give bytes, text or what JSON has") from None
