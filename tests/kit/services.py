"""Brokers and logs for tests: embedded ones, real ones, and a pair of both kinds behind one face.

    with embedded_services(tmp_path) as services:      # or real_services(tmp_path)
        services.mqtt_url, services.bootstrap_servers
        services.mqtt.kill(); services.mqtt.start()    # same port, same directory
        services.log.kill(); services.log.start()

**Delivery**: servers are ended by their process ids with the `with` block. **Bounds**: 60 s for a server to be ready
(Kafka 180, which includes fetching its jars).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from .mosquitto import Mosquitto
from .processes import Product, edgewater, python_module
from .required import requires

__all__ = ["EmbeddedLog", "EmbeddedMqtt", "Kafka", "Server", "Services", "embedded_services", "real_services"]


class Server(Protocol):
    """What every server of the kit can do; `start` after `kill` comes back at the same address."""

    @property
    def pid(self) -> int:
        """The id of the process last started."""
        ...

    def start(self) -> Self:
        """Start, and wait until it serves."""
        ...

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        ...

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        ...


class ProductServer:
    """A server that is a process of the product and tells its port through a status file."""

    def __init__(self, name: str, run_dir: Path, ready_timeout_s: float = 60.0) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.run_dir = run_dir
        self._ready_timeout_s = ready_timeout_s
        self.process = Product(run_dir, name, [])

    def command(self, port: int) -> list[str]:
        """The command line that serves at `port` (0: any)."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The id of the process last started."""
        return self.process.pid

    def start(self) -> Self:
        """Start, and wait until it serves; at the same port as before, if it was started before."""
        self.process.command = self.command(self.port)
        self.process.start()
        self.port = int(self.process.ready(self._ready_timeout_s)["port"])
        return self

    def status(self) -> dict[str, Any]:
        """The latest status."""
        return self.process.status() or {}

    def kill(self) -> None:
        """kill -9, and wait for the end."""
        self.process.kill()

    def stop(self) -> None:
        """SIGTERM, and wait for the end."""
        if self.process.alive:
            self.process.terminate()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class EmbeddedMqtt(ProductServer):
    """`edgewater mqtt run`; `options` are further ones of its command line."""

    def __init__(self, run_dir: Path, *options: str) -> None:
        super().__init__("mqtt", run_dir)
        self._options = options

    def command(self, port: int) -> list[str]:
        """The command line that serves at `port` (0: any)."""
        return edgewater(
            "mqtt", "run", "--host", self.host, "--port", str(port), "--run-dir", self.run_dir, *self._options
        )

    @property
    def url(self) -> str:
        """As agents and bridges take it."""
        return f"mqtt://{self.host}:{self.port}"


class EmbeddedLog(ProductServer):
    """The embedded log; `options` are further ones of its command line."""

    def __init__(self, directory: Path, run_dir: Path, *options: str) -> None:
        super().__init__("log", run_dir)
        self.directory = directory
        self._options = options

    def command(self, port: int) -> list[str]:
        """The command line that serves at `port` (0: any)."""
        return python_module(
            "stream_jobs.log", "--dir", self.directory, "--port", str(port), "--run-dir", self.run_dir, *self._options
        )

    @property
    def bootstrap_servers(self) -> str:
        """As Kafka clients take it."""
        return f"{self.host}:{self.port}"


class Kafka(ProductServer):
    """`edgewater kafka run`: real Apache Kafka. `kill` kills the nodes too, as they die with what started them."""

    def __init__(self, directory: Path, run_dir: Path, *options: str) -> None:
        super().__init__("kafka", run_dir, ready_timeout_s=180.0)
        self.directory = directory
        self._options = options
        self.process.end_timeout_s = 30.0

    def command(self, port: int) -> list[str]:
        """The command line that serves at `port` (0: any)."""
        return edgewater(
            "kafka", "run", "--dir", self.directory, "--port", str(port), "--run-dir", self.run_dir, *self._options
        )

    @property
    def bootstrap_servers(self) -> str:
        """As Kafka clients take it."""
        return str(self.status()["bootstrap_servers"])


@dataclass(frozen=True, kw_only=True)
class Services:
    """A broker and a log, embedded or real. `kind` is `embedded` or `real`."""

    kind: str
    directory: Path
    mqtt: EmbeddedMqtt | Mosquitto
    log: EmbeddedLog | Kafka

    @property
    def mqtt_url(self) -> str:
        """As agents and bridges take it."""
        return self.mqtt.url

    @property
    def bootstrap_servers(self) -> str:
        """As Kafka clients take it."""
        return f"{self.log.host}:{self.log.port}"


@contextmanager
def embedded_services(directory: Path) -> Iterator[Services]:
    """The embedded broker and log, each fresh, in `directory`."""
    run_dir = directory / "run"
    with EmbeddedMqtt(run_dir) as mqtt, EmbeddedLog(directory / "log", run_dir) as log:
        yield Services(kind="embedded", directory=directory, mqtt=mqtt, log=log)


@contextmanager
def real_services(directory: Path) -> Iterator[Services]:
    """Mosquitto and one node of Kafka, each fresh, in `directory`; skips where they cannot run."""
    requires("mosquitto")
    requires("kafka")
    run_dir = directory / "run"
    with Mosquitto(directory / "mosquitto") as mqtt, Kafka(directory / "kafka", run_dir) as log:
        yield Services(kind="real", directory=directory, mqtt=mqtt, log=log)
