"""The agent's side of its functions: one process each, watched by one selector in the agent's main thread.

A source (a file, or a built-in) is started once without a name; its process says which functions the source declares
and becomes the first of them; one process is started for each of the others. MQTT messages (`message`, from the network
thread) and accepted batches of streams that a function reads go to the functions that want them, through `mailbox.py`.

**Delivery**: a batch is handed to `submit`, and the process is answered when `answer` is called for it; batches of a
process that has ended meanwhile are in the spool or not, and nobody is told. Messages, and rows for functions
on_stream, are given at most once: what waits ends with the agent, what a process had in hand with the process.
**Bounds**: FUNCTIONS_MAX functions; each holds at most two batches here, and messages as `mailbox.py` says. Processes
are children of the calling thread, and die with it: call everything but `answer`, `message`, `subscribed` and `wake`
from the main thread.
"""

from __future__ import annotations

import logging
import selectors
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from edge_agent.contract.clock import Clock
from edge_agent.contract.errors import DecodeError, RejectError

from .api import Declaration
from .chains import cycle_text
from .frames import Batch, Deliver, Failed, FromFunction, Loaded, Report, Rows
from .http_ports import HttpPorts, HttpSettings
from .mailbox import Mailboxes
from .process import RAN_WELL_S, FunctionProcess, Source, Start, start_process
from .topic_filter import check_filter

__all__ = ["FUNCTIONS_MAX", "Source", "Submit", "Supervisor", "Token", "Want"]

FUNCTIONS_MAX = 64
STOP_PATIENCE_S = 2.0
LOAD_PATIENCE_S = 120.0

log = logging.getLogger("edgewater.functions")

Token = tuple[FunctionProcess, int, Batch | None]
"""(whom to answer, in which of its runs, the batch where functions read its stream)"""
Submit = Callable[[Token, str, bytes, Batch], None]
"""(token for the answer, function name, its version, the batch)"""
Want = Callable[[tuple[str, ...]], None]
"""Called in the main thread with all topic filters that functions wait for, when there are new ones."""


def _nobody_subscribes(_filters: tuple[str, ...]) -> None:
    """Where there is no MQTT, as in tests of processes."""


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
        want: Want = _nobody_subscribes,
        http: HttpSettings | None = None,
        start: Start = start_process,
    ) -> None:
        self._submit = submit
        self._clock = clock
        self._batch_rows = batch_rows
        self._flush_interval_s = flush_interval_s
        self._want = want
        self._start = start
        self._mailboxes = Mailboxes()
        self._ports = HttpPorts(http or HttpSettings(), [source.path for source in sources if not source.builtin])
        self._selector = selectors.DefaultSelector()
        self._wake_receive, self._wake_send = socket.socketpair()
        self._wake_receive.setblocking(False)
        self._wake_send.setblocking(False)
        self._selector.register(self._wake_receive, selectors.EVENT_READ, None)
        self._answers: deque[tuple[Token, str]] = deque()
        self._subscriptions: deque[tuple[str, str]] = deque()
        self._unloaded: dict[str, str] = {}
        """Source -> why it could not be loaded; while none of all sources was ever loaded."""
        self._loaded_once = False
        self._stopping = False
        self.functions = [self._function(source, "") for source in sources]

    def _function(self, source: Source, name: str) -> FunctionProcess:
        return FunctionProcess(source, name, self._batch_rows, self._flush_interval_s, self._start)

    # -- from other threads ------------------------------------------------------------------------------------

    def answer(self, token: Token, refused: str) -> None:
        """The batch of `token` was accepted, or refused for good. May be called from any thread."""
        self._answers.append((token, refused))
        self.wake()

    def message(self, topic: str, payload: bytes) -> None:
        """An MQTT message came. May be called from any thread; never waits for a function."""
        if self._mailboxes.message(Deliver(topic, payload, self._clock.time_us())):
            self.wake()

    def subscribed(self, topic_filter: str, refused: str) -> None:
        """The broker took the subscription to a filter, or refused it. May be called from any thread."""
        self._subscriptions.append((topic_filter, refused))
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
            elif function.state == "starting" and now_s >= function.started_at_s + LOAD_PATIENCE_S:
                function.last_error = (
                    f"its file {function.source.path} did not finish loading in {LOAD_PATIENCE_S:g} s; put what runs "
                    'on, as a server or a loop, under if __name__ == "__main__"'
                )
                function.kill()
        for key, events in self._selector.select(max(0.0, min(timeout_s, self._pause_s(now_s)))):
            if key.data is None:
                self._wake_receive.recv(4096)
                continue
            if events & selectors.EVENT_WRITE:
                key.data.send_unsent()
            if events & selectors.EVENT_READ:
                self._listen(key.data)
        while self._answers:
            (function, run_number, batch), refused = self._answers.popleft()
            function.answer(run_number, refused)
            if batch is not None and not refused:
                self._mailboxes.rows(Rows(batch.stream, batch.rows, batch.body))
        while self._subscriptions:
            self._subscription(*self._subscriptions.popleft())
        for function in self.functions:
            self._give(function)

    def _give(self, function: FunctionProcess) -> None:
        """Give a function what waits for it, and listen for room in its socket where it did not fit."""
        if function.mailbox is not None:
            while function.takes_more and (thing := self._mailboxes.take(function.mailbox)) is not None:
                function.give(thing)
        if function.connection is not None:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if function.unsent else 0)
            if self._selector.get_key(function.connection).events != events:
                self._selector.modify(function.connection, events, function)

    def _subscription(self, topic_filter: str, refused: str) -> None:
        for function in self.functions:
            if function.declaration is not None and function.declaration.topic == topic_filter:
                function.topic_refused = refused and (
                    f"the broker refuses the subscription to {topic_filter}: {refused}; allow it there"
                )
                if refused:
                    log.warning("function %s: %s", function.name, function.topic_refused)

    def _pause_s(self, now_s: float) -> float:
        due = [f.start_at_s for f in self.functions if f.state == "waiting" and not self._stopping]
        due += [f.kill_at_s for f in self.functions if f.process is not None]
        due += [f.started_at_s + LOAD_PATIENCE_S for f in self.functions if f.state == "starting"]
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
            kept = message if self._mailboxes.reads(message.stream) else None
            self._submit((function, function.run_number, kept), function.name, function.version, message)
        elif isinstance(message, Report):
            self._reported(function, message)
        elif isinstance(message, Failed):
            function.last_error = f"{message.text} ({message.place})" if message.place else message.text
            log.warning("function %s: %s", function.name or function.source.path, function.last_error)
            if message.loading and not self._loaded_once:
                self._unloaded[function.source.path] = (
                    f"{message.place}: {message.text}" if message.place else message.text
                )
        elif isinstance(message, Loaded):
            self._loaded(function, message)

    def _reported(self, function: FunctionProcess, report: Report) -> None:
        calls_well = report.calls > 0 and report.failed == function.failed
        runs_well = self._clock.monotonic_s() - function.started_at_s >= RAN_WELL_S
        if (calls_well or runs_well) and not report.failing:
            # Whatever it was, its cause is gone.
            function.last_error = ""
        function.calls, function.failed, function.missed = report.calls, report.failed, report.missed
        function.refused = report.refused

    def _loaded(self, function: FunctionProcess, message: Loaded) -> None:
        self._loaded_once = True
        if not function.name:
            function.name = message.name
            known = {other.name for other in self.functions if other is not function}
            for name in message.functions:
                if name in known:
                    function.not_run = f"another file has a function {name} too; rename one of them"
                    log.error("function file %s: %s", function.source.path, function.not_run)
                    if name == function.name:
                        function.stop(self._clock.monotonic_s(), 0.0)
                        return
                elif name != function.name and len(self.functions) >= FUNCTIONS_MAX:
                    function.not_run = f"function {name} is not run: an agent has {FUNCTIONS_MAX}; start another agent"
                    log.error("function file %s: %s", function.source.path, function.not_run)
                elif name != function.name:
                    self.functions.append(self._function(function.source, name))
        declaration = message.functions.get(function.name)
        problem = "it does not say what it is" if declaration is None else self._listens(function, declaration)
        if problem:
            function.last_error = problem
            log.error("function %s: %s", function.name, problem)
            function.stop(self._clock.monotonic_s(), 0.0)
            return
        function.state, function.version = "running", message.version
        if function.declaration is not None and function.declaration.http:
            function.listen(self._ports.open(function.name, function.source.path), self._ports.settings.body_bytes_max)
        log.info("function %s of version %s runs", function.name, function.version.hex())

    def _listens(self, function: FunctionProcess, declaration: Declaration) -> str:
        """Let a function hear what it wants to; or why it must not."""
        others = {
            other.name: other.declaration
            for other in self.functions
            if other is not function and other.declaration is not None and other.state != "stopped"
        }
        if declaration.reads and (circle := cycle_text({**others, function.name: declaration})):
            return circle
        if declaration.topic:
            try:
                check_filter(declaration.topic)
            except RejectError as error:
                return str(error)
        changed = function.declaration != declaration
        function.declaration = declaration
        if declaration.topic or declaration.reads:
            function.mailbox = self._mailboxes.open(function.name, topic=declaration.topic, reads=declaration.reads)
            if declaration.topic and changed:
                self._want(self._mailboxes.filters)
        return ""

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
            if not self._loaded_once and not function.name:
                self._unloaded.setdefault(function.source.path, f"{name}: {function.last_error}")

    def stop(self) -> None:
        """Ask all processes to send what they have and to end; go on with `poll` until `ended`."""
        self._stopping = True
        for function in self.functions:
            function.stop(self._clock.monotonic_s(), STOP_PATIENCE_S)

    @property
    def unloadable(self) -> str:
        """Why none of all sources could be loaded at its first start; nothing while one was, or still may be."""
        if self._loaded_once or len(self._unloaded) < len({each.source.path for each in self.functions}):
            return ""
        return "; ".join(self._unloaded.values())

    @property
    def ended(self) -> bool:
        """After `stop`: whether no process is left."""
        return all(function.process is None for function in self.functions)

    @property
    def deserted(self) -> bool:
        """Whether every function has ended for good."""
        return all(function.state == "stopped" and function.process is None for function in self.functions)

    def close(self) -> None:
        """Kill what still runs, and close the selector and the listening sockets."""
        self._ports.close()
        for function in self.functions:
            if function.process is not None:
                function.state = "stopping"
                function.ended(self._clock.monotonic_s())
        self._selector.close()
        self._wake_receive.close()
        self._wake_send.close()

    @property
    def problem(self) -> str:
        """What troubles the first function that something troubles; nothing when all is well."""
        for function in self.functions:
            if error := function.problem:
                return f"function {function.name or function.source.path}: {error}"
        return ""

    def _http_state(self, function: FunctionProcess) -> dict[str, Any]:
        if function.declaration is None or not function.declaration.http:
            return {}
        return {
            "url": self._ports.url(function.name),
            "requests": function.calls,
            "errors_4xx": function.refused,
            "errors_5xx": function.failed,
        }

    def states(self) -> list[dict[str, Any]]:
        """For the status file: one entry a function."""
        return [
            {
                "name": function.name or function.source.path,
                **self._http_state(function),
                "state": function.state,
                "version": function.version.hex(),
                "starts": function.starts,
                "calls": function.calls,
                "failed": function.failed,
                "missed": function.missed_in_all,
                "waiting": 0 if function.mailbox is None else len(function.mailbox),
                "trigger": function.declaration.trigger if function.declaration else "",
                "stream": function.declaration.stream if function.declaration else "",
                "rows": function.rows,
                "pid": 0 if function.process is None else function.process.pid,
                "last_error": function.problem,
            }
            for function in self.functions
        ]
