"""The agent's side of its functions: one process each, watched by one selector in the agent's main thread.

A source (a file, or a built-in) is started once without a name; its process says which functions the source declares
and becomes the first of them; one process is started for each of the others.

**Delivery**: a batch is handed to `submit`, and the process is answered when `answer` is called for it; batches of a
process that has ended meanwhile are in the spool or not, and nobody is told.
**Bounds**: FUNCTIONS_MAX functions; each holds at most two batches here. Processes are children of the calling thread,
and die with it: call everything here from the main thread.
"""

from __future__ import annotations

import logging
import selectors
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from edge_agent.contract.clock import Clock
from edge_agent.contract.errors import DecodeError

from .frames import Batch, Failed, FromFunction, Loaded, Report
from .process import FunctionProcess, Source, Start, start_process

__all__ = ["FUNCTIONS_MAX", "Source", "Submit", "Supervisor", "Token"]

FUNCTIONS_MAX = 64
STOP_PATIENCE_S = 2.0

log = logging.getLogger("edgewater.functions")

Token = tuple[FunctionProcess, int]
Submit = Callable[[Token, str, bytes, Batch], None]
"""(token for the answer, function name, its version, the batch)"""


class Supervisor:
    """Runs the functions of some sources until `stop`."""

    def __init__(
        self,
        sources: Sequence[Source],
        submit: Submit,
        clock: Clock,
        *,
        batch_rows: int,
        flush_interval_s: float,
        start: Start = start_process,
    ) -> None:
        self._submit = submit
        self._clock = clock
        self._batch_rows = batch_rows
        self._flush_interval_s = flush_interval_s
        self._start = start
        self._selector = selectors.DefaultSelector()
        self._wake_receive, self._wake_send = socket.socketpair()
        self._wake_receive.setblocking(False)
        self._wake_send.setblocking(False)
        self._selector.register(self._wake_receive, selectors.EVENT_READ, None)
        self._answers: deque[tuple[Token, str]] = deque()
        self._stopping = False
        self.functions = [self._function(source, "") for source in sources]

    def _function(self, source: Source, name: str) -> FunctionProcess:
        return FunctionProcess(source, name, self._batch_rows, self._flush_interval_s, self._start)

    # -- from other threads ------------------------------------------------------------------------------------

    def answer(self, token: Token, refused: str) -> None:
        """The batch of `token` was accepted, or refused for good. May be called from any thread."""
        self._answers.append((token, refused))
        self.wake()

    def wake(self) -> None:
        """Make `poll` return. May be called from any thread, and from a signal handler."""
        try:
            self._wake_send.send(b"\0")
        except BlockingIOError:
            return

    @property
    def wake_descriptor(self) -> int:
        """Writing a byte here wakes `poll`; for signal.set_wakeup_fd."""
        return self._wake_send.fileno()

    # -- from the main thread ----------------------------------------------------------------------------------

    def poll(self, timeout_s: float) -> None:
        """Start what is due, take what has come, answer what was answered; waits `timeout_s` at most for it."""
        now_s = self._clock.monotonic_s()
        for function in self.functions:
            if function.state in ("new", "waiting") and not self._stopping and now_s >= function.start_at_s:
                self._selector.register(function.start(now_s), selectors.EVENT_READ, function)
            elif now_s >= function.kill_at_s:
                function.kill()
        for key, _ in self._selector.select(max(0.0, min(timeout_s, self._pause_s(now_s)))):
            if key.data is None:
                self._wake_receive.recv(4096)
            else:
                self._listen(key.data)
        while self._answers:
            (function, run_number), refused = self._answers.popleft()
            function.answer(run_number, refused)

    def _pause_s(self, now_s: float) -> float:
        due = [f.start_at_s for f in self.functions if f.state == "waiting" and not self._stopping]
        due += [f.kill_at_s for f in self.functions if f.process is not None]
        return min(due, default=float("inf")) - now_s

    def _listen(self, function: FunctionProcess) -> None:
        try:
            for message in function.receive():
                self._heard(function, message)
        except EOFError:
            self._ended(function, "")
        except DecodeError as error:
            self._ended(function, str(error))

    def _heard(self, function: FunctionProcess, message: FromFunction) -> None:
        if isinstance(message, Batch):
            function.rows += message.rows
            self._submit((function, function.run_number), function.name, function.version, message)
        elif isinstance(message, Report):
            function.calls, function.failed, function.missed = message.calls, message.failed, message.missed
        elif isinstance(message, Failed):
            function.last_error = f"{message.text} ({message.place})" if message.place else message.text
            log.warning("function %s: %s", function.name or function.source.path, function.last_error)
        elif isinstance(message, Loaded):
            self._loaded(function, message)

    def _loaded(self, function: FunctionProcess, message: Loaded) -> None:
        if not function.name:
            function.name = message.name
            known = {other.name for other in self.functions if other is not function}
            for name in message.names:
                if name in known:
                    function.last_error = f"another file has a function {name} too; rename one of them"
                    log.error("function file %s: %s", function.source.path, function.last_error)
                    if name == function.name:
                        function.stop(self._clock.monotonic_s(), 0.0)
                        return
                elif name != function.name and len(self.functions) < FUNCTIONS_MAX:
                    self.functions.append(self._function(function.source, name))
        function.state, function.version = "running", message.version
        log.info("function %s of version %s runs", function.name, function.version.hex())

    def _ended(self, function: FunctionProcess, broken: str) -> None:
        assert function.connection is not None, "heard of it on its connection"
        self._selector.unregister(function.connection)
        stopping = function.state == "stopping"
        status = function.ended(self._clock.monotonic_s())
        if not stopping:
            function.last_error = broken or function.last_error or f"ended with status {status}"
            pause_s = function.start_at_s - self._clock.monotonic_s()
            name = function.name or function.source.path
            log.warning("function %s: process ended (%s); next start in %.1f s", name, broken or status, pause_s)

    def stop(self) -> None:
        """Ask all processes to send what they have and to end; go on with `poll` until `ended`."""
        self._stopping = True
        for function in self.functions:
            function.stop(self._clock.monotonic_s(), STOP_PATIENCE_S)

    @property
    def ended(self) -> bool:
        """After `stop`: whether no process is left."""
        return all(function.process is None for function in self.functions)

    def close(self) -> None:
        """Kill what still runs, and close the selector."""
        for function in self.functions:
            if function.process is not None:
                function.state = "stopping"
                function.ended(self._clock.monotonic_s())
        self._selector.close()
        self._wake_receive.close()
        self._wake_send.close()

    def states(self) -> list[dict[str, Any]]:
        """For the status file: one entry a function."""
        return [
            {
                "name": function.name or function.source.path,
                "state": function.state,
                "version": function.version.hex(),
                "starts": function.starts,
                "calls": function.calls,
                "failed": function.failed,
                "missed": function.missed,
                "rows": function.rows,
                "pid": 0 if function.process is None else function.process.pid,
                "last_error": function.last_error,
            }
            for function in self.functions
        ]
