"""Rounds of syncs: what waits is covered by one round, nothing is acknowledged before it, failures stop a partition."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from stream_jobs.log.batches import validate
from stream_jobs.log.codes import Code
from stream_jobs.log.durability import Durability, sync_job
from stream_jobs.log.partition import Partition, SyncJob

from .log_records import make_batch, make_partition

BATCH = make_batch([b"x"])


class HeldSync:
    """A disk whose syncs wait until they are let go, and then succeed or fail."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.error: OSError | None = None
        self.jobs: list[SyncJob] = []

    def __call__(self, job: SyncJob) -> OSError | None:
        self.jobs.append(job)
        self.begun.release()
        assert self.go.acquire(timeout=10)
        return self.error or sync_job(job)


def run(story: Callable[[Durability, HeldSync], Coroutine[Any, Any, None]]) -> None:
    """Run `story` in a loop with a durability whose syncs are held back."""

    async def main() -> None:
        held = HeldSync()
        durability = Durability(asyncio.get_running_loop(), held)
        try:
            await story(durability, held)
        finally:
            for _ in range(20):
                held.go.release()
            durability.stop()

    asyncio.run(main())


def partition_of(directory: Path, durability: Durability) -> Partition:
    """A partition whose appends are synced by `durability`."""
    partition = make_partition(directory)
    partition.mark = durability.mark
    return partition


async def begun(held: HeldSync) -> None:
    """Wait until the sync thread is in a sync."""
    assert await asyncio.to_thread(held.begun.acquire, timeout=10)


def append(partition: Partition, told: list[Code]) -> None:
    """Append one batch with acks=all."""
    partition.when_synced(partition.append(validate(BATCH), BATCH, None).next_offset, told.append)


def test_nothing_is_acknowledged_or_served_while_the_sync_is_held_back(tmp_path: Path) -> None:
    """One round covers what was appended when it began; what comes later waits for the next."""

    async def story(durability: Durability, held: HeldSync) -> None:
        partition = partition_of(tmp_path / "t-0", durability)
        told: list[Code] = []
        for _ in range(3):
            append(partition, told)
        await begun(held)
        append(partition, told)
        assert told == []
        assert partition.read(0, 1000, whole_first=True) == b""
        held.go.release()
        await begun(held)
        assert told == [Code.NONE] * 3
        assert len(partition.read(0, 1000, whole_first=True)) == 3 * len(BATCH)
        held.go.release()
        await durability.drain()
        assert told == [Code.NONE] * 4
        assert durability.counters.rounds == len(held.jobs) == 2

    run(story)


def test_a_failed_sync_is_never_tried_again(tmp_path: Path) -> None:
    """The partition refuses everything; the other one of the round goes on."""

    async def story(durability: Durability, held: HeldSync) -> None:
        bad, good = (partition_of(tmp_path / f"t-{number}", durability) for number in range(2))
        told_bad: list[Code] = []
        told_good: list[Code] = []
        append(bad, told_bad)
        await begun(held)
        held.error = OSError(errno.EIO, "Input/output error")
        held.go.release()
        await durability.drain()
        assert told_bad == [Code.KAFKA_STORAGE_ERROR]
        held.error = None
        append(good, told_good)
        await begun(held)
        held.go.release()
        await durability.drain()
        assert told_good == [Code.NONE]
        assert len(held.jobs) == 2
        assert durability.counters.failures == 1

    run(story)


def test_draining_an_idle_log_returns_at_once() -> None:
    """Without appends there is nothing to wait for."""

    async def story(durability: Durability, held: HeldSync) -> None:
        await durability.drain()
        assert durability.round_s == 0.0
        assert held.jobs == []

    run(story)


def test_a_file_that_cannot_be_synced_is_an_error(tmp_path: Path) -> None:
    """A closed file's EBADF comes back as the job's result, not as an exception in the thread."""
    partition = make_partition(tmp_path / "t-0")
    job = SyncJob(partition, 1, (10_000,), None, ())
    error = sync_job(job)
    assert error is not None
    assert error.errno == errno.EBADF
