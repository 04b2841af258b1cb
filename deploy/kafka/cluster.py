"""One or three nodes of Apache Kafka on this machine, as children of one process that ends them with itself.

    edgewater kafka run --dir DIR --port 0 --run-dir RUN

Start-up, in order: 1. ports are chosen and written to DIR/cluster.json, 2. each node's directory is formatted once,
3. the nodes start, 4. when each has said that it serves clients, the status file `kafka` appears in RUN.

**Delivery**: Kafka's own (acks=all and min.insync.replicas). A directory keeps its cluster id and its ports, so after
`kill -9` the same command brings back the same log at the same address. The nodes die with this process, also when it
is killed (Linux: parent-death signal).
**Bounds**: each node's heap (`heap_mib`) and log files (rolled at 10 MB); a node not ready in `ready_timeout_s` ends
them all.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_agent.contract.errors import SettingsError, StopError
from edge_agent.contract.settings import setting
from edge_agent.contract.status import StatusFile

from .configuration import Node, node_properties
from .jars import JAVA_VERSION_MIN, class_path, java_command

__all__ = ["Cluster", "KafkaSettings", "run"]

_log = logging.getLogger(__name__)
_LOGGING = Path(__file__).with_name("log4j2.properties")
_READY = "Kafka Server started"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_END_TIMEOUT_S = 20.0
_STATUS_INTERVAL_S = 0.5


@dataclass(frozen=True, kw_only=True)
class KafkaSettings:
    """How many nodes, where, and how large."""

    host: str = setting("127.0.0.1", help="address to listen on")
    port: int = setting(
        0, help="port of the first node (0: a free one, kept in the directory)", minimum=0, maximum=65533
    )
    nodes: int = setting(1, help="nodes: 1, or 3 to replicate", minimum=1, maximum=3)
    heap_mib: int = setting(384, help="Java heap of each node in MiB", minimum=128, maximum=65536)
    ready_timeout_s: float = setting(120.0, help="seconds to wait until the nodes serve clients", minimum=1)


def free_ports(host: str, count: int) -> list[int]:
    """`count` different ports that were free a moment ago."""
    sockets = [socket.create_server((host, 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _end_with_parent() -> None:
    """Runs in the child between fork and exec: SIGKILL when the parent is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Cluster:
    """The nodes in one directory. `start` returns when all serve clients; `stop` ends them."""

    def __init__(self, directory: Path, settings: KafkaSettings) -> None:
        if settings.nodes == 2:
            raise SettingsError("nodes is 2, which cannot lose one either; use 1 or 3")
        java = java_command()
        if java is None:
            raise StopError(f"Kafka needs Java {JAVA_VERSION_MIN} or newer; apt-get install openjdk-17-jre-headless")
        self._java = java
        self._directory = directory.resolve()
        self._settings = settings
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._class_path = class_path()
        self.cluster_id, self.nodes = self._identity()

    @property
    def bootstrap_servers(self) -> str:
        """Addresses of all nodes, as clients take them."""
        return ",".join(f"{self._settings.host}:{node.port}" for node in self.nodes)

    @property
    def pids(self) -> dict[int, int]:
        """Node number -> process id, of the nodes that run."""
        return {number: process.pid for number, process in self._processes.items() if process.poll() is None}

    def start(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Format what is new, start every node, and wait until each serves clients.

        Raises StopError when a node ends or is not ready in time; `stopping` ends the wait early.
        """
        for node in self.nodes:
            self._format(node)
        for node in self.nodes:
            self.start_node(node.number)
        deadline = time.monotonic() + self._settings.ready_timeout_s
        while not stopping():
            if all(self._serves(node) for node in self.nodes):
                return
            if time.monotonic() > deadline:
                self.stop()
                raise StopError(f"Kafka was not ready in {self._settings.ready_timeout_s} s; {self._last_words()}")
            time.sleep(0.05)

    def start_node(self, number: int) -> None:
        """Start one node (again)."""
        folder = self._folder(number)
        (folder / "log").mkdir(exist_ok=True)
        (folder / "log" / "server.log").unlink(missing_ok=True)
        with (folder / "log" / "output.log").open("wb") as output:
            self._processes[number] = subprocess.Popen(
                [*self._java_line(folder), "kafka.Kafka", str(folder / "server.properties")],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder,
                # Safe here: nothing in this process holds a lock that the two calls in the child would need.
                preexec_fn=_end_with_parent,  # noqa: PLW1509
            )  # fmt: skip

    def kill_node(self, number: int) -> None:
        """kill -9 of one node."""
        self._processes[number].kill()
        self._processes[number].wait()

    def stop(self) -> None:
        """SIGTERM for every node, SIGKILL for those that are not gone in time."""
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + _END_TIMEOUT_S
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _folder(self, number: int) -> Path:
        return self._directory / f"node-{number}"

    def _identity(self) -> tuple[str, tuple[Node, ...]]:
        """Cluster id and nodes of this directory: as written the first time, else new and written now."""
        path = self._directory / "cluster.json"
        if path.exists():
            found = json.loads(path.read_text("utf-8"))
            nodes = tuple(Node(**one) for one in found["nodes"])
            if len(nodes) != self._settings.nodes or self._settings.port not in (0, nodes[0].port):
                raise SettingsError(
                    f"{path} is a cluster of {len(nodes)} at port {nodes[0].port}, asked: {self._settings.nodes}"
                    f" at port {self._settings.port}; use those settings or another directory"
                )
            return found["cluster_id"], nodes
        count = self._settings.nodes
        ports = free_ports(self._settings.host, 2 * count)
        if self._settings.port:
            ports[:count] = range(self._settings.port, self._settings.port + count)
        nodes = tuple(Node(number=i + 1, port=ports[i], controller_port=ports[count + i]) for i in range(count))
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        document = {"cluster_id": cluster_id, "nodes": [asdict(node) for node in nodes]}
        temporary.write_text(json.dumps(document), "utf-8")
        os.replace(temporary, path)
        return cluster_id, nodes

    def _java_line(self, folder: Path) -> list[str]:
        return [
            self._java, "-Xms64m", f"-Xmx{self._settings.heap_mib}m", "-XX:+UseSerialGC",
            "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true", f"-Dlog4j2.configurationFile={_LOGGING}",
            f"-Dedgewater.kafka.log_dir={folder / 'log'}", "-cp", self._class_path,
        ]  # fmt: skip

    def _format(self, node: Node) -> None:
        """Write the properties, and format the directory unless that has happened."""
        folder = self._folder(node.number)
        data_dir = folder / "data"
        data_dir.mkdir(parents=True, exist_ok=True)
        properties = node_properties(node, self.nodes, self._settings.host, data_dir)
        text = "".join(f"{name}={value}\n" for name, value in properties.items())
        (folder / "server.properties").write_text(text, "utf-8")
        if (data_dir / "meta.properties").exists():
            return
        result = subprocess.run(
            [*self._java_line(folder), "kafka.tools.StorageTool", "format",
             # One word: an id may begin with a dash, which would be taken for an option.
             f"--cluster-id={self.cluster_id}", "--config", str(folder / "server.properties"), "--ignore-formatted"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if result.returncode != 0:
            raise StopError(f"Kafka could not format {data_dir}: {(result.stderr + result.stdout).strip()[-500:]}")

    def _serves(self, node: Node) -> bool:
        """Whether `node` has logged that it is ready; raises StopError when it has ended."""
        process = self._processes[node.number]
        if process.poll() is not None:
            self.stop()
            raise StopError(f"Kafka node {node.number} ended with {process.returncode}; {self._last_words()}")
        log = self._folder(node.number) / "log" / "server.log"
        return log.exists() and _READY in log.read_text("utf-8", "replace")

    def _last_words(self) -> str:
        """Where the logs are, and the end of the first node's."""
        folder = self._folder(1) / "log"
        text = ""
        for name in ("server.log", "output.log"):
            path = folder / name
            text += path.read_text("utf-8", "replace")[-600:] if path.exists() else ""
        return f"see {folder}:\n{text}"


def run(directory: Path, run_dir: Path | None, settings: KafkaSettings) -> int:
    """Run the nodes in the foreground until SIGTERM or SIGINT (status 0) or until no node runs any more (status 1)."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    cluster = Cluster(directory, settings)
    status = StatusFile(run_dir, "kafka")
    try:
        cluster.start(ending.is_set)
        _log.info("Kafka serves clients at %s", cluster.bootstrap_servers)
        while not ending.is_set():
            status.write(
                host=settings.host,
                port=cluster.nodes[0].port,
                bootstrap_servers=cluster.bootstrap_servers,
                pids={str(number): pid for number, pid in cluster.pids.items()},
            )
            if not cluster.pids:
                _log.error("no Kafka node runs any more; see the logs under %s", directory)
                return 1
            ending.wait(_STATUS_INTERVAL_S)
        return 0
    finally:
        cluster.stop()
