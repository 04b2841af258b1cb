"""Payloads without a readable header, as records of `edgewater.batches` that no fold can take for a message.

A record's value is msgpack [version, time in us, MQTT topic, reason, payload, payload size in bytes]; of a payload
above PAYLOAD_BYTES_MAX only the beginning is kept. It has no header, so every fold calls the record malformed, and the
worker makes it a row of the lake's `dead_letters`. Batches with a readable header never come here from the bridge.

**Delivery**: at least once while the log takes appends; a dead letter under way when the bridge is killed may be lost
(its sender is told nothing either way). **Bounds**: PAYLOAD_BYTES_MAX, TEXT_CHARACTERS_MAX, and RATE_MAX a second,
so that a device that sends nonsense cannot fill the log that all share.
"""

from __future__ import annotations

import zlib

import msgspec

from edge_agent.contract.errors import DecodeError

__all__ = ["RATE_MAX", "DeadLetter", "Rate", "decode_dead_letter", "encode_dead_letter", "partition_for"]

_VERSION = 1
PAYLOAD_BYTES_MAX = 512 * 1024
TEXT_CHARACTERS_MAX = 500
RATE_MAX = 1000
"""Dead letters a second that one process writes; as many may come at once."""


class DeadLetter(msgspec.Struct, array_like=True, frozen=True):
    """One payload put aside, with where it came from and why."""

    version: int
    time_us: int
    topic: str
    reason: str
    payload: bytes
    payload_bytes: int


class Rate:
    """Says which dead letters are written: `per_s` a second, and no more than that at once."""

    def __init__(self, per_s: float = RATE_MAX) -> None:
        self._per_s = per_s
        self._room = per_s
        self._at_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Whether one may be written at `now_s` (monotonic)."""
        if self._at_s is not None:
            self._room = min(self._per_s, self._room + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._room < 1:
            return False
        self._room -= 1
        return True


def partition_for(topic: str, partitions: int) -> int:
    """Where a dead letter from the MQTT topic `topic` goes: those of one sender stay in order."""
    return zlib.crc32(topic.encode("utf-8", "backslashreplace")) % partitions


def encode_dead_letter(payload: bytes, *, topic: str, reason: str, time_us: int) -> bytes:
    """The record's value."""
    return msgspec.msgpack.encode(
        DeadLetter(
            _VERSION, time_us, topic[:TEXT_CHARACTERS_MAX], reason[:TEXT_CHARACTERS_MAX],
            payload[:PAYLOAD_BYTES_MAX], len(payload),
        )
    )  # fmt: skip


def decode_dead_letter(data: bytes) -> DeadLetter:
    """The dead letter in a record's value; DecodeError when it is none."""
    try:
        found = msgspec.msgpack.decode(data, type=DeadLetter)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a dead letter: {error}") from None
    if found.version != _VERSION:
        raise DecodeError(f"dead letter of version {found.version}, this program knows {_VERSION}; upgrade it")
    return found
