"""The buffer between the log and the steps: whole messages, in offset order, bounded in bytes.

What counts is what a message becomes: its size decompressed, as its header declares it (and decoding holds it to).

**Delivery**: nothing here survives; what was not decided is read from the log again. A record is taken only at the
offset expected next, so a rebalance that repeats or skips records cannot disturb the fold.
**Bounds**: `bytes_max` of messages, those of the running step included; `full` says that no more should be offered
(one message more may still come).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from edge_agent.contract import limits
from edge_agent.contract.wire import declared_body_bytes

__all__ = ["Buffer", "Offer", "Record"]

_RECORD_BYTES = 200
"""What a record costs in memory besides its message; keeps floods of tiny messages bounded too."""


class Record(NamedTuple):
    """One record of the log; `append_time_ms` is the log's clock."""

    partition: int
    offset: int
    append_time_ms: int
    value: bytes


def memory_bytes(value: bytes) -> int:
    """What a message may take in memory once it is decoded; for bytes that are no message any bounded number."""
    return _RECORD_BYTES + max(len(value), min(declared_body_bytes(value), limits.BODY_RAW_BYTES_MAX))


class Offer(Enum):
    """What became of a record that was offered."""

    TAKEN = "taken"
    OLD = "old"
    """Below the offset expected: dropped."""
    AHEAD = "ahead"
    """Above the offset expected: the caller seeks back."""
    FOREIGN = "foreign"
    """Of a partition that is not (yet) ours: dropped."""


class Buffer:
    """Records of the assigned partitions, each in offset order."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._expected: dict[int, int] = {}
        self._records: dict[int, list[Record]] = {}
        self._bytes = 0
        self._step_bytes = 0

    @property
    def bytes(self) -> int:
        """Bytes held, those of the running step included."""
        return self._bytes + self._step_bytes

    @property
    def waiting_bytes(self) -> int:
        """Bytes that the next step would take."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether no more should be offered now."""
        return self.bytes >= self.bytes_max

    def expected(self, partition: int) -> int | None:
        """The next offset wanted, or None for a partition that is not ours."""
        return self._expected.get(partition)

    def expect(self, positions: Mapping[int, int]) -> None:
        """Drop everything held and take records of exactly these partitions, from these offsets on."""
        self._expected = dict(positions)
        self._records = {}
        self._bytes = 0

    def skip_to(self, partition: int, offset: int) -> None:
        """Expect `offset` next: the log has nothing before it any more."""
        self._expected[partition] = offset

    def offer(self, record: Record) -> Offer:
        """Take the record when it is the one expected."""
        expected = self._expected.get(record.partition)
        if expected is None:
            return Offer.FOREIGN
        if record.offset != expected:
            return Offer.OLD if record.offset < expected else Offer.AHEAD
        self._expected[record.partition] = expected + 1
        self._records.setdefault(record.partition, []).append(record)
        self._bytes += memory_bytes(record.value)
        return Offer.TAKEN

    def take(self, bytes_max: int) -> dict[int, list[Record]]:
        """Records for a step, in offset order, until `bytes_max` is reached; they count as held until `done`."""
        taken: dict[int, list[Record]] = {}
        for partition in list(self._records):
            records = self._records.pop(partition)
            for index, record in enumerate(records):
                if self._step_bytes >= bytes_max:
                    self._records[partition] = records[index:]
                    break
                self._step_bytes += (size := memory_bytes(record.value))
                self._bytes -= size
                taken.setdefault(partition, []).append(record)
        return taken

    def done(self) -> None:
        """The step is over."""
        self._step_bytes = 0
