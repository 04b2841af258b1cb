"""A real Mosquitto on a free port, with the configuration that the product generates.

**Delivery**: ended by its process id with the `with` block. **Bounds**: a start is tried five times, since a free port
may be taken between choosing and listening.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.mosquitto import MosquittoSettings, mosquitto_configuration

from .required import mosquitto_binary
from .wait import until

__all__ = ["Mosquitto", "free_port", "listens"]


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago; for servers that cannot choose one themselves."""
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def listens(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


class Mosquitto:
    """One broker in `directory`. `start` after `kill` or `stop` brings it back at the same port, without its memory."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        self.port = 0
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Where it listens."""
        return "127.0.0.1"

    @property
    def url(self) -> str:
        """As agents and bridges take it."""
        return f"mqtt://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The id of the process last started."""
        assert self._process is not None, "mosquitto was not started"
        return self._process.pid

    def start(self) -> Self:
        """Start it, and wait until it accepts connections."""
        for _ in range(5):
            if self._try_start(self.port or free_port()):
                return self
        raise AssertionError(f"mosquitto did not start:\n{self.tail()}")

    def _try_start(self, port: int) -> bool:
        binary = mosquitto_binary()
        assert binary is not None, "mosquitto is missing; call requires('mosquitto') first"
        self.directory.mkdir(parents=True, exist_ok=True)
        # Started as root it would become user `mosquitto`, who may not read a test's temporary folder.
        user = "root" if os.geteuid() == 0 else ""
        settings = MosquittoSettings(port=port, user=user, **self._settings)  # type: ignore[arg-type]
        path = self.directory / "mosquitto.conf"
        path.write_text(mosquitto_configuration(settings), "utf-8")
        with (self.directory / "mosquitto.log").open("ab") as log:
            process = subprocess.Popen([binary, "-c", str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(lambda: process.poll() is not None or listens(self.host, port), 10, "mosquitto's port")
        if process.poll() is not None:
            return False
        self._process, self.port = process, port
        return True

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(10)

    def tail(self) -> str:
        """The end of its log."""
        path = self.directory / "mosquitto.log"
        return path.read_text("utf-8", "replace")[-4000:] if path.exists() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
