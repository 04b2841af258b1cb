"""Taking up a partition from the lake's chain and the log's facts."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edge_agent.contract.errors import DecodeError
from edge_agent.contract.fold import PartitionFold
from edge_agent.contract.wire import decode_header
from stream_jobs.worker.recovery import LogFacts, read_facts, restore, resume_at
from tests.kit.worker_world import ALL_MINE, MemoryLog, epoch, readings_message


@dataclass(frozen=True)
class Head:
    """What the lake answers."""

    transaction: int = 7
    offset: int = 100
    topic_id: str = "t"
    last_record_crc: int | None = 5
    state: bytes = b"state"


@pytest.mark.parametrize(
    ("head", "facts", "offset", "problem"),
    [
        (None, LogFacts("t", 0, 0, None), 0, ""),
        (None, LogFacts("t", 0, 50, None), 0, ""),
        (None, LogFacts("t", 30, 50, None), 30, "begins at 30"),
        (Head(), LogFacts("t", 0, 200, 5), 100, ""),
        (Head(), LogFacts("t", 0, 100, 5), 100, ""),
        (Head(), LogFacts("t", 100, 100, None), 100, ""),
        (Head(), LogFacts("u", 0, 200, 5), 0, "made anew"),
        (Head(), LogFacts("t", 0, 99, None), 0, "rewound"),
        (Head(), LogFacts("t", 10, 200, 6), 10, "another record at 99"),
        (Head(), LogFacts("t", 120, 200, None), 120, "20 records were deleted before they landed"),
    ],
)
def test_where_to_read_on(head: Head | None, facts: LogFacts, offset: int, problem: str) -> None:
    """The lake's offset counts where the log has what was consumed there; else everything is read again, loudly."""
    found, text = resume_at(0, head, facts)
    assert found == offset
    assert problem in text
    assert bool(text) == bool(problem)


def test_facts_of_a_log() -> None:
    """Topic id, first and last offset, and the checksum of the record before the lake's offset, if still there."""
    log = MemoryLog()
    log.append(0, b"a", b"b", b"c")
    second = log.records[0][1]
    assert read_facts(log, 0, Head(offset=2)) == LogFacts(log.id, 0, 3, second.crc32)
    assert read_facts(log, 0, None).last_crc is None
    log.delete_before(0, 2)
    assert read_facts(log, 0, Head(offset=2)) == LogFacts(log.id, 2, 3, None)
    assert read_facts(log, 0, Head(offset=9)) == LogFacts(log.id, 2, 3, None)


def test_a_fold_is_restored_and_reads_again_after_a_rewind() -> None:
    """The state has its watermarks; after a rewound log it starts over at the log's start, and doubles stay doubles."""
    fold = PartitionFold(0, ALL_MINE)
    header, _ = decode_header(readings_message("pi", 1))
    fold.apply(99, 0, header)
    head = Head(state=fold.to_bytes())
    partition, problem = restore(0, head, LogFacts("t", 0, 200, 5), ALL_MINE)
    assert (partition.offset, partition.origin, problem) == (100, 7, "")
    assert partition.fold.to_bytes() == fold.to_bytes()
    partition, problem = restore(0, head, LogFacts("t", 0, 60, None), ALL_MINE)
    assert (partition.offset, partition.origin) == (0, 7)
    assert "rewound" in problem
    assert partition.fold.apply(0, 0, header).outcome.value == "duplicate"
    assert partition.fold.watermark("pi", epoch()) == 1


def test_a_new_partition_starts_with_table_1() -> None:
    """Without a chain the fold owns the shards that table 1 gives the partition."""
    partition, problem = restore(3, Head(0, 0, "", None, b""), LogFacts("t", 0, 0, None), tuple(3 for _ in range(256)))
    assert (partition.offset, partition.origin, problem) == (0, 0, "")
    assert partition.fold.owns("pi")


def test_a_damaged_state_is_an_error() -> None:
    """Nothing is guessed from a state that does not check."""
    with pytest.raises(DecodeError, match="damaged"):
        restore(0, Head(), LogFacts("t", 0, 200, 5), ALL_MINE)
