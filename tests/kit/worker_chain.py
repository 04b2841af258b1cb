"""A log, worker processes and a lake, with a ledger of what was produced, for tests of workers.

**Delivery**: appends are repeated by the test's own hand where it matters. **Bounds**: everything is kept in memory.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import lake
from edge_agent.contract.ring import shard_of
from edge_agent.contract.topics import LOG_BATCHES
from stream_jobs.kafka_client import LogClient, LogProducer, ensure_topics
from tests.kit.processes import Product, python_module
from tests.kit.services import EmbeddedLog
from tests.kit.wait import until
from tests.kit.worker_world import expected_rows, readings_message

__all__ = ["PARTITIONS", "Chain"]

PARTITIONS = 4
SESSION_TIMEOUT_S = 2


class Chain:
    """A log, workers, a lake, and the ledger of what was produced."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.run_dir = directory / "run"
        self.log = EmbeddedLog(directory / "log", self.run_dir).start()
        ensure_topics(self.log.bootstrap_servers, PARTITIONS)
        self.producer = LogProducer(self.log.bootstrap_servers)
        with closing(LogClient(self.log.bootstrap_servers)) as client:
            self.table = client.ensure_tables(PARTITIONS, self.producer)[0].partitions
        self.ledger: list[tuple[str, int, int]] = []
        self._seqs: dict[str, Iterator[int]] = {}
        self._lock = threading.Lock()

    def worker(self, name: str = "worker", job: Path | None = None, **environment: str) -> Product:
        """A worker process, of the job file `job` or the default job, not started."""
        options = {
            "bootstrap-servers": self.log.bootstrap_servers, "lake": self.directory / "lake", "run-dir": self.run_dir,
            "name": name, "session-timeout-s": SESSION_TIMEOUT_S, "commit-interval-s": 0.1,
        }  # fmt: skip
        options |= {} if job is None else {"job": job}
        flags = [str(part) for option, value in options.items() for part in (f"--{option}", value)]
        command = python_module("stream_jobs.worker", *flags)
        return Product(self.run_dir, name, command, environment=environment)

    def send(self, message: bytes, device: str) -> None:
        """Append to the device's partition; repeated by the test's own hand where it matters, so failures are fatal."""
        partition = self.table[shard_of(device)]
        self.producer.append(LOG_BATCHES, partition, device.encode(), message, lambda *_: None)

    def produce(self, rng: random.Random, count: int) -> None:
        """Batches of ten devices, some sent twice, some again out of order."""
        for _ in range(count):
            device = f"dev-{rng.randrange(10)}"
            seq = next(self._seqs.setdefault(device, itertools.count(1)))
            rows = rng.randrange(1, 30)
            message = readings_message(device, seq, rows=rows)
            with self._lock:
                self.ledger.append((device, seq, rows))
            for _ in range(rng.choice([1, 1, 1, 2])):
                self.send(message, device)
            old_device, old_seq, old_rows = rng.choice(self.ledger)
            self.send(readings_message(old_device, old_seq, rows=old_rows), old_device)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of the last published snapshot."""
        with lake.open(self.directory / "lake") as here:
            rows: list[dict[str, Any]] = here.snapshot().query(sql).arrow().to_pylist()
            return rows

    def expect_everything(self, timeout_s: float = 20.0) -> None:
        """Wait until the lake has as many rows as the ledger; then identities and values are equal."""
        wanted = expected_rows(self.ledger)
        until(
            lambda: self.query("SELECT count(*) AS n FROM readings")[0]["n"] >= len(wanted), timeout_s,
            f"{len(wanted)} rows in the lake",
        )  # fmt: skip
        found = self.query("SELECT device, epoch, seq, row, value FROM readings ORDER BY ALL")
        assert [tuple(row.values()) for row in found] == wanted
        (counted,) = self.query("SELECT sum(count)::BIGINT AS n FROM readings_1m")
        assert counted["n"] == len(wanted)
