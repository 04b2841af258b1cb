"""The worker as a process between the embedded log and a lake: killed anywhere, each row lands exactly once."""

from __future__ import annotations

import itertools
import pickle
import random
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import lake
from edge_agent.contract.ring import shard_of
from edge_agent.contract.topics import LOG_BATCHES
from stream_jobs.kafka_client import LogClient, LogProducer, ensure_topics
from tests.kit.processes import Product, python_module
from tests.kit.services import EmbeddedLog
from tests.kit.wait import until
from tests.kit.worker_world import epoch, expected_rows, readings_message

PARTITIONS = 4
SESSION_TIMEOUT_S = 2
CRASH_POINTS = (
    "worker.step.before:2", "worker.prepare.before:3", "worker.decide.before:2",
    "worker.decide.after:2", "worker.apply.before:3",
)  # fmt: skip


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

    def worker(self, name: str = "worker", **environment: str) -> Product:
        """A worker process, not started."""
        options = {
            "bootstrap-servers": self.log.bootstrap_servers, "lake": self.directory / "lake", "run-dir": self.run_dir,
            "name": name, "session-timeout-s": SESSION_TIMEOUT_S, "commit-interval-s": 0.1,
        }  # fmt: skip
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


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """A log with its topics and table."""
    chain = Chain(tmp_path)
    yield chain
    chain.producer.close()
    chain.log.stop()


@pytest.mark.long
@pytest.mark.timeout(120)
def test_killed_at_every_step_and_at_random(chain: Chain) -> None:
    """A worker that dies at each crash point and at random moments, under traffic with doubles, disorder and poison,
    leaves a lake that equals the ledger by identities and values."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    marker = chain.directory / "unpickled"
    poison = pickle.dumps(_Touch(marker))
    # The first life makes the lake; from the second on every crash point is reached.
    for point in [None, *CRASH_POINTS, None]:
        worker = chain.worker(**({"EDGEWATER_CRASH_POINT": point} if point else {})).start()
        stop = threading.Event()
        traffic = threading.Thread(target=_traffic, args=(chain, rng, stop))
        traffic.start()
        try:
            if point is None:
                until(lambda w=worker: (w.status() or {}).get("transactions", 0) > 1, 20, "transactions")
                stop.wait(rng.random() / 2)
            else:
                until(lambda w=worker: not w.alive, 20, f"the end at {point}")
            chain.send(poison, "dev-0")
        finally:
            stop.set()
            traffic.join()
            worker.kill()
        assert worker.returncode == -9, worker.tail()
    chain.produce(rng, 20)
    with chain.worker() as worker:
        worker.ready()
        chain.expect_everything()
        letters = chain.query("SELECT payload, reason FROM dead_letters")
        assert {bytes(letter["payload"]) for letter in letters} == {poison}
        assert len(letters) == len(CRASH_POINTS) + 2
        assert not marker.exists()
        assert worker.status()["alarms"] == []  # type: ignore[index]


def _traffic(chain: Chain, rng: random.Random, stop: threading.Event) -> None:
    while not stop.wait(0.03):
        chain.produce(rng, 3)


class _Touch:
    """Unpickling this would touch a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._path,)


@pytest.mark.timeout(120)
def test_two_workers_share_and_one_takes_over(chain: Chain) -> None:
    """Two workers have each a part of the partitions; when one is killed the other goes on with all from the chains."""
    rng = random.Random(3)
    chain.produce(rng, 50)
    with chain.worker("worker-1") as first, chain.worker("worker-2") as second:
        first.ready()
        second.ready()

        def owned(worker: Product) -> set[str]:
            return set((worker.status() or {}).get("partitions", {}))

        until(lambda: len(owned(first)) == len(owned(second)) == PARTITIONS / 2, 30, "a share for each")
        assert not owned(first) & owned(second)
        chain.produce(rng, 50)
        chain.expect_everything()
        chain.produce(rng, 50)
        first.kill()
        until(lambda: len(owned(second)) == PARTITIONS, 30, "everything with the other")
        chain.produce(rng, 50)
        chain.expect_everything()


@pytest.mark.timeout(120)
def test_the_log_is_killed_and_comes_back(chain: Chain) -> None:
    """A worker goes on by itself when the log was killed and started again, and ends with 0 on SIGTERM."""
    rng = random.Random(4)
    with chain.worker() as worker:
        worker.ready()
        chain.produce(rng, 30)
        chain.expect_everything()
        chain.log.kill()
        chain.log.start()
        chain.producer.close()
        chain.producer = LogProducer(chain.log.bootstrap_servers)
        chain.produce(rng, 30)
        chain.expect_everything(30)
        assert worker.alive, worker.tail()
        assert worker.terminate() == 0, worker.tail()


def test_sigterm_lands_what_is_buffered(chain: Chain) -> None:
    """A worker that is told to end lands what it has in hand first; the next start lands nothing twice."""
    worker = chain.worker()
    worker.command[worker.command.index("--commit-interval-s") + 1] = "30"
    with worker:
        worker.ready()
        chain.produce(random.Random(5), 20)
        until(lambda: (worker.status() or {}).get("buffer_bytes", 0) > 20 * 200, 10, "records in the buffer")
        assert worker.terminate() == 0, worker.tail()
    with chain.worker() as worker:
        worker.ready()
        chain.expect_everything()
        assert epoch() > 0
