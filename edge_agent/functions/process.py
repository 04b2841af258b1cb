"""One function's process, seen from the agent: started, listened to, answered, ended, started again.

**Delivery**: an answer goes to the process that sent the batch, never to the one after it (`run_number`). What a
process had in hand of messages and rows when it ended is not given to the next one, and counts as missed.
**Bounds**: at most IN_HAND_MAX messages are at a process, and none is sent while an earlier one does not fit the
socket. A process that breaks the protocol - a frame over its limit, more than UNANSWERED_MAX batches without an
answer - is killed and started again with back-off: RESTART_MIN_S, doubling to RESTART_MAX_S, reset after RAN_WELL_S.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edge_agent.contract.errors import DecodeError

from .api import Declaration
from .child import IN_HAND_MAX, UNANSWERED_MAX
from .frames import (
    Answer,
    Batch,
    Deliver,
    FrameReader,
    FromAgent,
    FromFunction,
    Listen,
    Load,
    Rows,
    Stop,
    Taken,
    decode_from_function,
    encode,
)
from .mailbox import Mailbox

__all__ = ["ROOT", "FunctionProcess", "Process", "Source", "Start", "restart_pause_s", "start_process"]

RESTART_MIN_S = 0.2
RESTART_MAX_S = 30.0
RAN_WELL_S = 10.0
_RECEIVE_BYTES = 256 * 1024
ROOT = Path(__file__).resolve().parents[2]
# -I: neither the environment nor the current folder decides what is imported; so the package's place is given.
# -u: what a function prints is in the log when it is printed, not when a buffer is full.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from edge_agent.functions.child import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]))"
)


class Process(Protocol):
    """A function's process: its id is its own, and its group's, until `wait` has returned."""

    pid: int

    def kill_group(self) -> None:
        """End it and what it has started (in its group), at once; nothing when it has ended."""

    def wait(self) -> int | None:
        """Its exit status (negative: the signal that ended it), after its end; None when nobody knows."""


Start = Callable[[], tuple[Process, socket.socket]]


class FreshProcess(subprocess.Popen[bytes]):
    """A process started afresh, by the agent itself."""

    def kill_group(self) -> None:
        """As `Process` says."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Source:
    """A function file, or with `builtin` a module of this package."""

    path: str
    builtin: bool = False


def restart_pause_s(failures: int) -> float:
    """How long to wait before the start after so many failures in a row."""
    return min(RESTART_MAX_S, RESTART_MIN_S * 2.0 ** min(failures - 1, 16))


def start_process() -> tuple[FreshProcess, socket.socket]:
    """A new child (`child.py`) in a session of its own, and the agent's end of its socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        descriptor = theirs.fileno()
        process = FreshProcess(
            [sys.executable, "-I", "-u", "-c", _BOOT, str(ROOT), str(descriptor), str(os.getpid())],
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            # What a function prints is for people to read: it goes where the agent's log goes.
            stdout=2,
            start_new_session=True,
        )
    ours.setblocking(False)
    return process, ours


@dataclass(slots=True)
class FunctionProcess:
    """One function of one source; `name` is empty until the first process of the source told which it is."""

    source: Source
    name: str
    batch_rows: int
    flush_interval_s: float
    start_process: Start = start_process
    state: str = "new"
    version: bytes = b""
    run_number: int = 0
    starts: int = 0
    failures: int = 0
    start_at_s: float = 0.0
    started_at_s: float = 0.0
    kill_at_s: float = float("inf")
    unanswered: int = 0
    calls: int = 0
    failed: int = 0
    missed: int = 0
    refused: int = 0
    rows: int = 0
    last_error: str = ""
    declaration: Declaration | None = None
    mailbox: Mailbox | None = None
    in_hand: int = 0
    lost: int = 0
    """Messages that ended with a process of this function."""
    not_run: str = ""
    """Why another function of the same file is not run."""
    topic_refused: str = ""
    """Why the broker does not let the agent subscribe to the function's topic."""
    process: Process | None = None
    connection: socket.socket | None = None
    reader: FrameReader = field(default_factory=FrameReader)
    unsent: bytearray = field(default_factory=bytearray)

    def start(self, now_s: float) -> socket.socket:
        """Start the process; the socket to listen at."""
        self.process, self.connection = self.start_process()
        self.reader = FrameReader()
        self.state, self.started_at_s, self.unanswered = "starting", now_s, 0
        self.unsent.clear()
        self.run_number += 1
        self.starts += 1
        self.calls = self.failed = self.missed = self.refused = 0
        self.send(Load(self.source.builtin, self.source.path, self.name, self.batch_rows, self.flush_interval_s))
        return self.connection

    def send(self, message: FromAgent) -> None:
        """Tell the process something; one that is gone is noticed elsewhere, and one that does not read keeps the rest
        waiting in `unsent` (see `send_unsent`)."""
        if self.connection is not None:
            self.unsent += encode(message)
            self.send_unsent()

    def listen(self, listening: socket.socket, body_bytes_max: int) -> None:
        """Hand the process the listening socket of its WSGI app; the agent keeps it too."""
        if self.connection is not None:
            try:
                # The first frame after Load, which the process has read: the socket's buffer is empty.
                socket.send_fds(self.connection, [encode(Listen(body_bytes_max))], [listening.fileno()])
            except OSError as error:
                self.last_error = f"does not take its listening socket: {error}"
                self.kill()

    def send_unsent(self) -> None:
        """Send what did not fit the socket's buffer, as far as it fits now."""
        while self.unsent and self.connection is not None:
            try:
                sent = self.connection.send(self.unsent)
            except BlockingIOError:
                return
            except OSError as error:
                self.last_error = f"does not listen: {error}"
                self.unsent.clear()
                return
            del self.unsent[:sent]

    @property
    def takes_more(self) -> bool:
        """Whether the process may be given another message."""
        return self.state == "running" and self.in_hand < IN_HAND_MAX and not self.unsent

    @property
    def problem(self) -> str:
        """What troubles it now; nothing when all is well."""
        return self.last_error or self.topic_refused or self.not_run

    @property
    def missed_in_all(self) -> int:
        """Calls that the timer left out, and messages that never came to a call."""
        return self.missed + self.lost + (0 if self.mailbox is None else self.mailbox.missed)

    def give(self, thing: Deliver | Rows) -> None:
        """Give the process a message or rows, when `takes_more`."""
        self.in_hand += 1
        self.send(thing)

    def receive(self) -> list[FromFunction]:
        """What the process said. EOFError when it is gone, DecodeError when it breaks the protocol."""
        assert self.connection is not None, "nobody listens to a process without a connection"
        try:
            data = self.connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        if not data:
            raise EOFError("the process has ended")
        messages = [decode_from_function(frame) for frame in self.reader.feed(data)]
        self.unanswered += sum(isinstance(message, Batch) for message in messages)
        self.in_hand -= sum(isinstance(message, Taken) for message in messages)
        if self.in_hand < 0:
            raise DecodeError("the process has taken messages that it was not given")
        if self.unanswered > UNANSWERED_MAX:
            raise DecodeError(f"{self.unanswered} batches without waiting for an answer; {UNANSWERED_MAX} are allowed")
        return messages

    def answer(self, run_number: int, refused: str) -> None:
        """Answer the oldest batch of run `run_number`, if that one still runs."""
        if run_number == self.run_number and self.connection is not None:
            self.unanswered -= 1
            self.send(Answer(refused))

    def stop(self, now_s: float, patience_s: float) -> None:
        """Ask the process to send what it has and end, within `patience_s`."""
        self.kill_at_s = now_s + patience_s
        if self.state == "running":
            self.send(Stop())
        else:
            self.kill()
        self.state = "stopping" if self.process is not None else "stopped"

    def kill(self) -> None:
        """End the process and what it has started, at once."""
        if self.process is not None:
            self.process.kill_group()

    def ended(self, now_s: float) -> int | None:
        """After its socket was closed: end the process for good, and say when to start the next. Its exit status."""
        assert self.process is not None, "only a process that was started can end"
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        self.kill()
        status = self.process.wait()
        self.process = None
        self.lost += self.in_hand
        self.in_hand = 0
        self.unsent.clear()
        self.failures = 1 if now_s - self.started_at_s >= RAN_WELL_S else self.failures + 1
        self.start_at_s = now_s + restart_pause_s(self.failures)
        self.state = "stopped" if self.state == "stopping" else "waiting"
        return status
