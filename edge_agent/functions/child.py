"""The process of one function: calls it, gathers its rows, encodes batches, sends them to the agent.

Forked by the warm parent, or started afresh, with a socket; imports neither SQLite nor MQTT. It ends with the agent: by
its Stop, by the closed socket, or by the kernel (PR_SET_PDEATHSIG) while user code is busy.

**Delivery**: rows that the agent has not answered for are not promised; they end with this process. A message, or rows
of another function, are answered for after the call with them, whatever came of it: at most once. After Stop there is
no further call.
**Bounds**: UNANSWERED_MAX batches wait for an answer, then the function is not called; calls that this delays are
left out and counted. The agent lets IN_HAND_MAX messages wait here. Failures are reported at most once a second, with
their number.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edge_agent.contract.clock import Clock, SystemClock
from edge_agent.contract.errors import EdgewaterError, RejectError

from .frames import (
    TEXT_CHARACTERS_MAX,
    Answer,
    Batch,
    Channel,
    Deliver,
    Failed,
    Load,
    Loaded,
    Report,
    Rows,
    Stop,
    Taken,
)
from .loader import Program, load_builtin, load_file
from .rows import Body
from .work import Work

__all__ = ["IN_HAND_MAX", "UNANSWERED_MAX", "Runner", "die_with", "line_of", "main", "place_of", "serve", "text_of"]

UNANSWERED_MAX = 2
IN_HAND_MAX = 16
_REPORT_INTERVAL_S = 1.0
_WAIT_S = 60.0
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


def line_of(path: str, call: object) -> str:
    """`file:line` of a function of the file `path`, or the file alone."""
    code = getattr(call, "__code__", None)
    return path if code is None else f"{path}:{code.co_firstlineno}"


def place_of(error: BaseException, path: str, otherwise: str = "") -> str:
    """`file:line` of the last frame of `error` that is in `path`, or of the last frame at all; of an error of ours
    that has none in `path`, about what a function returned, `otherwise`."""
    place = ""
    inside = False
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name == path or not inside:
            place, inside = f"{name}:{trace.tb_lineno}", inside or name == path
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    return otherwise if not inside and isinstance(error, EdgewaterError) else place


def text_of(error: BaseException) -> str:
    """What went wrong, in one line."""
    try:
        text = str(error) if isinstance(error, EdgewaterError) else f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - an exception of a user may fail at saying what it is
        text = f"{type(error).__name__}, which cannot say what it is"
    return text.replace("\n", " ")[:TEXT_CHARACTERS_MAX]


class Runner:
    """Calls one function as its trigger says until it is told to stop."""

    def __init__(self, channel: Channel, load: Load, program: Program, clock: Clock) -> None:
        self.name, declared = program.function(load.name)
        self._path = load.path
        self._line = line_of(load.path, declared.call)
        self._work = Work(
            self.name, declared, clock, batch_rows=load.batch_rows, flush_interval_s=load.flush_interval_s
        )
        self._channel = channel
        self._clock = clock
        self._in_hand: deque[Deliver | Rows] = deque()
        self._unanswered = 0
        self._stopping = False
        self._failed = 0
        self._failing = False
        self._failure_told_s = float("-inf")

    def run(self) -> None:
        """Until Stop; then what is gathered is sent and answered for. EOFError or OSError when the agent is gone."""
        work = self._work
        report_at_s = self._clock.monotonic_s() + _REPORT_INTERVAL_S
        while not self._stopping:
            now_s = self._clock.monotonic_s()
            self._receive(0.0 if self._in_hand else min(work.due_s, report_at_s) - now_s)
            now_s = self._clock.monotonic_s()
            if now_s >= work.next_call_s and not self._stopping:
                self.call()
                work.called()
            if self._in_hand and not self._stopping:
                self.take(self._in_hand.popleft())
            if now_s >= work.flush_at_s:
                self.flush()
            if now_s >= report_at_s:
                self._report()
                report_at_s = now_s + _REPORT_INTERVAL_S
        self.flush()
        while self._unanswered:
            self._receive(_WAIT_S)
        self._report()
        work.close()

    def call(self) -> None:
        """One call by the timer; its failure is told to the agent and is no failure of this process."""
        self._attempt(self._work.call)

    def take(self, thing: Deliver | Rows) -> None:
        """One call with a message or rows, likewise."""
        self._attempt(lambda: self._work.take(thing))
        self._channel.send(Taken())

    def flush(self) -> None:
        """Send what is gathered as one batch."""
        self._send_all(self._work.flush())

    def _attempt(self, call: Callable[[], Iterator[Body]]) -> None:
        try:
            bodies = call()
        except BaseException as error:  # noqa: BLE001 - user code may raise anything, sys.exit() too, and is told it
            self._tell(error)
            return
        self._failing = False
        self._send_all(bodies)

    def _send_all(self, bodies: Iterator[Body]) -> None:
        try:
            for rows, body in bodies:
                while self._unanswered >= UNANSWERED_MAX:
                    self._receive(_WAIT_S)
                self._channel.send(Batch(self._work.declaration.stream, rows, body))
                self._unanswered += 1
        except RejectError as error:
            self._tell(error)

    def _receive(self, timeout_s: float) -> None:
        message = self._channel.receive(timeout_s)
        if isinstance(message, Answer):
            self._unanswered -= 1
            if message.refused:
                self._tell(RejectError(message.refused))
        elif isinstance(message, (Deliver, Rows)):
            self._in_hand.append(message)
        elif isinstance(message, Stop):
            self._stopping = True

    def _tell(self, error: BaseException) -> None:
        self._failed += 1
        self._failing = True
        now_s = self._clock.monotonic_s()
        if now_s - self._failure_told_s >= _REPORT_INTERVAL_S:
            self._failure_told_s = now_s
            self._channel.send(Failed(False, text_of(error), place_of(error, self._path, self._line)))

    def _report(self) -> None:
        self._channel.send(Report(self._work.calls, self._failed, self._work.missed, self._failing))


class _Runs(Protocol):
    def run(self) -> None:
        """Until Stop."""


def die_with(agent_pid: int) -> None:
    """Have the kernel end this process when its parent, which must be `agent_pid`, ends; SystemExit when it has."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != agent_pid:
        raise SystemExit(0)


def main(descriptor: int, agent_pid: int) -> None:
    """Serve the agent at the other end of socket `descriptor` until it says Stop."""
    die_with(agent_pid)
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        serve(channel)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise SystemExit(0) from None


def _runner(channel: Channel, load: Load, program: Program, name: str) -> _Runs:
    if program.functions[name].declaration.http:
        from .http_runner import HttpRunner

        return HttpRunner(channel, load.path, program.functions[name].call)
    return Runner(channel, load, program, SystemClock())


def serve(channel: Channel) -> None:
    """Do what the first message says, until Stop."""
    load = channel.receive(_WAIT_S)
    if not isinstance(load, Load):
        return
    try:
        program = load_builtin(load.path) if load.builtin else load_file(Path(load.path))
        name, _ = program.function(load.name)
        runner = None if load.check else _runner(channel, load, program, name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's file may raise anything when it is loaded
        channel.send(Failed(True, text_of(error), place_of(error, load.path)))
        raise SystemExit(1) from None
    channel.send(Loaded(name, program.declarations, program.version))
    if runner is not None:
        runner.run()
