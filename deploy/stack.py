"""The embedded stack on one machine: MQTT broker, log, bridge and worker, each a process of its own.

    with Stack(Path("data")) as stack:
        addresses = stack.start()
        ...

Everything binds to loopback on free ports, unless told otherwise; clients learn them from the status files. Data lies
in DIR/{log,lake,agent}, status files and logs in DIR/run.

**Delivery**: ending in order (agents, workers, bridge, log and broker) only saves time; any part may be killed at any
moment.
**Bounds**: one stack per directory (a lock, held from entering the `with` block on); each start waits at most
START_TIMEOUT_S.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge_agent.contract.toml_file import TomlFile

from .directory import DirectoryLock, forget_earlier
from .supervisor import FAILURES_MAX, Service, Supervisor, edgewater_command

__all__ = ["Addresses", "Configuration", "Stack", "device_name", "is_loopback", "url_host"]

START_TIMEOUT_S = 60.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts of a running stack are."""

    mqtt_url: str
    bootstrap_servers: str
    lake: Path


def is_loopback(host: str) -> bool:
    """Whether only this machine's own processes reach what listens at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url_host(host: str) -> str:
    """How a client on this machine writes the address that a server listens at."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return _LOOPBACK if address.version == 4 else "[::1]"
    return host if address.version == 4 else f"[{host}]"


def device_name(host: str) -> str:
    """The host's name as a device id: what an id may not hold becomes a dash."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", host).strip("-.")[:64] or "this-machine"


class Configuration:
    """A settings file (TOML) that all parts are started with; what it says goes before what the stack prefers."""

    def __init__(self, file: Path | None = None) -> None:
        """SettingsError when there is no such file, or it is not TOML."""
        self.file = file
        self._tables: Mapping[str, Any] = {} if file is None else TomlFile.read(file).tables

    @property
    def mappings(self) -> bool:
        """Whether it maps topics of foreign devices."""
        return bool(self._tables.get("mappings"))

    def says(self, section: str, name: str) -> bool:
        """Whether the file, or the environment, sets this setting."""
        table = self._tables.get(section)
        inside = isinstance(table, dict) and name in table
        return inside or f"EDGEWATER_{section}__{name}".upper() in os.environ

    def options(self, section: str, preferred: Mapping[str, str | float | Path] | None = None) -> list[str]:
        """`--config FILE`, and an option for each preferred setting that nobody else sets."""
        found = [] if self.file is None else ["--config", str(self.file)]
        for name, value in (preferred or {}).items():
            if not self.says(section, name):
                found += [f"--{name.replace('_', '-')}", str(value)]
        return found


class Stack:
    """The four cloud-side processes under one supervisor, and others beside them."""

    def __init__(
        self,
        directory: Path,
        *,
        commit_interval_s: float = 0.5,
        partitions: int = 4,
        configuration: Configuration | None = None,
        on_event: Callable[[str], None] | None = None,
        on_check: Callable[[], None] | None = None,
    ) -> None:
        self.directory = directory
        self.lake = directory / "lake"
        options: dict[str, Any] = {} if on_event is None else {"on_event": on_event}
        self.supervisor = Supervisor(directory / "run", on_check=on_check, **options)
        self.configuration = configuration or Configuration()
        self.addresses: Addresses | None = None
        self.lock: DirectoryLock | None = None
        self._commit_interval_s = commit_interval_s
        self._partitions = partitions
        self._told = on_event or (lambda _text: None)

    def __enter__(self) -> Self:
        self.lock = DirectoryLock(self.directory)
        try:
            forget_earlier(self.supervisor.run_dir, self._told)
        except BaseException:
            self.lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.supervisor.end_all()
        finally:
            if self.lock is not None:
                self.lock.close()

    def start(self, *, host: str = _LOOPBACK, mqtt_port: int = 0, log_port: int = 0) -> Addresses:
        """Start all four; returns when each is ready. StopError names the one that is not.

        The broker listens at `host`, the log on loopback unless its settings say otherwise; port 0 is any free one.
        """
        supervisor = self.supervisor
        self._start(
            "mqtt", "mqtt", "run", "--host", host, "--port", str(mqtt_port), *self.configuration.options("mqtt"),
            group="services",
        )  # fmt: skip
        self._start(
            "log", "log", "run", "--dir", self.directory / "log", "--port", str(log_port),
            *self.configuration.options("log", {"host": _LOOPBACK}), group="services",
        )  # fmt: skip
        mqtt = supervisor.wait_ready("mqtt", START_TIMEOUT_S)
        log = supervisor.wait_ready("log", START_TIMEOUT_S)
        mqtt_url = f"mqtt://{url_host(mqtt['host'])}:{mqtt['port']}"
        bootstrap = f"{url_host(log['host'])}:{log['port']}"
        # A broker or log that is started again must come back where its clients look for it.
        self._pin_port("mqtt", mqtt["port"])
        self._pin_port("log", log["port"])
        self.addresses = Addresses(mqtt_url, bootstrap, self.lake)
        self._start(
            "bridge", "bridge", "run", "--name", "bridge", "--mqtt-url", mqtt_url, "--bootstrap-servers", bootstrap,
            *self.configuration.options("bridge", {"partitions": self._partitions}),
        )  # fmt: skip
        self._start_worker("worker", ())
        supervisor.wait_ready("bridge", START_TIMEOUT_S, lambda status: status.get("ready"))
        supervisor.wait_ready("worker", START_TIMEOUT_S)
        return self.addresses

    def _start(self, name: str, *arguments: str | Path, group: str = "", first_tries: int = FAILURES_MAX) -> None:
        command = edgewater_command(*arguments, "--run-dir", self.supervisor.run_dir)
        self.supervisor.start(Service(name, command, group=group, first_tries=first_tries))

    def _start_worker(self, name: str, arguments: Sequence[str | Path], first_tries: int = FAILURES_MAX) -> None:
        addresses = self._started()
        preferred = {"commit_interval_s": self._commit_interval_s, "session_timeout_s": 3}
        self._start(
            name, "worker", "run", *arguments, "--bootstrap-servers", addresses.bootstrap_servers,
            "--lake", self.lake, "--name", name, *self.configuration.options("worker", preferred),
            group="workers", first_tries=first_tries,
        )  # fmt: skip

    def _started(self) -> Addresses:
        assert self.addresses is not None, "start the stack first"
        return self.addresses

    def _pin_port(self, name: str, port: int) -> None:
        service = self.supervisor.services[name]
        command = list(service.command)
        command[command.index("--port") + 1] = str(port)
        service.command = command

    def start_job(self, name: str, file: Path) -> None:
        """Start a worker of the job in `file` under a name of its own; `wait_ready` says when it works."""
        self._start_worker(name, ("--job", file), first_tries=1)

    def start_mapping(self, name: str) -> None:
        """Start the process that takes foreign devices' messages by the mappings of the configuration."""
        addresses = self._started()
        self._start(
            name, "mapping", "run", "--bootstrap-servers", addresses.bootstrap_servers,
            "--mqtt-url", addresses.mqtt_url, *self.configuration.options("mapping"), first_tries=1,
        )  # fmt: skip

    def start_agent(
        self,
        device: str,
        arguments: Sequence[str | Path] = (),
        *,
        drain_timeout_s: float = 30.0,
        first_tries: int = FAILURES_MAX,
    ) -> str:
        """Start an agent of `device` on this machine; the name of its service."""
        addresses = self._started()
        name = f"agent-{device}"
        command = edgewater_command(
            "agent", "run", *arguments, "--device", device, "--mqtt-urls", addresses.mqtt_url,
            "--dir", self.agent_directory(device), "--run-dir", self.supervisor.run_dir,
            "--drain-timeout-s", str(drain_timeout_s), *self.configuration.options("agent"),
        )  # fmt: skip
        self.supervisor.start(Service(name, command, end_timeout_s=drain_timeout_s + 10, first_tries=first_tries))
        self.supervisor.wait_ready(name, START_TIMEOUT_S)
        return name

    def agent_directory(self, device: str) -> Path:
        """Where the device's spool is."""
        return self.directory / "agent" / device
