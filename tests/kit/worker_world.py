"""A log and a lake in memory for tests of the worker: messages of known rows, records, chains, failures on demand.

**Delivery**: the lake decides as the real one does: a link that does not name its chain's last transaction voids.
**Bounds**: everything is kept until the test ends.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edge_agent.contract import limits, wire
from edge_agent.contract.columns import dictionary, floats, timestamps
from edge_agent.contract.errors import FencedError, RetryError
from edge_agent.contract.names import new_epoch
from edge_agent.contract.tables import Table, first_table
from stream_jobs.worker.batching import Record

__all__ = [
    "ALL_MINE",
    "NAMES",
    "NOW_US",
    "Link",
    "LogRecord",
    "MemoryLake",
    "MemoryLog",
    "epoch",
    "expected_rows",
    "readings_body",
    "readings_message",
    "records_of",
    "value_of",
]

NOW_US = 1_790_000_000_000_000
NAMES = ("cpu", "memory", "disk")


def epoch(number: int = 0) -> int:
    """An epoch made at NOW_US."""
    return new_epoch(NOW_US, number, 0)


def value_of(device: str, seq: int, row: int) -> float:
    """The value of a known row."""
    return (zlib.crc32(f"{device}/{seq}/{row}".encode()) % 10_000) / 100


def readings_body(device: str, seq: int, rows: int, names: tuple[str, ...] = NAMES) -> bytes:
    """The body of a batch of `readings`."""
    return wire.encode_columns(
        [
            timestamps("ts", array("q", [NOW_US + seq * 1_000_000 + row for row in range(rows)])),
            dictionary("name", array("B", [row % len(names) for row in range(rows)]), names),
            floats("value", array("d", [value_of(device, seq, row) for row in range(rows)])),
        ]
    )


def readings_message(device: str, seq: int, *, rows: int = 3, epoch_id: int | None = None, **fields: Any) -> bytes:
    """One batch of `readings` as a device sends it."""
    return wire.encode_batch(
        readings_body(device, seq, rows),
        device=device,
        epoch=epoch() if epoch_id is None else epoch_id,
        seq=seq,
        rows=rows,
        **{"stream": "readings", **fields},
    )


def records_of(partition: int, messages: Sequence[bytes], first_offset: int = 0) -> list[Record]:
    """Messages as the log's records, a second apart."""
    return [
        Record(partition, first_offset + index, NOW_US // 1000 + index * 1000, message)
        for index, message in enumerate(messages)
    ]


class LogRecord(NamedTuple):
    """One record of `MemoryLog`."""

    offset: int
    append_time_ms: int
    value: bytes

    @property
    def crc32(self) -> int:
        """Of the value, as the worker keeps it."""
        return zlib.crc32(self.value)


class MemoryLog:
    """The log's answers to the worker, for topic `edgewater.batches`."""

    def __init__(self, partitions: int = 1) -> None:
        self.id = "0123456789abcdef"
        self.table: Table | None = first_table(partitions)
        self.records: dict[int, list[LogRecord]] = {number: [] for number in range(partitions)}
        self.starts = dict.fromkeys(range(partitions), 0)
        self.failures = 0

    def append(self, partition: int, *messages: bytes) -> None:
        """At the end of the partition."""
        found = self.records[partition]
        for message in messages:
            found.append(LogRecord(self.starts[partition] + len(found), NOW_US // 1000 + len(found), message))

    def delete_before(self, partition: int, offset: int) -> None:
        """DeleteRecords."""
        self.records[partition] = [record for record in self.records[partition] if record.offset >= offset]
        self.starts[partition] = offset

    def topic_id(self, topic: str) -> str:
        """The topic's id; fails while `failures` are left."""
        if self.failures:
            self.failures -= 1
            raise RetryError("the log does not answer")
        return self.id

    def offsets(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset, and the one after the last."""
        start = self.starts[partition]
        return start, start + len(self.records[partition])

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        """Records from `start` to before `end`."""
        return iter([record for record in self.records[partition] if start <= record.offset < end])

    def tables(self) -> tuple[Table, Table] | None:
        """Table 1, twice."""
        return None if self.table is None else (self.table, self.table)

    def close(self) -> None:
        """Nothing."""

    def __len__(self) -> int:
        return sum(map(len, self.records.values()))


@dataclass(frozen=True, kw_only=True)
class Link:
    """One partition's part in a transaction; also what `chain` answers, with its transaction."""

    job: str
    partition: int
    origin_transaction: int
    offset: int
    topic_id: str
    last_record_crc: int
    state: bytes
    transaction: int = 0


@dataclass
class MemoryLake:
    """Chains, rows and failures on demand: each of `prepare_errors`, `decide_errors`, `apply_errors` is raised once."""

    chains: dict[tuple[str, int], Link] = field(default_factory=dict)
    tables: dict[str, list[Any]] = field(default_factory=dict)
    transactions: int = 0
    applied: int = 0
    closed: int = 0
    prepare_errors: list[Exception] = field(default_factory=list)
    decide_errors: list[Exception] = field(default_factory=list)
    apply_errors: list[Exception] = field(default_factory=list)

    def chain(self, job: str, partition: int) -> Link | None:
        """The last link, or None."""
        return self.chains.get((job, partition))

    def prepare(self, appends: Mapping[str, Any], links: Sequence[Any]) -> Any:
        """Keep both."""
        if self.prepare_errors:
            raise self.prepare_errors.pop(0)
        return dict(appends), list(links)

    def decide(self, prepared: Any) -> int:
        """All or nothing."""
        if self.decide_errors:
            raise self.decide_errors.pop(0)
        appends, links = prepared
        for link in links:
            last = self.chain(link.job, link.partition)
            at = last.transaction if last else 0
            if link.origin_transaction != at:
                raise FencedError(f"partition {link.partition} is at {at}, not at {link.origin_transaction}")
        self.transactions += 1
        for link in links:
            self.chains[link.job, link.partition] = Link(**{**link.__dict__, "transaction": self.transactions})
        for table, rows in appends.items():
            self.tables.setdefault(table, []).append(rows)
        return self.transactions

    def apply(self) -> int:
        """Everything decided becomes visible."""
        if self.apply_errors:
            raise self.apply_errors.pop(0)
        self.applied = self.transactions
        return self.applied

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table."""
        return [row for part in self.tables.get(table, []) for row in part.to_pylist()]

    def close(self) -> None:
        """Counted."""
        self.closed += 1

    def row_count(self, table: str) -> int:
        """How many rows a table has."""
        return sum(part.num_rows for part in self.tables.get(table, []))

    def identities(self) -> list[tuple[str, int, int, int, float]]:
        """(device, epoch, seq, row, value) of all readings, sorted."""
        return sorted((r["device"], r["epoch"], r["seq"], r["row"], r["value"]) for r in self.rows("readings"))


def expected_rows(batches: Sequence[tuple[str, int, int]]) -> list[tuple[str, int, int, int, float]]:
    """What `identities` must be for batches (device, seq, rows) of epoch 0."""
    return sorted(
        (device, epoch(), seq, row, value_of(device, seq, row)) for device, seq, rows in batches for row in range(rows)
    )


ALL_MINE = tuple(0 for _ in range(limits.SHARDS))
"""A shard table that gives everything to partition 0."""
