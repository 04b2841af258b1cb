"""The worker's service on a log and a lake in memory: pace, bounds, assignments, fencing, lakes that cannot."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from edge_agent.contract.errors import FencedError, RetryError, StopError
from stream_jobs.default_job import job as default_job
from stream_jobs.worker.batching import Record
from stream_jobs.worker.landing import Landing
from stream_jobs.worker.service import WorkerService
from stream_jobs.worker.settings import WorkerSettings
from tests.kit.worker_world import Link, MemoryLake, MemoryLog, expected_rows, readings_message

MIB = 1 << 20


class World:
    """A worker, its log and lake, and a source that delivers what the worker seeks to."""

    def __init__(self, partitions: int = 1, lake: MemoryLake | None = None, **settings: Any) -> None:
        self.log = MemoryLog(partitions)
        self.lake = lake or MemoryLake()
        self.sought: list[dict[int, int]] = []
        self.reports: list[Mapping[str, Any]] = []
        self.settings = WorkerSettings(**{"commit_interval_s": 0.01, "stop_timeout_s": 2.0, **settings})
        self.positions: dict[int, int] = {}
        self.ends: dict[int, int] = {}
        self.service = self.worker()

    def worker(self) -> WorkerService:
        """A further worker process on the same log and lake."""

        def make_landing(clock: Any, alarm: Callable[[str], None]) -> Landing:
            return Landing(
                job=default_job, lake=self.lake, link=Link, open_log=lambda: self.log, clock=clock, alarm=alarm
            )

        return WorkerService(self.settings, make_landing, self, self.reports.append)

    async def seek(self, positions: Mapping[int, int]) -> None:
        """What the worker asks for."""
        self.sought.append(dict(positions))
        self.positions.update(positions)

    def end_offset(self, partition: int) -> int | None:
        """As the log has it, or as a test says."""
        return self.ends.get(partition, self.log.offsets("", partition)[1])

    async def deliver(self, service: WorkerService | None = None) -> None:
        """Hand over everything from the positions on, as a source does."""
        for partition in sorted(self.positions):
            for record in list(self.log.read("", partition, self.positions[partition], 1 << 60)):
                await (service or self.service).offer(
                    Record(partition, record.offset, record.append_time_ms, record.value)
                )
                self.positions[partition] = record.offset + 1

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Let the loop run until `condition`."""
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError(f"waited for {what}")

    def batches(self, count: int, rows: int = 3) -> list[tuple[str, int, int]]:
        """Append that many batches of two devices; (device, seq, rows) of each."""
        made = [(f"dev-{n % 2}", n // 2 + 1, rows) for n in range(count)]
        for device, seq, n in made:
            self.log.append(0, readings_message(device, seq, rows=n))
        return made

    def landed(self, expected: list[tuple[str, int, int]]) -> bool:
        """Whether the lake has at least as many rows as expected."""
        return self.lake.row_count("readings") >= sum(rows for _, _, rows in expected)


def run(world: World, story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the worker beside the story, then stop it."""

    async def both() -> None:
        task = asyncio.create_task(world.service.run())
        try:
            await asyncio.wait_for(story(), 20)
        finally:
            await world.service.stop()
            await asyncio.wait_for(task, 5)

    asyncio.run(both())


def test_what_is_offered_lands() -> None:
    """Assigned partitions are read from the lake's offset, land, and the status tells about it."""
    world = World()
    made = world.batches(10)

    async def story() -> None:
        assert await world.service.assigned([0]) == {0: 0}
        world.positions = {0: 0}
        await world.deliver()
        await world.until(lambda: world.landed(made), "the rows")
        await world.until(lambda: world.service.positions([0]) == {0: 10}, "the position")

    run(world, story)
    assert world.lake.identities() == expected_rows(made)
    assert world.lake.closed == 1
    last = world.reports[-1]
    assert last["state"] == "stopped"
    assert last["rows_landed"] == 30
    assert last["partitions"] == {"0": {"offset": 10, "end": 10, "lag": 0}}
    assert last["dead_letters"] == 0
    assert last["freshness"]["p50_s"] is not None


def test_nothing_is_reported_before_the_first_assignment() -> None:
    """A worker is ready when it knows its partitions, also when it has none."""
    world = World()

    async def story() -> None:
        await asyncio.sleep(0.02)
        world.service.write_status()
        assert world.reports == []
        await world.service.assigned([])
        assert world.reports[-1]["partitions"] == {}

    run(world, story)


def test_records_repeated_and_left_out() -> None:
    """Repeated records are dropped; after a record left out the worker seeks back once, and everything lands once."""
    world = World()
    made = world.batches(6)

    async def story() -> None:
        world.positions = await world.service.assigned([0])
        records = [Record(0, r.offset, r.append_time_ms, r.value) for r in world.log.records[0]]
        for offset in (0, 1, 0, 1, 4, 5):
            await world.service.offer(records[offset])
        assert world.sought == [{0: 2}]
        await world.deliver()
        await world.until(lambda: world.landed(made), "the rows")

    run(world, story)
    assert world.lake.identities() == expected_rows(made)


def test_a_full_buffer_holds_the_source_back() -> None:
    """While the lake cannot, the buffer fills up to its bound and `offer` waits; then everything lands."""
    world = World(buffer_bytes_max=2 * MIB, step_bytes_max=MIB)
    made = world.batches(150, rows=1000)
    world.lake.prepare_errors = [RetryError("disk full")] * 3

    async def story() -> None:
        world.positions = await world.service.assigned([0])
        delivery = asyncio.create_task(world.deliver())
        await world.until(lambda: bool(world.service.landing.waiting_for), "a lake that cannot")
        await asyncio.sleep(0.05)
        held = world.service._buffer.bytes
        assert 2 * MIB <= held < 2 * MIB + 100_000
        assert not delivery.done()
        world.service.write_status()
        assert (world.reports[-1]["state"], world.reports[-1]["waiting_for"]) == ("waiting", "disk full")
        await asyncio.wait_for(delivery, 10)
        await world.until(lambda: world.landed(made), "the rows")

    run(world, story)
    assert world.lake.row_count("readings") == 150_000
    assert world.reports[-1]["waiting_for"] == ""


def test_a_fenced_worker_takes_up_again() -> None:
    """When another one moved the chain, the worker drops its state, reads the chain and seeks; nothing lands twice."""
    world = World()
    made = world.batches(8)

    async def story() -> None:
        other = world.worker()
        world.positions = await world.service.assigned([0])
        stale = dict(world.positions)
        await other.assigned([0])
        other_run = asyncio.create_task(other.run())
        world.positions = {0: 0}
        await world.deliver(other)
        await world.until(lambda: world.landed(made), "the other's rows")
        await other.stop()
        await other_run
        more = readings_message("dev-0", 5)
        world.log.append(0, more)
        world.positions = stale
        await world.deliver()
        await world.until(lambda: world.sought == [{0: 8}], "the seek to the chain's offset")
        await world.deliver()
        await world.until(lambda: world.landed([*made, ("dev-0", 5, 3)]), "the last batch")

    run(world, story)
    assert world.lake.identities() == expected_rows([*made, ("dev-0", 5, 3)])
    assert world.reports[-1]["fenced"] == 1


def test_a_revoked_partition_gives_up_waiting() -> None:
    """A step that waits for the lake ends when its partitions are taken away; the next owner lands its records."""
    world = World()
    made = world.batches(4)
    world.lake.decide_errors = [RetryError("no answer")] * 3

    async def story() -> None:
        world.positions = await world.service.assigned([0])
        await world.deliver()
        await world.until(lambda: bool(world.service.landing.waiting_for), "a lake that cannot")
        world.service.revoked()
        world.positions = await world.service.assigned([0])
        assert world.positions == {0: 0}
        await world.deliver()
        await world.until(lambda: world.landed(made), "the rows")

    run(world, story)
    assert world.lake.identities() == expected_rows(made)


def test_applying_that_fails_is_repeated() -> None:
    """A decided transaction becomes visible when the lake can again, though nothing new comes."""
    world = World()
    made = world.batches(2)

    async def story() -> None:
        world.positions = await world.service.assigned([0])
        await world.until(lambda: world.service.landing._applying is not None, "the first applying")
        world.lake.apply_errors = [RetryError("lease"), FencedError("lease")]
        await world.deliver()
        await world.until(lambda: world.landed(made), "the decision")
        await world.until(lambda: world.lake.applied == 1, "the applying")

    run(world, story)
    assert world.reports[-1]["waiting_for"] == ""


def test_an_assignment_waits_for_the_log_and_then_gives_up() -> None:
    """A log that does not answer is asked again; after lake_timeout_s the worker ends, saying what to look at."""
    world = World(lake_timeout_s=1.0)
    world.log.failures = 2

    async def story() -> None:
        assert await world.service.assigned([0]) == {0: 0}
        world.log.failures = 1000
        with pytest.raises(StopError, match="could not be taken up within 1 s"):
            await world.service.assigned([0])

    run(world, story)


def test_a_newer_assignment_wins() -> None:
    """An assignment that waits is given up by the next one."""
    world = World(2)
    world.log.failures = 3

    async def story() -> None:
        first = asyncio.create_task(world.service.assigned([0]))
        await asyncio.sleep(0.02)
        assert await world.service.assigned([1]) == {1: 0}
        assert await first == {}

    run(world, story)


def test_a_rewound_log_is_read_again_and_reported() -> None:
    """A log that ends before the lake's offset raises an alarm; what it has is read again and lands once."""
    world = World()
    made = world.batches(6)

    async def story() -> None:
        world.positions = await world.service.assigned([0])
        await world.deliver()
        await world.until(lambda: world.landed(made), "the rows")
        await world.until(lambda: world.service.positions([0]) == {0: 6}, "the position")
        del world.log.records[0][3:]
        await world.until(lambda: world.sought == [{0: 0}], "the seek to the log's start")
        world.log.append(0, *(readings_message(device, seq) for device, seq, _ in made[3:]))
        world.log.append(0, readings_message("dev-0", 4))
        await world.deliver()
        await world.until(lambda: world.landed([*made, ("dev-0", 4, 3)]), "the new batch")

    run(world, story)
    assert world.lake.identities() == expected_rows([*made, ("dev-0", 4, 3)])
    assert "rewound" in world.reports[-1]["alarms"][0]


def test_a_log_made_anew_is_read_from_its_start() -> None:
    """Another topic id at an assignment: alarm, read from the start, doubles removed by the fold."""
    world = World()
    made = world.batches(4)

    async def story() -> None:
        world.positions = await world.service.assigned([0])
        await world.deliver()
        await world.until(lambda: world.service.positions([0]) == {0: 4}, "the position")
        world.log.id = "another"
        assert await world.service.assigned([0]) == {0: 0}
        world.positions = {0: 0}
        await world.deliver()
        await world.until(lambda: world.service.positions([0]) == {0: 4}, "the position again")

    run(world, story)
    assert world.lake.identities() == expected_rows(made)
    assert world.reports[-1]["alarm_count"] == 1
    assert world.reports[-1]["outcomes"] == {"accepted": 4, "duplicate": 4}


@pytest.mark.parametrize("seed", range(8))
def test_workers_killed_and_lakes_failing_at_random(seed: int) -> None:
    """Workers that vanish at any moment, overlapping owners and failing lake calls: each row lands exactly once."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    lake = MemoryLake()
    made: list[tuple[str, int, int]] = []

    async def life(world: World, last: bool) -> None:
        services = [world.service] if last else [world.service, world.worker()]
        tasks = [asyncio.create_task(service.run()) for service in services]
        for service in services:
            await service.assigned([0])
        for service in services if rng.random() < 0.5 or last else services[:1]:
            world.positions = service.positions([0])
            await world.deliver(service)  # a worker that is fenced meanwhile seeks, for a later delivery
        if last:
            while not world.landed(made):
                await world.deliver()
                await asyncio.sleep(0.01)
        else:
            await asyncio.sleep(rng.choice([0, 0.002, 0.02]))
        for service, task in zip(services, tasks, strict=True):
            if last or rng.random() < 0.3:
                await service.stop()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            service.revoked()

    log = MemoryLog()
    for turn in range(8):
        world = World(lake=lake)
        world.log = log
        for _ in range(rng.randrange(1, 12)):
            seq = sum(1 for entry in made if entry[0] == "pi") + 1
            message = readings_message("pi", seq, rows=2)
            made.append(("pi", seq, 2))
            log.append(0, *[message] * rng.choice([1, 1, 2]))
        lake.prepare_errors = [RetryError("full")] * rng.choice([0, 0, 1])
        lake.decide_errors = [FencedError("moved")] * rng.choice([0, 0, 1])
        asyncio.run(asyncio.wait_for(life(world, turn == 7), 20))
    assert lake.identities() == expected_rows(made)
