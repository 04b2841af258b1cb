"""Faust, the worker's service and the embedded log in this process, with a lake in memory that fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract.clock import Clock
from edge_agent.contract.errors import RetryError, StopError
from edge_agent.contract.topics import LOG_BATCHES
from stream_jobs.default_job import job as default_job
from stream_jobs.faust_app import FaustSource
from stream_jobs.kafka_client import LogClient, LogProducer, ensure_topics
from stream_jobs.worker.landing import Landing
from stream_jobs.worker.service import WorkerService
from stream_jobs.worker.settings import WorkerSettings
from tests.kit.services import EmbeddedLog
from tests.kit.worker_world import Link, MemoryLake, readings_message

SESSION_TIMEOUT_S = 1.0


class _StoppedLake(MemoryLake):
    """A lake that takes nothing while `stopped`."""

    stopped = True

    def prepare(self, appends: Mapping[str, Any], links: Any) -> Any:
        """Fails while stopped."""
        if self.stopped:
            raise RetryError("the lake is stopped")
        return super().prepare(appends, links)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    """The embedded log with one partition."""
    with EmbeddedLog(tmp_path / "log", tmp_path / "run") as log:
        ensure_topics(log.bootstrap_servers, 1)
        with closing(LogClient(log.bootstrap_servers)) as client:
            producer = LogProducer(log.bootstrap_servers)
            client.ensure_tables(1, producer)
            producer.close()
        yield log


def test_membership_outlives_a_lake_that_cannot(log: EmbeddedLog) -> None:
    """While the lake is stopped for several session timeouts the buffer stays bounded, nothing more is consumed, and
    the worker keeps its partition without a rebalance; then everything lands once."""
    lake = _StoppedLake()
    reports: list[Mapping[str, Any]] = []
    settings = WorkerSettings(
        bootstrap_servers=log.bootstrap_servers, session_timeout_s=SESSION_TIMEOUT_S, commit_interval_s=0.05,
        buffer_bytes_max=2 << 20, step_bytes_max=1 << 20,
    )  # fmt: skip
    batches = [("pi", seq, 1000) for seq in range(1, 201)]

    def make_landing(clock: Clock, alarm: Callable[[str], None]) -> Landing:
        return Landing(
            job=default_job, lake=lake, link=Link, open_log=lambda: LogClient(log.bootstrap_servers), clock=clock,
            alarm=alarm,
        )  # fmt: skip

    producer = LogProducer(log.bootstrap_servers)
    for device, seq, rows in batches:
        producer.append(LOG_BATCHES, 0, b"pi", readings_message(device, seq, rows=rows), lambda *_: None)
    producer.close(5)

    async def story() -> None:
        source = FaustSource(settings, "readings")
        service = WorkerService(settings, make_landing, source, reports.append)
        source.attach(service)
        tasks = [asyncio.create_task(source.run()), asyncio.create_task(service.run())]
        try:
            await _until(lambda: service._buffer.full, "a full buffer")
            generation = source._app.consumer_generation_id
            held = service._buffer.bytes
            await asyncio.sleep(3 * SESSION_TIMEOUT_S)
            assert service._buffer.bytes == held < (2 << 20) + 50_000
            assert source._app.consumer_generation_id == generation
            lake.stopped = False
            await _until(lambda: lake.row_count("readings") == 200_000, "all rows")
            assert source._app.consumer_generation_id == generation
            assert not any(task.done() for task in tasks)
        finally:
            await service.stop()
            await source.close(5)
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(story())
    assert lake.row_count("readings") == 200_000
    assert {seq for part in lake.tables["readings"] for seq in part["seq"].unique().to_pylist()} == set(range(1, 201))
    assert reports[-1]["alarms"] == []


def test_a_damaged_lake_ends_the_worker(log: EmbeddedLog) -> None:
    """When a partition's state cannot be read the process ends with what a person has to do, it does not hang."""

    class Damaged(MemoryLake):
        def chain(self, job: str, partition: int) -> Link | None:
            raise StopError("state file is missing or damaged; restore it from a copy of the lake")

    settings = WorkerSettings(bootstrap_servers=log.bootstrap_servers, session_timeout_s=SESSION_TIMEOUT_S)

    def make_landing(clock: Clock, alarm: Callable[[str], None]) -> Landing:
        return Landing(
            job=default_job, lake=Damaged(), link=Link, open_log=lambda: LogClient(log.bootstrap_servers),
            clock=clock, alarm=alarm,
        )  # fmt: skip

    async def story() -> None:
        source = FaustSource(settings, "readings")
        service = WorkerService(settings, make_landing, source, lambda _: None)
        source.attach(service)
        with pytest.raises(StopError, match="restore it from a copy"):
            await asyncio.wait_for(source.run(), 15)
        await source.close(3)

    asyncio.run(story())


async def _until(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - conditions of several parts, none of which tells anybody
            await asyncio.sleep(0.02)
    assert condition(), what
