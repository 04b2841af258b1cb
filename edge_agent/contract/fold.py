"""The fold: what a partition's records mean. One pure function shared by bridge, worker and simulation.

Over the records of a partition in offset order, per (device, epoch): a batch or skip record is accepted iff its
seq is watermark + 1, or its range covers watermark + 1. Everything else is ignored. So any duplicate, any
reordering and any second bridge is harmless, and everybody who reads the log agrees on what is in it.

A partition accepts a shard's records only while it owns the shard: from table 1 or an IN marker until an OUT
marker. A marker counts iff its table number is above the shard's last in this partition. IN carries the shard's
state at OUT from the partition that gave it up.

A close record starts a timer, counted in the log's own append times: EPOCH_FORGET_AFTER_S later the epoch is
forgotten. What a device's forgotten epochs leave behind is one number, the latest creation time among them;
records of an unknown epoch not made after it are expired (a restored image sends them) and become dead
letters. An epoch made later than it was closed (a device clock in the future) is never forgotten, since
forgetting it would expire every later epoch of a right clock.

**Delivery**: two readers that start from the same state and read the same records have the same state; the state's
bytes are canonical, so they can be compared. **Bounds**: one entry per epoch that was not forgotten and one
number per device that had any forgotten.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import msgspec

from . import limits
from .errors import DecodeError, RejectError
from .names import epoch_created_s
from .ring import shard_of
from .wire import Header, Kind

__all__ = ["EpochState", "Outcome", "PartitionFold", "Verdict"]

_VERSION = 1
_FORGET_AFTER_MS = limits.EPOCH_FORGET_AFTER_S * 1000


class Outcome(Enum):
    """What a record turned out to be."""

    ACCEPTED = "accepted"
    """A batch or skip record that covers watermark + 1."""
    DUPLICATE = "duplicate"
    """All its seqs are at or below the watermark."""
    GAP = "gap"
    """Its seqs begin above watermark + 1; the sender goes back."""
    VOID = "void"
    """The partition does not own the shard, or a marker that came too late."""
    EXPIRED = "expired"
    """Of an epoch that was forgotten: a dead letter."""
    CLOSED = "closed"
    """A close record that started (or found) its timer."""
    MOVED = "moved"
    """A marker that counts."""
    MALFORMED = "malformed"
    """No header: a dead letter."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the fold says of one record. Newly covered are the seqs `seq_first` to `seq_last` (accepted only)."""

    outcome: Outcome
    seq_first: int = 0
    seq_last: int = -1


@dataclass(slots=True)
class EpochState:
    """One (device, epoch): its watermark, and the append time at which it was closed (0: open)."""

    watermark: int = 0
    closed_at_ms: int = 0


@dataclass(slots=True)
class _Device:
    epochs: dict[int, EpochState] = field(default_factory=dict)
    forgotten_s: int = -1
    """Latest creation time among the epochs forgotten, or -1."""


@dataclass(slots=True)
class _Shard:
    owned: bool
    table_number: int
    devices: dict[str, _Device] = field(default_factory=dict)


_DeviceEntry = tuple[str, int, list[tuple[int, int, int]]]
_ShardEntry = tuple[int, bool, int, list[_DeviceEntry]]
_state_decoder = msgspec.msgpack.Decoder(tuple[int, int, int, list[_ShardEntry]])
_shard_decoder = msgspec.msgpack.Decoder(list[_DeviceEntry])


class PartitionFold:
    """The state of one partition at `next_offset`, and the function that takes it one record further."""

    def __init__(self, partition: int, table: Sequence[int]) -> None:
        """`table[shard]` is the partition that owns the shard in table 1."""
        self.partition = partition
        self.next_offset = 0
        self._shards = {
            shard: _Shard(owned=owner == partition, table_number=1 if owner == partition else 0)
            for shard, owner in enumerate(table)
        }

    def apply(self, offset: int, append_time_ms: int, header: Header | None, body: bytes = b"") -> Verdict:
        """Fold the record at `offset`, appended at `append_time_ms` by the log's clock.

        `header` is None for a record without a readable header; `body` is needed for IN markers only.
        Raises ValueError for an offset that was folded already: the caller has lost its place.
        """
        if offset < self.next_offset:
            raise ValueError(f"offset {offset} was folded already; next is {self.next_offset}")
        self.next_offset = offset + 1
        if header is None:
            return Verdict(Outcome.MALFORMED)
        if header.kind in (Kind.OUT, Kind.IN):
            return self._move(header, body)
        shard = self._shards[shard_of(header.device)]
        if not shard.owned:
            return Verdict(Outcome.VOID)
        return self._fold(shard, append_time_ms, header)

    @staticmethod
    def _fold(shard: _Shard, append_time_ms: int, header: Header) -> Verdict:
        device = shard.devices.get(header.device)
        if device is None:
            device = shard.devices[header.device] = _Device()
        _forget(device, append_time_ms)
        state = device.epochs.get(header.epoch)
        if state is None:
            if epoch_created_s(header.epoch) <= device.forgotten_s:
                return Verdict(Outcome.EXPIRED)
            state = EpochState()
        if header.kind is Kind.CLOSE:
            state.closed_at_ms = state.closed_at_ms or append_time_ms
            device.epochs[header.epoch] = state
            return Verdict(Outcome.CLOSED)
        if header.seq_last <= state.watermark:
            return Verdict(Outcome.DUPLICATE)
        if header.seq_first > state.watermark + 1:
            return Verdict(Outcome.GAP)
        first, state.watermark = state.watermark + 1, header.seq_last
        device.epochs[header.epoch] = state
        return Verdict(Outcome.ACCEPTED, first, header.seq_last)

    def _move(self, header: Header, body: bytes) -> Verdict:
        shard = self._shards[header.shard]
        if header.table_number <= shard.table_number:
            return Verdict(Outcome.VOID)
        if header.kind is Kind.OUT:
            if not shard.owned:
                return Verdict(Outcome.VOID)
            shard.owned, shard.table_number = False, header.table_number
            return Verdict(Outcome.MOVED)
        try:
            devices = _shard_decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return Verdict(Outcome.VOID)
        self._shards[header.shard] = _restored(True, header.table_number, devices)
        return Verdict(Outcome.MOVED)

    def owns(self, device: str) -> bool:
        """Whether this partition accepts records of `device` now."""
        return self._shards[shard_of(device)].owned

    def watermark(self, device: str, epoch: int) -> int:
        """The highest seq such that all up to it are durable or skipped; 0 for an epoch without any."""
        found = self._shards[shard_of(device)].devices.get(device)
        state = None if found is None else found.epochs.get(epoch)
        return 0 if state is None else state.watermark

    def forgotten(self, device: str, epoch: int) -> bool:
        """Whether records of this epoch are expired by now."""
        found = self._shards[shard_of(device)].devices.get(device)
        return found is not None and epoch not in found.epochs and epoch_created_s(epoch) <= found.forgotten_s

    def epochs(self) -> dict[tuple[str, int], EpochState]:
        """Every (device, epoch) of the shards that this partition owns, as a new dict."""
        return {
            (name, epoch): state
            for shard in self._shards.values()
            if shard.owned
            for name, device in shard.devices.items()
            for epoch, state in device.epochs.items()
        }

    def shard_state(self, shard: int) -> bytes:
        """The body of an IN marker for `shard`: its epochs and forgotten times."""
        return msgspec.msgpack.encode(_entries(self._shards[shard]))

    def to_bytes(self) -> bytes:
        """The whole state, canonical: equal states have equal bytes. The inverse is `from_bytes`."""
        shards: list[_ShardEntry] = [
            (number, shard.owned, shard.table_number, _entries(shard)) for number, shard in sorted(self._shards.items())
        ]
        data = msgspec.msgpack.encode((_VERSION, self.partition, self.next_offset, shards))
        return data + zlib.crc32(data).to_bytes(4, "little")

    @classmethod
    def from_bytes(cls, data: bytes) -> PartitionFold:
        """The state that `to_bytes` wrote; DecodeError when it is damaged or of a newer version."""
        if len(data) < 4 or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise DecodeError(f"fold state of {len(data)} bytes is damaged: its checksum does not match")
        try:
            version, partition, next_offset, shards = _state_decoder.decode(data[:-4])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DecodeError(f"not a fold state: {error}") from None
        if version != _VERSION:
            raise DecodeError(f"fold state of version {version}; this program knows {_VERSION}: upgrade it")
        if [entry[0] for entry in shards] != list(range(limits.SHARDS)):
            raise RejectError(f"fold state has {len(shards)} shards, not {limits.SHARDS}")
        fold = cls(partition, ())
        fold.next_offset = next_offset
        fold._shards = {number: _restored(owned, table, devices) for number, owned, table, devices in shards}
        return fold


def _forget(device: _Device, append_time_ms: int) -> None:
    """Forget the device's epochs whose time is over. Done before each of its records and at no other moment, so
    that every reader forgets at the same record."""
    for epoch, state in list(device.epochs.items()):
        created_s = epoch_created_s(epoch)
        over = state.closed_at_ms and append_time_ms >= state.closed_at_ms + _FORGET_AFTER_MS
        if over and created_s * 1000 <= state.closed_at_ms:
            del device.epochs[epoch]
            device.forgotten_s = max(created_s, device.forgotten_s)


def _entries(shard: _Shard) -> list[_DeviceEntry]:
    return [
        (name, device.forgotten_s, [(e, s.watermark, s.closed_at_ms) for e, s in sorted(device.epochs.items())])
        for name, device in sorted(shard.devices.items())
        if device.epochs or device.forgotten_s >= 0
    ]


def _restored(owned: bool, table_number: int, entries: list[_DeviceEntry]) -> _Shard:
    devices = {
        name: _Device({epoch: EpochState(watermark, closed) for epoch, watermark, closed in epochs}, forgotten_s)
        for name, forgotten_s, epochs in entries
    }
    return _Shard(owned, table_number, devices)
