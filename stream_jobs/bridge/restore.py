"""How a bridge takes up a partition: the checkpoint that counts, then the records after it.

Two surprises are reported loudly and mended: the topic was made anew (its id differs), or the log ends before a
checkpoint (it was rewound). Then what there is gets folded from a fitting checkpoint or from the log's start, and
the checkpoints of the other history must be replaced before anything is appended (`Restored.replace`), or a later
restart would take up the wrong one. Devices whose batches are gone say so in their hello, and `lost` records follow.

**Delivery**: reads only. **Bounds**: one record at a time in memory; CHECKPOINTS_MAX checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from edge_agent.contract.errors import DecodeError, RetryError, StopError
from edge_agent.contract.fold import PartitionFold
from edge_agent.contract.tables import Table
from edge_agent.contract.topics import LOG_BATCHES, LOG_CHECKPOINTS
from edge_agent.contract.wire import Header, decode_header
from stream_jobs.kafka_client import LogRecord

from .checkpoints import Kept, decode_checkpoint, highest

__all__ = ["LogReader", "Restored", "header_of", "read_checkpoints", "restore"]

CHECKPOINTS_MAX = 10_000


class LogReader(Protocol):
    """What restoring needs of `kafka_client.LogClient`."""

    def topic_id(self, topic: str) -> str: ...

    def offsets(self, topic: str, partition: int) -> tuple[int, int]: ...

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]: ...


@dataclass(frozen=True, slots=True)
class Restored:
    """The fold up to the end of the log. `replace`: write a checkpoint now and delete all the others."""

    fold: PartitionFold
    topic_id: str
    records_read: int
    alarms: tuple[str, ...]
    replace: bool


def header_of(value: bytes) -> tuple[Header | None, bytes | memoryview]:
    """Header and body of a record's value, or (None, no bytes) where there is no header."""
    try:
        return decode_header(value)
    except DecodeError:
        return None, b""


def read_checkpoints(log: LogReader, partition: int) -> tuple[list[Kept], list[str]]:
    """All checkpoints of a partition, and an alarm for each record that is none."""
    start, end = log.offsets(LOG_CHECKPOINTS, partition)
    kept: list[Kept] = []
    alarms: list[str] = []
    for record in log.read(LOG_CHECKPOINTS, partition, start, end):
        try:
            kept.append(Kept(record.offset, decode_checkpoint(record.value)))
        except DecodeError as error:
            alarms.append(f"{LOG_CHECKPOINTS}/{partition} record {record.offset}: {error}")
        if len(kept) > CHECKPOINTS_MAX:
            raise StopError(f"{LOG_CHECKPOINTS}/{partition} has more than {CHECKPOINTS_MAX} records; delete older ones")
    return kept, alarms


def restore(log: LogReader, partition: int, table: Table) -> Restored:
    """The fold of `partition` up to the end of the log as it is now. `table` is table 1.

    StopError where records that no checkpoint covers are deleted; RetryError and LogChangedError as the log's.
    """
    topic_id = log.topic_id(LOG_BATCHES)
    kept, alarms = read_checkpoints(log, partition)
    start, end = log.offsets(LOG_BATCHES, partition)
    found = highest(kept, topic_id, end)
    others = [k.checkpoint for k in kept if k.checkpoint.topic_id != topic_id]
    beyond = [k.checkpoint.offset for k in kept if k.checkpoint.topic_id == topic_id and k.checkpoint.offset > end]
    if others:
        alarms.append(
            f"{LOG_BATCHES} was made anew: checkpoints of partition {partition} are of topic {others[-1].topic_id}, "
            f"it is {topic_id} now; folding what it has"
        )
    if beyond:
        alarms.append(
            f"{LOG_BATCHES}/{partition} was rewound: it ends at {end}, a checkpoint has {max(beyond)}; "
            "folding what it has"
        )
    fold = _start(found, partition, table, start)
    first = fold.next_offset
    for record in log.read(LOG_BATCHES, partition, first, end):
        header, body = header_of(record.value)
        fold.apply(record.offset, record.append_time_ms, header, bytes(body) if header and not header.device else b"")
    if fold.next_offset < end:
        raise RetryError(f"{LOG_BATCHES}/{partition} ended at {fold.next_offset} while it was read up to {end}")
    return Restored(fold, topic_id, end - first, tuple(alarms), bool(others or beyond))


def _start(found: Kept | None, partition: int, table: Table, log_start: int) -> PartitionFold:
    fold = PartitionFold(partition, table.partitions)
    if found is not None:
        fold = PartitionFold.from_bytes(found.checkpoint.state)
        if fold.partition != partition or fold.next_offset != found.checkpoint.offset:
            raise StopError(f"checkpoint at {LOG_CHECKPOINTS}/{partition} record {found.position} is of another place")
    if fold.next_offset < log_start:
        raise StopError(
            f"{LOG_BATCHES}/{partition}: records {fold.next_offset} to {log_start - 1} are deleted and no "
            f"checkpoint in {LOG_CHECKPOINTS} covers them; restore that topic from a copy"
        )
    return fold
