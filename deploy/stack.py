"""The embedded stack on one machine: MQTT broker, log, bridge and worker, each a process of its own.

    with Stack(Path("data")) as stack:
        addresses = stack.start()
        ...

Everything binds to loopback on free ports; the first start's ports are not kept, because clients learn them from
the status files. Data lies in DIR/{log,lake}, status files and logs in DIR/run.

**Delivery**: ending in order (agents, bridge, worker, log, broker) only saves time; any part may be killed at any
moment.
**Bounds**: one stack per directory (the log and each spool lock theirs); each start waits at most START_TIMEOUT_S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .supervisor import Service, Supervisor, edgewater_command

__all__ = ["Addresses", "Stack"]

START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the parts of a running stack are."""

    mqtt_url: str
    bootstrap_servers: str
    lake: Path


class Stack:
    """The four cloud-side processes under one supervisor, and agents beside them."""

    def __init__(self, directory: Path, *, commit_interval_s: float = 0.5, partitions: int = 4) -> None:
        self.directory = directory
        self.lake = directory / "lake"
        self.supervisor = Supervisor(directory / "run")
        self._commit_interval_s = commit_interval_s
        self._partitions = partitions
        self.addresses: Addresses | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.supervisor.end_all()

    def start(self) -> Addresses:
        """Start all four; returns when each is ready. StopError names the one that is not."""
        run = self.supervisor.run_dir
        supervisor = self.supervisor
        loopback = ("--host", "127.0.0.1", "--port", "0", "--run-dir", run)
        supervisor.start(Service("mqtt", edgewater_command("mqtt", "run", *loopback)))
        supervisor.start(Service("log", edgewater_command("log", "run", "--dir", self.directory / "log", *loopback)))
        mqtt = supervisor.wait_ready("mqtt", START_TIMEOUT_S)
        log = supervisor.wait_ready("log", START_TIMEOUT_S)
        mqtt_url = f"mqtt://{mqtt['host']}:{mqtt['port']}"
        bootstrap = f"{log['host']}:{log['port']}"
        # A broker or log that is started again must come back where its clients look for it.
        self._pin_port("mqtt", mqtt["port"])
        self._pin_port("log", log["port"])
        supervisor.start(
            Service(
                "bridge",
                edgewater_command(
                    "bridge", "run", "--mqtt-url", mqtt_url, "--bootstrap-servers", bootstrap,
                    "--partitions", str(self._partitions), "--run-dir", run,
                ),
            )
        )  # fmt: skip
        supervisor.start(
            Service(
                "worker",
                edgewater_command(
                    "worker", "run", "--bootstrap-servers", bootstrap, "--lake", self.lake, "--run-dir", run,
                    "--commit-interval-s", str(self._commit_interval_s), "--session-timeout-s", "3",
                ),
            )
        )  # fmt: skip
        supervisor.wait_ready("bridge", START_TIMEOUT_S)
        supervisor.wait_ready("worker", START_TIMEOUT_S)
        self.addresses = Addresses(mqtt_url, bootstrap, self.lake)
        return self.addresses

    def _pin_port(self, name: str, port: int) -> None:
        service = self.supervisor.services[name]
        command = list(service.command)
        command[command.index("--port") + 1] = str(port)
        service.command = command

    def start_agent(self, device: str, arguments: Sequence[str | Path] = (), *, drain_timeout_s: float = 30.0) -> str:
        """Start an agent of `device` on this machine; the name of its service."""
        assert self.addresses is not None, "start the stack first"
        name = f"agent-{device}"
        command = edgewater_command(
            "agent", "run", *arguments, "--device", device, "--mqtt-urls", self.addresses.mqtt_url,
            "--dir", self.agent_directory(device), "--run-dir", self.supervisor.run_dir,
            "--drain-timeout-s", str(drain_timeout_s),
        )  # fmt: skip
        self.supervisor.start(Service(name, command, end_timeout_s=drain_timeout_s + 10))
        self.supervisor.wait_ready(name, START_TIMEOUT_S)
        return name

    def agent_directory(self, device: str) -> Path:
        """Where the device's spool is."""
        return self.directory / "agent" / device
