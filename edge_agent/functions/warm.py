"""The agent's side of the warm parent: a process that forks function processes, about 2 MB each instead of 10.

    warm = WarmParent()
    process, connection = warm.start()      # as process.start_process, a few milliseconds instead of a start afresh
    warm.close()

The warm parent is started afresh with the first function (`warm_process.py` is what runs in it).

**Delivery**: when the warm parent dies, the kernel ends its children; each is noticed by its closed socket, and the
next start makes a new warm parent. When the agent dies, the kernel ends the warm parent, and with it the children. A
process is killed with its group, and only while its id is certainly still its own: its pidfd answers.
**Bounds**: an answer of the warm parent is waited for ANSWER_S; when none comes the warm parent is ended. Where forking
fails twice, and where the kernel has no pidfd (Linux before 5.3), a process is started afresh.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys

from .process import ROOT, Process, start_process
from .warm_process import ANSWER, FORK, REAP, REAP_REQUEST

__all__ = ["WarmParent"]

ANSWER_S = 20.0
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from edge_agent.functions.warm_process import run; "
    "run(int(sys.argv[2]), int(sys.argv[3]))"
)

log = logging.getLogger("edgewater.functions")


class _Parent:
    """One warm parent's process."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(ANSWER_S)
        with theirs:
            descriptor = theirs.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-u", "-c", _BOOT, str(ROOT), str(descriptor), str(os.getpid())],
                pass_fds=(descriptor,), stdin=subprocess.DEVNULL, stdout=2, start_new_session=True,
            )  # fmt: skip

    def ask(self, request: bytes, descriptors: tuple[int, ...] = ()) -> int:
        """Its answer; OSError when there is none, and then it has ended."""
        try:
            socket.send_fds(self.control, [request], list(descriptors))
            answer = self.control.recv(ANSWER.size)
            if len(answer) != ANSWER.size:
                raise BrokenPipeError("the parent of the function processes has ended")
        except OSError:
            # An answer that comes too late would be taken for that to the next request.
            self.close()
            raise
        (number,) = ANSWER.unpack(answer)
        return int(number)

    def close(self) -> None:
        """End it; its children are ended by the kernel."""
        self.control.close()
        self.process.kill()
        self.process.wait()


class _Forked:
    """A function's process that a warm parent forked."""

    def __init__(self, parent: _Parent, pid: int) -> None:
        self._parent = parent
        self.pid = pid
        # Not reaped before `wait` asks for it, so this is the process just forked, alive or not.
        self._pidfd = os.pidfd_open(pid)

    def kill_group(self) -> None:
        if self._pidfd < 0:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> int | None:
        try:
            return os.waitstatus_to_exitcode(self._parent.ask(REAP_REQUEST.pack(REAP, self.pid)))
        except (OSError, ValueError):
            return None  # with its parent; nobody knows how
        finally:
            os.close(self._pidfd)
            self._pidfd = -1


class WarmParent:
    """Starts function processes; call it from one thread, on which their lives depend."""

    def __init__(self) -> None:
        self._parent: _Parent | None = None

    @property
    def pid(self) -> int:
        """Of the warm parent, or 0 while there is none."""
        return 0 if self._parent is None else self._parent.process.pid

    def start(self) -> tuple[Process, socket.socket]:
        """A new function process and the agent's end of its socket; made afresh where the warm parent fails."""
        if not hasattr(os, "pidfd_open"):
            return start_process()
        for _ in range(2):
            try:
                return self._fork()
            except OSError as error:
                log.warning("function processes cannot be forked: %s", error)
        return start_process()

    def _fork(self) -> tuple[Process, socket.socket]:
        if self._parent is not None and self._parent.process.poll() is not None:
            log.warning("the parent of the function processes has ended; starting another")
            self.close()
        self._parent = self._parent or _Parent()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                pid = self._parent.ask(FORK, (theirs.fileno(),))
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
            process = _Forked(self._parent, pid)
        except OSError:
            ours.close()
            raise
        ours.setblocking(False)
        return process, ours

    def close(self) -> None:
        """End the warm parent and with it every process that it forked."""
        if self._parent is not None:
            self._parent.close()
            self._parent = None
