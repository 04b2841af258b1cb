"""Taking up a partition: from the lake's chain and the log's own facts to a fold and the offset to read from.

The lake's offset decides, never the group's. It is kept with the topic's id and the checksum of the last record
consumed; where those do not match, the log was rewound or made anew, and everything it has is read again: the fold
removes what landed before. A log whose first record lies beyond the lake's offset has lost records that never landed.

**Delivery**: pure decision (`resume_at`) and reads only; taking up the same partition twice gives the same.
**Bounds**: one record of the log is read for each partition; a state is as large as the fold.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_agent.contract.fold import PartitionFold
from edge_agent.contract.tables import Table
from edge_agent.contract.topics import LOG_BATCHES

__all__ = ["Head", "LogFacts", "LogView", "Partition", "read_facts", "restore", "resume_at"]


class _Consumed(Protocol):
    @property
    def offset(self) -> int: ...

    @property
    def crc32(self) -> int: ...


class LogView(Protocol):
    """What recovery asks the log; see `kafka_client.LogClient`."""

    def topic_id(self, topic: str) -> str: ...

    def offsets(self, topic: str, partition: int) -> tuple[int, int]: ...

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterable[_Consumed]: ...

    def tables(self) -> tuple[Table, Table] | None: ...

    def close(self) -> None: ...


class Head(Protocol):
    """The lake's last transaction of a (job, partition); `state` is empty and `transaction` 0 before the first."""

    @property
    def transaction(self) -> int: ...

    @property
    def offset(self) -> int: ...

    @property
    def topic_id(self) -> str: ...

    @property
    def last_record_crc(self) -> int: ...

    @property
    def state(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class LogFacts:
    """Of one partition: the topic's id, its first offset, the offset after its last record, and the checksum of the
    record before the lake's offset (None: the log does not have it)."""

    topic_id: str
    start: int
    end: int
    last_crc: int | None


@dataclass(slots=True)
class Partition:
    """A partition this worker has: the fold, and what the next transaction must name."""

    number: int
    fold: PartitionFold
    origin: int
    topic_id: str
    last_crc: int

    @property
    def offset(self) -> int:
        """The offset to read next."""
        return self.fold.next_offset


def read_facts(log: LogView, partition: int, head: Head | None) -> LogFacts:
    """Ask the log. Raises what the log client raises (RetryError)."""
    topic_id = log.topic_id(LOG_BATCHES)
    start, end = log.offsets(LOG_BATCHES, partition)
    last_crc = None
    if head is not None and start < head.offset <= end:
        for record in log.read(LOG_BATCHES, partition, head.offset - 1, head.offset):
            last_crc = record.crc32
    return LogFacts(topic_id, start, end, last_crc)


def resume_at(partition: int, head: Head | None, facts: LogFacts) -> tuple[int, str]:
    """(offset to read from, what is wrong or empty)."""
    name = f"log {LOG_BATCHES}/{partition}"
    if head is None:
        if facts.start:
            return facts.start, f"{name} begins at {facts.start}: what was before is deleted and was never landed here"
        return 0, ""
    if facts.topic_id != head.topic_id:
        return facts.start, (
            f"{name} was made anew (topic {facts.topic_id}, the lake knows {head.topic_id}): read again from "
            f"{facts.start}"
        )
    if head.offset > facts.end:
        return facts.start, (
            f"{name} ends at {facts.end}, the lake is at {head.offset}: the log was rewound and may have lost "
            f"records; read again from {facts.start}"
        )
    if head.offset < facts.start:
        return facts.start, (
            f"{name} begins at {facts.start}, the lake is at {head.offset}: {facts.start - head.offset} records were "
            "deleted before they landed"
        )
    if facts.last_crc is not None and facts.last_crc != head.last_record_crc:
        return facts.start, (
            f"{name} has another record at {head.offset - 1} than the lake consumed there: the log was rewound; read "
            f"again from {facts.start}"
        )
    return head.offset, ""


def restore(partition: int, head: Head | None, facts: LogFacts, first_table: Sequence[int]) -> tuple[Partition, str]:
    """The partition at the offset to read from, and what is wrong with the log (or empty).

    Raises DecodeError for a damaged state: a person has to act, nothing may be guessed here.
    """
    known = head if head is not None and head.state else None
    fold = PartitionFold(partition, first_table) if known is None else PartitionFold.from_bytes(known.state)
    offset, problem = resume_at(partition, known, facts)
    fold.next_offset = offset
    origin = 0 if head is None else head.transaction
    return Partition(partition, fold, origin, facts.topic_id, 0 if known is None else known.last_record_crc), problem
