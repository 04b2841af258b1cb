"""Idempotent producers of one partition: which batches of which producer are in the log already. Pure.

Kept are, per producer id, its epoch and its last 5 batches (first and last sequence, base offset, append time), as
Apache Kafka does (KIP-98, KIP-360; ProducerStateManager). A repeated batch is answered with its first offset; a gap in
the sequence is refused, so that the producer sends again from the gap.

**Delivery**: the table is a function of the batches in the log: rebuilt from their headers on start, or taken from a
segment's seal and continued from there. **Bounds**: PRODUCERS_MAX per partition; beyond it the one that has been silent
the longest is forgotten, and may then go on with any sequence, as after a restart of Kafka with its records deleted.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_agent.contract.errors import DecodeError

from .batches import Header
from .codes import Code, ProtocolError

__all__ = ["PRODUCERS_MAX", "Appended", "ProducerTable"]

PRODUCERS_MAX = 1000
_BATCHES_KEPT = 5
_SEQUENCE_MODULUS = 1 << 31
_ENTRY = struct.Struct("<qhB")
_BATCH = struct.Struct("<iiqqq")
_COUNT = struct.Struct("<I")


class Appended(NamedTuple):
    """Where one batch is in the log; `append_time_ms` is -1 unless the topic has LogAppendTime."""

    first_sequence: int
    last_sequence: int
    base_offset: int
    next_offset: int
    append_time_ms: int


@dataclass(slots=True)
class _Producer:
    epoch: int
    batches: deque[Appended] = field(default_factory=lambda: deque(maxlen=_BATCHES_KEPT))


class ProducerTable:
    """The producers of one partition."""

    def __init__(self, producers_max: int = PRODUCERS_MAX) -> None:
        self._producers: dict[int, _Producer] = {}
        self._producers_max = producers_max

    def __len__(self) -> int:
        return len(self._producers)

    def check(self, header: Header) -> Appended | None:
        """The earlier append if `header`'s batch is in the log already, None if it may be appended now.

        Raises ProtocolError with INVALID_PRODUCER_EPOCH or OUT_OF_ORDER_SEQUENCE_NUMBER.
        """
        producer = self._producers.get(header.producer_id)
        if header.producer_id < 0 or producer is None:
            return None
        if header.producer_epoch < producer.epoch:
            message = f"producer {header.producer_id} has epoch {producer.epoch}, this batch {header.producer_epoch}"
            raise ProtocolError(Code.INVALID_PRODUCER_EPOCH, message)
        if header.producer_epoch > producer.epoch:
            expected = 0
        else:
            for earlier in producer.batches:
                if (earlier.first_sequence, earlier.last_sequence) == (header.base_sequence, header.last_sequence):
                    return earlier
            expected = (producer.batches[-1].last_sequence + 1) % _SEQUENCE_MODULUS
        if header.base_sequence != expected:
            message = f"producer {header.producer_id}: sequence {header.base_sequence} where {expected} is next"
            raise ProtocolError(Code.OUT_OF_ORDER_SEQUENCE_NUMBER, message)
        return None

    def record(self, header: Header) -> None:
        """Note a batch that is in the log, with the header it has there."""
        if header.producer_id < 0:
            return
        producer = self._producers.pop(header.producer_id, None)
        if producer is None or producer.epoch != header.producer_epoch:
            producer = _Producer(header.producer_epoch)
        append_time_ms = header.max_timestamp if header.log_append_time else -1
        batch = Appended(
            header.base_sequence, header.last_sequence, header.base_offset, header.next_offset, append_time_ms
        )
        producer.batches.append(batch)
        self._producers[header.producer_id] = producer
        if len(self._producers) > self._producers_max:
            del self._producers[next(iter(self._producers))]

    def to_bytes(self) -> bytes:
        """The whole table, longest silent first."""
        parts = [_COUNT.pack(len(self._producers))]
        for producer_id, producer in self._producers.items():
            parts.append(_ENTRY.pack(producer_id, producer.epoch, len(producer.batches)))
            parts.extend(_BATCH.pack(*batch) for batch in producer.batches)
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes, producers_max: int = PRODUCERS_MAX) -> ProducerTable:
        """What `to_bytes` gave; DecodeError for anything else."""
        table = cls(producers_max)
        try:
            (count,) = _COUNT.unpack_from(data)
            position = _COUNT.size
            for _ in range(count):
                producer_id, epoch, batches = _ENTRY.unpack_from(data, position)
                position += _ENTRY.size
                producer = table._producers[producer_id] = _Producer(epoch)
                for _ in range(batches):
                    producer.batches.append(Appended._make(_BATCH.unpack_from(data, position)))
                    position += _BATCH.size
                if not producer.batches:
                    raise DecodeError(f"producer {producer_id} has no batch")
        except struct.error as error:
            raise DecodeError(f"producer table ends early: {error}") from None
        if position != len(data):
            raise DecodeError(f"producer table has {len(data)} bytes, {position} expected")
        return table
