"""A whole chain of processes under test: services, bridge, worker, and many devices with known rows.

**Delivery**: every process is ended by its id with the `with` block. **Bounds**: as in the kit.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.verify import Comparison, compare
from edge_agent.contract.status import read_status
from tests.kit.processes import Product, edgewater
from tests.kit.services import Services
from tests.kit.wait import until

__all__ = ["Chain", "running_chain"]

FUNCTION = Path(__file__).with_name("known_rows.py")


class Chain:
    """`services`, a bridge, a worker, and one agent a device; each may be killed and started again by name."""

    def __init__(self, services: Services, directory: Path, devices: list[str]) -> None:
        self.services = services
        self.directory = directory
        self.run_dir = directory / "run"
        self.lake = directory / "lake"
        self.devices = devices
        log = services.bootstrap_servers
        self.products = {
            "bridge": Product(
                self.run_dir,
                "bridge",
                edgewater(
                    "bridge", "run", "--mqtt-url", services.mqtt_url, "--bootstrap-servers", log,
                    "--run-dir", self.run_dir,
                ),
            ),
            "worker": Product(
                self.run_dir,
                "worker",
                edgewater(
                    "worker", "run", "--bootstrap-servers", log, "--lake", self.lake, "--run-dir", self.run_dir,
                    "--session-timeout-s", "3",
                ),
            ),
        }  # fmt: skip
        self.agents = {device: self._agent(device) for device in devices}
        self._accepted: dict[tuple[str, int], int] = {}

    def _agent(self, device: str) -> Product:
        command = edgewater(
            "agent", "run", FUNCTION, "--device", device, "--mqtt-urls", self.services.mqtt_url,
            "--dir", self.directory / "agent" / device, "--run-dir", self.run_dir, "--ledger", "true",
            "--drain-timeout-s", "90",
        )  # fmt: skip
        return Product(self.run_dir, f"agent-{device}", command, end_timeout_s=100.0)

    def start(self) -> None:
        """Start everything that is not running; returns when all is ready."""
        for product in (*self.products.values(), *self.agents.values()):
            product.start()
        for product in (*self.products.values(), *self.agents.values()):
            product.ready(60)

    def kill(self, name: str) -> None:
        """kill -9 `name` (mqtt, log, bridge, worker or a device) and start it again."""
        victim: Any = {"mqtt": self.services.mqtt, "log": self.services.log, **self.products, **self.agents}[name]
        victim.kill()
        victim.start()

    def revive(self) -> None:
        """Start the worker again when it ended by itself, as it may when the log dies under it (its supervisor's part).
        Nobody else may: a bridge or agent that does is a fault."""
        worker = self.products["worker"]
        if not worker.alive:
            worker.start()
        bridge = self.products["bridge"]
        assert bridge.alive, f"the bridge ended by itself with {bridge.returncode}:\n{bridge.tail()}"

    def check_agents(self) -> None:
        """No agent ended by itself."""
        for device, agent in self.agents.items():
            assert agent.alive, f"{device} ended by itself with {agent.returncode}:\n{agent.tail()}"

    def accepted_rows(self) -> int:
        """Rows that the spools accepted so far: never falls, though an agent's own count starts again with it."""
        for device in self.devices:
            status = read_status(self.run_dir, f"agent-{device}") or {}
            if status:
                self._accepted[device, status["pid"]] = int(status["rows_accepted"])
        return sum(self._accepted.values())

    def waiting_batches(self) -> int:
        """Batches that lie in the spools now: accepted, and not known to be durable."""
        found = (read_status(self.run_dir, f"agent-{device}") or {} for device in self.devices)
        return sum(int(status.get("spool_batches", 0)) for status in found)

    def spools(self) -> list[Path]:
        """Each device's spool."""
        return [self.directory / "agent" / device / "spool.sqlite" for device in self.devices]

    def drain(self) -> None:
        """SIGTERM every agent; each must end with status 0, its spool empty."""
        for agent in self.agents.values():
            # One that was started a moment ago would die of the signal instead of draining.
            agent.ready(60)
            agent.signal(signal.SIGTERM)
        for device, agent in self.agents.items():
            until(lambda agent=agent: (self.revive(), not agent.alive)[1], 100, f"the end of {device}")
            assert agent.returncode == 0, f"{device} ended with {agent.returncode}:\n{agent.tail()}"

    def landed(self, timeout_s: float = 90.0) -> Comparison:
        """Wait until the lake holds each accepted row; the comparison, equal or not."""
        last: list[Comparison] = []

        def settled() -> bool:
            self.revive()
            last[:] = [compare(self.spools(), self.lake)]
            return last[0].equal or last[0].doubled > 0 or last[0].foreign > 0

        with contextlib.suppress(AssertionError):
            until(settled, timeout_s, "the lake to equal the ledgers", poll_s=0.5)
        return last[0]

    def stop(self) -> None:
        """End everything that still runs."""
        for product in (*self.agents.values(), *self.products.values()):
            if product.alive:
                product.kill()


@contextlib.contextmanager
def running_chain(services: Services, directory: Path, devices: list[str]) -> Iterator[Chain]:
    """A started chain, ended with the block."""
    chain = Chain(services, directory, devices)
    try:
        chain.start()
        yield chain
    finally:
        chain.stop()
