"""Appends of the mapping: numbers, order, failures, a log that was made anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import RetryError, StopError
from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.ring import shard_of
from edge_agent.contract.tables import Table, first_table
from edge_agent.contract.wire import Kind, decode_header
from stream_jobs.bridge.restore import header_of
from stream_jobs.kafka_client import Done
from stream_jobs.mapping.acknowledgements import Taken
from stream_jobs.mapping.collector import Batch, Collector, Numbers
from stream_jobs.mapping.declared import read_mappings
from stream_jobs.mapping.decode import Item
from stream_jobs.mapping.log_side import Entry, Letter, LogSide
from stream_jobs.mapping.settings import MappingSettings

MAPPING = read_mappings(Path("m.toml"), '[[mappings]]\nname = "m"\npreset = "number"')[0]


class FakeLog:
    """A log of 2 partitions in memory, client and producer at once; answers are given by hand."""

    def __init__(self) -> None:
        self.records: list[tuple[int, bytes]] = []
        self.waiting: list[tuple[int, bytes, Done]] = []
        self.topic = "one"
        self.down = False

    def connect(self, _settings: object) -> FakeLog:
        """Client or producer."""
        if self.down:
            raise RetryError("the log is down")
        return self

    def ensure_topics(self, partitions: int) -> None:
        """They are there."""

    def ensure_tables(self, partitions: int, producer: object) -> tuple[Table, Table]:
        """Table 1."""
        return first_table(partitions), first_table(partitions)

    def topic_id(self, topic: str) -> str:
        """As set by the test."""
        return self.topic

    def offsets(self, topic: str, partition: int) -> tuple[int, int]:
        """From 0 to the end."""
        return 0, sum(1 for found, _ in self.records if found == partition)

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes, done: Done) -> None:
        """Waits for `answer` or `fail`."""
        self.waiting.append((partition, bytes(value), done))

    def append_now(self, topic: str, partition: int, key: bytes | None, value: bytes) -> int:
        """Not needed: there is a table."""
        raise AssertionError

    def answer(self, count: int = 1000, at: int = 0) -> None:
        """The next appends succeed."""
        for _ in range(min(count, len(self.waiting) - at)):
            partition, value, done = self.waiting.pop(at)
            self.records.append((partition, value))
            done(self.offsets("", partition)[1] - 1, 1, None)

    def fail(self, error: Exception, *, stored: bool = False) -> None:
        """The next append fails, though it may be in the log."""
        partition, value, done = self.waiting.pop(0)
        if stored:
            self.records.append((partition, value))
        done(-1, -1, error)

    def close(self, timeout_s: float = 0.0) -> None:
        """Appends under way fail, as kafka-python's do."""
        waiting, self.waiting = self.waiting, []
        for _, _, done in waiting:
            done(-1, -1, RetryError("closed"))

    def folded(self) -> list[tuple[str, int]]:
        """(device, seq) that the fold accepts, over both partitions."""
        found = []
        for partition in range(2):
            fold = PartitionFold(partition, first_table(2).partitions)
            values = [value for at, value in self.records if at == partition]
            for offset, value in enumerate(values):
                header, _ = header_of(value)
                if fold.apply(offset, 1, header).outcome is Outcome.ACCEPTED and header is not None:
                    found.append((header.device, header.seq_first))
        return sorted(found)


class World:
    """A log side over the fake log."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.clock = ManualClock()
        self.done: list[Entry] = []
        self.alarms: list[str] = []
        self.numbers = Numbers(2, iter(range(1, 1000)).__next__)
        settings = MappingSettings(partitions=2)
        self.side = LogSide(
            settings, self.numbers, self.clock, self.done.append, self.alarms.append,
            connect=self.log.connect, connect_producer=self.log.connect,
        )  # fmt: skip
        self.turn()

    def turn(self) -> None:
        """As the service's loop."""
        self.clock.advance(10)
        self.side.tick(self.clock.monotonic_s())
        self.side.send()
        self.side.settle()

    def put(self, device: str) -> None:
        """One batch of one row."""
        collector = Collector(5000)
        collector.add(MAPPING, Item(device, 1, False, {"x": 1.0}, (), 10), Taken(1, 0))
        for batch in collector.take(everything=True):
            self.side.put(batch)


@pytest.fixture
def world() -> Iterator[World]:
    """Connected."""
    made = World()
    yield made
    made.side.close()


def test_batches_are_numbered_for_each_device_and_done_when_the_log_has_them(world: World) -> None:
    """1, 2, 3 ... over each device, and the fold accepts all."""
    for device in ("a", "b", "a"):
        world.put(device)
    world.turn()
    assert world.done == []
    world.log.answer()
    world.turn()
    assert world.log.folded() == [("a", 1), ("a", 2), ("b", 1)]
    assert (len(world.done), world.side.bytes, world.side.entries) == (3, 0, 0)


@pytest.mark.parametrize("stored", [False, True])
def test_after_a_failed_append_everything_not_done_is_appended_again_in_order(world: World, stored: bool) -> None:
    """Also what the log took behind the failed one, which the fold passed over; nothing lands twice."""
    for _ in range(3):
        world.put("a")
    world.turn()
    world.log.answer(1, at=1)
    world.log.fail(RetryError("no answer"), stored=stored)
    world.turn()
    assert world.done == []
    world.turn()
    world.log.answer()
    world.turn()
    assert world.log.folded() == [("a", 1), ("a", 2), ("a", 3)]
    assert [entry.seq for entry in world.done if isinstance(entry, Batch)] == [1, 2, 3]


def test_while_the_log_is_down_entries_wait(world: World) -> None:
    """They are counted, and go out when it is back."""
    world.put("a")
    world.turn()
    world.log.down = True
    world.log.fail(RetryError("gone"))
    world.turn()
    world.put("a")
    world.turn()
    assert world.side.entries == 2
    assert world.side.bytes > 0
    world.log.down = False
    world.turn()
    world.log.answer()
    world.turn()
    assert world.log.folded() == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("how", ["made anew", "shorter"])
def test_a_log_that_forgot_records_gets_new_epochs(world: World, how: str) -> None:
    """Otherwise the fold would wait for ever for seqs that were acknowledged by the old log; an alarm says it."""
    world.put("a")
    world.turn()
    world.log.answer()
    world.turn()
    world.put("a")
    world.turn()
    world.log.fail(RetryError("gone"))
    world.log.records.clear()
    if how == "made anew":
        world.log.topic = "two"
    world.turn()
    world.turn()
    world.log.answer()
    world.turn()
    assert world.log.folded() == [("a", 1)]
    assert len(world.alarms) == 1


def test_an_error_that_needs_a_person_ends_the_process(world: World) -> None:
    """It is raised where the loop runs."""
    world.put("a")
    world.turn()
    world.log.fail(StopError("not allowed"))
    with pytest.raises(StopError, match="not allowed"):
        world.turn()


def test_silent_devices_are_closed_when_there_are_too_many(world: World) -> None:
    """The longest silent first, never one with something under way; one that comes back gets a new epoch."""
    for device in ("a", "b", "c"):
        world.put(device)
    world.turn()
    assert world.numbers.closed() == []
    world.log.answer()
    world.turn()
    ((device, value),) = world.numbers.closed()
    header, _ = decode_header(value)
    assert (device, header.kind, header.seq_last) == ("a", Kind.CLOSE, 1)
    world.side.put(Letter(device, "", value, None))
    world.put("a")
    world.turn()
    world.log.answer()
    world.turn()
    assert world.log.folded() == [("a", 1), ("a", 1), ("b", 1), ("c", 1)]
    assert [name for name, _ in world.numbers.closed(everything=True)] == ["b", "c", "a"]
    assert len(world.numbers) == 0


def test_a_dead_letter_goes_to_a_partition_by_its_topic_and_folds_to_nothing(world: World) -> None:
    """It has no header; the worker makes it a row of `dead_letters`."""
    world.side.put(Letter("", "zigbee2mqtt/x", b"\x96 letter", None))
    world.turn()
    world.log.answer()
    world.turn()
    assert len(world.done) == 1
    assert world.log.folded() == []


def test_a_batch_goes_to_the_partition_of_its_device(world: World) -> None:
    """The shard table says which."""
    world.put("kitchen")
    world.turn()
    assert world.log.waiting[0][0] == first_table(2).partitions[shard_of("kitchen")]
