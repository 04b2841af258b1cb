"""The buffer between log and steps."""

from __future__ import annotations

from edge_agent.contract import limits
from stream_jobs.worker.batching import Buffer, Offer, Record, memory_bytes
from tests.kit.worker_world import readings_message


def record(offset: int, partition: int = 0, value: bytes = b"x" * 100) -> Record:
    """A record whose content does not matter."""
    return Record(partition, offset, 0, value)


def test_only_the_offset_expected_is_taken() -> None:
    """Lower offsets are old, higher ones are ahead, other partitions are foreign; none of them changes anything."""
    buffer = Buffer(10_000)
    buffer.expect({0: 5})
    assert [buffer.offer(record(offset)) for offset in (4, 6, 5, 5, 6)] == [
        Offer.OLD, Offer.AHEAD, Offer.TAKEN, Offer.OLD, Offer.TAKEN,
    ]  # fmt: skip
    assert buffer.offer(record(0, partition=1)) is Offer.FOREIGN
    assert buffer.expected(0) == 7
    assert [r.offset for r in buffer.take(10_000)[0]] == [5, 6]


def test_a_step_takes_at_most_its_bytes_in_order() -> None:
    """What exceeds the step's bytes stays for the next one, in order; both count as held until the step is done."""
    buffer = Buffer(10_000)
    buffer.expect({0: 0, 1: 0})
    for offset in range(3):
        for partition in (0, 1):
            buffer.offer(record(offset, partition))
    size = memory_bytes(b"x" * 100)
    assert buffer.bytes == buffer.waiting_bytes == 6 * size
    first = buffer.take(4 * size)
    assert [(r.partition, r.offset) for part in first.values() for r in part] == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert (buffer.bytes, buffer.waiting_bytes) == (6 * size, 2 * size)
    buffer.done()
    assert buffer.bytes == 2 * size
    assert [r.offset for r in buffer.take(10_000)[1]] == [1, 2]


def test_full_counts_what_messages_become() -> None:
    """A message counts with its size decompressed, bounded by the limit whatever its header claims."""
    message = readings_message("pi", 1, rows=1000)
    assert memory_bytes(message) > len(message) + 10_000
    assert memory_bytes(b"\xedG" + b"\xff" * 100) < limits.BODY_RAW_BYTES_MAX + 1000
    assert memory_bytes(b"\xff" * 100) < 1000
    buffer = Buffer(memory_bytes(message) + 1)
    buffer.expect({0: 0})
    buffer.offer(Record(0, 0, 0, message))
    assert not buffer.full
    buffer.offer(Record(0, 1, 0, message))
    assert buffer.full


def test_expecting_anew_drops_everything() -> None:
    """A new assignment starts empty, also for a partition that stays."""
    buffer = Buffer(10_000)
    buffer.expect({0: 0})
    buffer.offer(record(0))
    buffer.expect({0: 0})
    assert buffer.bytes == 0
    assert buffer.take(10_000) == {}
    assert buffer.offer(record(0)) is Offer.TAKEN
