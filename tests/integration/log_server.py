"""The embedded log as a process for tests: `python -m stream_jobs.log` on a free port, which a restart keeps.

**Delivery**: ended by its process id with the `with` block. **Bounds**: each wait has a deadline.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.kit.processes import Product, python_module

__all__ = ["LogServer"]


class LogServer:
    """One log in `directory`/log. `start` after `kill` or `stop` opens the same directory at the same port."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self.run_dir = directory / "run"
        self.port = 0
        self._settings = settings
        self._product: Product | None = None

    def _command(self) -> list[str]:
        options = {"dir": self.directory / "log", "run_dir": self.run_dir, "port": self.port, **self._settings}
        flags = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        return python_module("stream_jobs.log", *flags)

    @property
    def product(self) -> Product:
        """The process; it was started."""
        assert self._product is not None
        return self._product

    @property
    def bootstrap(self) -> str:
        """What clients take as bootstrap_servers."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> Self:
        """Start it and wait until it listens."""
        self._product = Product(self.run_dir, "log", self._command()).start()
        self.port = int(self._product.ready()["port"])
        return self

    def kill(self) -> None:
        """kill -9."""
        self.product.kill()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return self.product.terminate()

    def status(self) -> dict[str, Any]:
        """The last status it wrote."""
        found = self.product.status()
        assert found is not None
        return found

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.product.__exit__(kind, error, trace)
