"""The worker as a process between the embedded log and a lake: killed anywhere, each row lands exactly once."""

from __future__ import annotations

import pickle
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream_jobs.kafka_client import LogProducer
from tests.kit.processes import Product
from tests.kit.wait import until
from tests.kit.worker_chain import PARTITIONS, Chain
from tests.kit.worker_world import epoch

CRASH_POINTS = (
    "worker.step.before:2", "worker.prepare.before:3", "worker.decide.before:2",
    "worker.decide.after:2", "worker.apply.before:3",
)  # fmt: skip


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
