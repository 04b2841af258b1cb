"""Runs the product's processes as children: start, wait until ready, start again when one dies, end in order.

A child is ready when its status file names its pid. A child that ends by itself is started again after a
back-off; one that fails over and over without ever being ready stops the supervisor with the end of its log.

**Delivery**: children are asked to end when the supervisor ends in whatever way (also `kill -9`: the kernel
sends them SIGTERM), and each of them survives `kill -9` by itself, so nothing here is needed for safety.
**Bounds**: back-off 0.2 s to 5 s, FAILURES_MAX failed starts in a row, `end_timeout_s` from SIGTERM to SIGKILL.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge_agent.contract.errors import StopError
from edge_agent.contract.status import read_status

__all__ = ["Service", "Supervisor", "edgewater_command"]

_log = logging.getLogger("edgewater.supervisor")
FAILURES_MAX = 5
_BACKOFF_FIRST_S, _BACKOFF_MAX_S = 0.2, 5.0
_PR_SET_PDEATHSIG = 1
_INTERRUPTS = {signal.SIGINT, signal.SIGTERM}
_TAIL_BYTES = 2000


def edgewater_command(*arguments: str | Path) -> tuple[str, ...]:
    """The command line of `edgewater ...` in this very interpreter."""
    return (sys.executable, "-m", "edge_agent.cli", *map(str, arguments))


@dataclass(slots=True)
class Service:
    """One child: `name` is its status file's name, `command` its command line."""

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    end_timeout_s: float = 10.0
    process: subprocess.Popen[bytes] | None = None
    restart: bool = True
    failures: int = 0
    restarts: int = 0
    start_again_at_s: float = 0.0


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C waits: between the start of a child and the note of its id, nobody would know it to end it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Supervisor:
    """Children in the order they were started; ended in the reverse order, also on leaving a `with` block."""

    def __init__(self, run_dir: Path, end_order: Sequence[str] = ()) -> None:
        self.run_dir = run_dir
        self.services: dict[str, Service] = {}
        self._end_order = end_order
        run_dir.mkdir(parents=True, exist_ok=True)

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

        def end_with_supervisor() -> None:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != supervisor:
                os.kill(os.getpid(), signal.SIGKILL)

        with _uninterrupted(), self.log_path(service.name).open("ab") as log:
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

    def wait_ready(self, name: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """The child's first status; StopError with the end of its log when it fails or takes too long."""
        deadline = time.monotonic() + timeout_s
        while (found := self.status(name)) is None:
            self.check()
            if time.monotonic() > deadline:
                raise StopError(f"{name} was not ready after {timeout_s:g} s; the end of its log:\n{self.tail(name)}")
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
                self._spawn(service)
        return ended

    def _ended(self, service: Service, process: subprocess.Popen[bytes]) -> None:
        was_ready = self.status(service.name) is not None
        service.failures = 0 if was_ready else service.failures + 1
        service.process = None
        if service.failures >= FAILURES_MAX:
            service.restart = False
            raise StopError(
                f"{service.name} failed {service.failures} times before it was ready, last with exit status "
                f"{process.returncode}; the end of {self.log_path(service.name)}:\n{self.tail(service.name)}"
            )
        delay_s = min(_BACKOFF_FIRST_S * 2**service.failures, _BACKOFF_MAX_S)
        service.start_again_at_s = time.monotonic() + delay_s
        _log.warning("%s ended with %s; starting again in %.1f s", service.name, process.returncode, delay_s)

    def tail(self, name: str) -> str:
        """The last 2,000 bytes of a child's log."""
        with contextlib.suppress(FileNotFoundError), self.log_path(name).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return log.read().decode(errors="replace").strip()
        return "(no log)"

    def end(self, name: str, timeout_s: float | None = None) -> int | None:
        """SIGTERM one child for good and wait; SIGKILL after `timeout_s`. Its exit status (None: it did not run)."""
        service = self.services[name]
        service.restart = False
        process, service.process = service.process, None
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(service.end_timeout_s if timeout_s is None else timeout_s)
        except subprocess.TimeoutExpired:
            _log.warning("%s did not end in time and is killed", name)
            process.kill()
            return process.wait()

    def end_all(self) -> None:
        """End every child: `end_order` first, then the others from the last started to the first."""
        rest = [name for name in reversed(self.services) if name not in self._end_order]
        for name in [*(name for name in self._end_order if name in self.services), *rest]:
            self.end(name)
