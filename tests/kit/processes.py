"""Product processes under test: started in a folder of their own, killed and ended by their id.

    with Product(tmp_path / "run", "bridge", ["bridge", "run", "--run-dir", str(tmp_path / "run")]) as bridge:
        port = bridge.ready()["port"]
        bridge.kill()          # kill -9
        bridge.start()         # the same command again
        bridge.ready()

**Delivery**: a process is ended with the `with` block, also after a failure. **Bounds**: a process that does not end
on SIGTERM within `end_timeout_s` is killed and the test fails; standard error goes to a file, of which a failure
shows the last 4,000 characters.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge_agent.contract.status import read_status

from .wait import until

__all__ = ["ROOT", "Product", "edgewater", "python_module"]

ROOT = Path(__file__).resolve().parents[2]
_TAIL_CHARACTERS = 4000
_ENTRY = "import sys; from edge_agent.cli import main; sys.exit(main())"


def edgewater(*arguments: str | Path) -> list[str]:
    """The command line of `edgewater ...` in this interpreter, as its console script would run it."""
    return [sys.executable, "-c", _ENTRY, *map(str, arguments)]


def python_module(module: str, *arguments: str | Path) -> list[str]:
    """The command line of `python -m module ...` in this interpreter."""
    return [sys.executable, "-m", module, *map(str, arguments)]


class Product:
    """One process of the product. `name` is its status file's name in `run_dir`; `command` is a whole command line."""

    def __init__(
        self,
        run_dir: Path,
        name: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        end_timeout_s: float = 15.0,
    ) -> None:
        self.run_dir = run_dir
        self.name = name
        self.command = [str(part) for part in command]
        self.environment = dict(environment or {})
        self.end_timeout_s = end_timeout_s
        self.stderr_path = run_dir / f"{name}.stderr"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The id of the process last started."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process last started still runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the command (again); its standard output and error are appended to `stderr_path`."""
        assert not self.alive, f"{self.name} runs already as {self.pid}"
        self.run_dir.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **self.environment}
        with self.stderr_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.run_dir
            )
        return self

    def status(self) -> dict[str, Any] | None:
        """The status file written by the process last started, or None while there is none."""
        found = read_status(self.run_dir, self.name)
        return found if found is not None and found["pid"] == self.pid else None

    def ready(self, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait for the first status of this process and return it; fails at once when the process ends instead."""

        def first_status() -> dict[str, Any] | None:
            found = self.status()
            if found is None and not self.alive:
                raise AssertionError(f"{self.name} ended with {self.returncode} before it was ready:\n{self.tail()}")
            return found

        try:
            return until(first_status, timeout_s, f"status of {self.name}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    @property
    def returncode(self) -> int | None:
        """Exit status of the process last started; negative: the signal that ended it; None: it runs."""
        return None if self._process is None else self._process.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, when it still runs."""
        if self._process is not None and self.alive:
            self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait(10)

    def terminate(self) -> int:
        """SIGTERM, wait for a clean end, and return the exit status. Fails (after kill -9) when it takes too long."""
        assert self._process is not None, f"{self.name} was not started"
        self.signal(signal.SIGTERM)
        return self.wait(self.end_timeout_s)

    def wait(self, timeout_s: float) -> int:
        """Wait for the process to end by itself and return its exit status."""
        assert self._process is not None, f"{self.name} was not started"
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {timeout_s} s:\n{self.tail()}") from None

    def tail(self) -> str:
        """The end of what the process wrote to standard error, over all its starts."""
        with contextlib.suppress(FileNotFoundError):
            return self.stderr_path.read_text("utf-8", "replace")[-_TAIL_CHARACTERS:]
        return ""

    def __enter__(self) -> Self:
        return self if self.alive else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.alive:
            return
        if kind is None:
            self.terminate()
        else:
            self.kill()
