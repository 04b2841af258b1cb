"""Runs the product's processes as children: start, wait until ready, start again when one dies, end in order.

A child is ready when its status file names its pid. A child that ends by itself is started again after a
back-off; one that fails over and over - before it is ready, or soon after - stops the supervisor with the end of its
log.

**Delivery**: children are asked to end when the supervisor ends in whatever way (also `kill -9`: the kernel
sends them SIGTERM), and each of them survives `kill -9` by itself, so nothing here is needed for safety.
**Bounds**: back-off 0.2 s to 5 s, FAILURES_MAX failed starts in a row (before the first that
worked: `first_tries`), RAPID_ENDS_MAX ends in a row within RAN_WELL_S, `end_timeout_s` from SIGTERM to SIGKILL (a
second Ctrl-C: at once), LOG_BYTES_MAX of a child's log, twice.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge_agent.contract.errors import StopError
from edge_agent.contract.limits import MIB
from edge_agent.contract.status import read_status

__all__ = ["Service", "Supervisor", "edgewater_command"]

_log = logging.getLogger("edgewater.supervisor")
FAILURES_MAX = 5
RAPID_ENDS_MAX = 10
RAN_WELL_S = 10.0
LOG_BYTES_MAX = 16 * MIB
_LOGS_INTERVAL_S = 10.0
_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.2, 5.0
_PR_SET_PDEATHSIG = 1
_USAGE_STATUS = 2
"""Exit status for a command line that is not understood: trying it again cannot help."""
_INTERRUPTS = {signal.SIGINT, signal.SIGTERM}
_TAIL_BYTES = 2000
_TAIL_LINES = 15
_MESSAGE = "edgewater: "
"""How a command begins the one line that says what a person has to do."""


def edgewater_command(*arguments: str | Path) -> tuple[str, ...]:
    """The command line of `edgewater ...` in this very interpreter, whatever modules lie in the current directory."""
    return (sys.executable, "-P", "-m", "edge_agent.cli", *map(str, arguments))


@dataclass(slots=True)
class Service:
    """One child: `name` is its status file's name, `command` its command line.

    Children of the same `group`, started one after the other, are ended at once.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    end_timeout_s: float = 10.0
    group: str = ""
    first_tries: int = FAILURES_MAX
    process: subprocess.Popen[bytes] | None = None
    restart: bool = True
    failures: int = 0
    rapid_ends: int = 0
    restarts: int = 0
    started_at_s: float = 0.0
    start_again_at_s: float = 0.0
    log_start: int = 0
    """Where in its log the output of its present process begins."""
    announce: bool = False
    """Started again, and nobody was told yet that it is ready."""


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits: between the start of a child and the note of its id, nobody would know it to end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how(returncode: int) -> str:
    """For instance `ended with exit status 1`."""
    if returncode >= 0:
        return f"ended with exit status {returncode}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-returncode).name}"
    return f"was ended by signal {-returncode}"


class Supervisor:
    """Children in the order they were started; ended in the reverse order, also on leaving a `with` block.

    `on_event` is told what happens to children by themselves, `on_check` is called with each `check`.
    """

    def __init__(
        self, run_dir: Path, on_event: Callable[[str], None] = _log.warning, on_check: Callable[[], None] | None = None
    ) -> None:
        self.run_dir = run_dir
        self.services: dict[str, Service] = {}
        self._on_event = on_event
        self._on_check = on_check
        self._logs_at_s = 0.0
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StopError(f"cannot make the directory {run_dir}: {error.strerror}; choose another") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_all()

    def log_path(self, name: str) -> Path:
        """Where a child's standard output and error go."""
        return self.run_dir / f"{name}.log"

    def start(self, service: Service) -> Service:
        """Start a child and keep it running from now on."""
        self.services[service.name] = service
        self._spawn(service)
        return service

    def _spawn(self, service: Service) -> None:
        supervisor = os.getpid()
        # Loaded before the fork: between fork and exec the child calls nothing but prctl, getppid and kill.
        prctl = ctypes.CDLL(None).prctl
        service.started_at_s = time.monotonic()

        def end_with_supervisor() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != supervisor:
                os.kill(os.getpid(), signal.SIGKILL)

        with _uninterrupted(), self.log_path(service.name).open("ab") as log:
            service.log_start = log.tell()
            service.process = subprocess.Popen(
                list(service.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **service.environment},
                # A Ctrl-C in the terminal reaches the supervisor only, which then ends the children in order.
                start_new_session=True,
                preexec_fn=end_with_supervisor,  # noqa: PLW1509 - the supervisor has no threads
            )

    def status(self, name: str) -> dict[str, Any] | None:
        """The status that the child's present process wrote, or None before it is ready."""
        process = self.services[name].process
        found = read_status(self.run_dir, name)
        return found if found is not None and process is not None and found.get("pid") == process.pid else None

    def wait_ready(
        self, name: str, timeout_s: float = 30.0, ready: Callable[[dict[str, Any]], object] = lambda _status: True
    ) -> dict[str, Any]:
        """The child's first status for which `ready` holds; StopError with the end of its log when it does not come."""
        deadline = time.monotonic() + timeout_s
        while (found := self.status(name)) is None or not ready(found):
            self.check()
            if time.monotonic() > deadline:
                raise StopError(f"{name} was not ready after {timeout_s:g} s{self.last_words(name)}")
            time.sleep(0.05)
        return found

    def check(self) -> list[str]:
        """Start again what has ended and is due; the names of those that ended since the last check."""
        ended = []
        for service in self.services.values():
            process = service.process
            if process is not None and process.poll() is not None and service.restart:
                ended.append(service.name)
                self._ended(service, process)
            elif process is None and service.restart and time.monotonic() >= service.start_again_at_s:
                service.restarts += 1
                service.announce = True
                self._spawn(service)
            elif service.announce and process is not None and self.status(service.name) is not None:
                service.announce = False
                self._on_event(f"{service.name} runs again (process {process.pid}, start {service.restarts + 1})")
        if self._on_check is not None:
            self._on_check()
        if time.monotonic() >= self._logs_at_s:
            self._logs_at_s = time.monotonic() + _LOGS_INTERVAL_S
            self._bound_logs()
        return ended

    def _ended(self, service: Service, process: subprocess.Popen[bytes]) -> None:
        was_ready = self.status(service.name) is not None
        ran_well = time.monotonic() - service.started_at_s >= RAN_WELL_S
        service.process = None
        service.failures = 0 if was_ready else service.failures + 1
        service.rapid_ends = 0 if ran_well else service.rapid_ends + 1
        if was_ready:
            service.first_tries = FAILURES_MAX
        how = _how(process.returncode)
        if process.returncode == _USAGE_STATUS and not was_ready:
            service.failures = max(service.failures, service.first_tries)
        if service.failures >= service.first_tries or service.rapid_ends >= RAPID_ENDS_MAX:
            service.restart = False
            again = f" {service.rapid_ends} times in a row, the last time" if service.rapid_ends > 1 else ""
            raise StopError(f"{service.name} {how}{again}{self.last_words(service.name)}")
        delay_s = min(_BACKOFF_FIRST_S * 2 ** max(service.failures, service.rapid_ends - 1), _BACKOFF_MAX_S)
        service.start_again_at_s = time.monotonic() + delay_s
        self._on_event(f"{service.name} {how}; starting again in {delay_s:.1f} s")

    def _bound_logs(self) -> None:
        """A log that has grown too long becomes its `.old`, the only one kept. Its writer goes on at the beginning."""
        for name in self.services:
            path = self.log_path(name)
            with contextlib.suppress(OSError):
                if path.stat().st_size > LOG_BYTES_MAX:
                    shutil.copyfile(path, path.with_suffix(".log.old"))
                    os.truncate(path, 0)

    def last_words(self, name: str) -> str:
        """Why a child's last process ended, to follow its name: its own message, else the end of its log."""
        tail, log = self.tail(name), self.log_path(name)
        _, said, message = tail.rpartition("\n")[2].partition(_MESSAGE)
        return f": {message}" if said else f"; its log, {log}, ends:\n{tail}"

    def tail(self, name: str) -> str:
        """The end, at most 2,000 bytes and 15 lines, of what a child's last process wrote to its log."""
        start = self.services[name].log_start if name in self.services else 0
        with contextlib.suppress(OSError), self.log_path(name).open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(0, end - _TAIL_BYTES, start if start <= end else 0))
            lines = log.read().decode(errors="replace").strip().splitlines()
            return "\n".join(lines[-_TAIL_LINES:]) or "(it wrote nothing)"
        return "(no log)"

    def end(self, name: str, timeout_s: float | None = None) -> int | None:
        """SIGTERM one child for good and wait; SIGKILL after `timeout_s`. Its exit status (None: it did not run)."""
        service = self.services[name]
        return self._end([service], timeout_s)[0]

    def _end(self, services: Sequence[Service], timeout_s: float | None = None) -> list[int | None]:
        """SIGTERM to all of them, then wait for each."""
        for service in services:
            service.restart = False
            if service.process is not None and service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        found: list[int | None] = []
        for service in services:
            process = service.process
            if process is not None:
                try:
                    process.wait(service.end_timeout_s if timeout_s is None else timeout_s)
                except subprocess.TimeoutExpired:
                    self._on_event(f"{service.name} did not end in time and is killed")
                    process.kill()
                    process.wait()
                service.process = None
            found.append(None if process is None else process.returncode)
        return found

    def end_all(self) -> None:
        """End every child, from the last started to the first; interrupted by another Ctrl-C: kill the rest at once."""
        stages: list[list[Service]] = []
        for service in reversed(self.services.values()):
            if stages and service.group and stages[-1][0].group == service.group:
                stages[-1].append(service)
            else:
                stages.append([service])
        try:
            for stage in stages:
                self._end(stage)
        except KeyboardInterrupt:
            self._kill_all()
            raise

    def _kill_all(self) -> None:
        with _uninterrupted():
            for service in self.services.values():
                service.restart = False
                if service.process is not None:
                    service.process.kill()
                    service.process.wait()
                    service.process = None
