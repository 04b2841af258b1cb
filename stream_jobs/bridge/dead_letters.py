"""Payloads that have no place in the partitions, as records of `edgewater.dead_letters`.

A record's value is msgpack [version, time in us, MQTT topic, reason, payload, payload size in bytes]; of a payload
above PAYLOAD_BYTES_MAX only the beginning is kept. Batches with a readable header never come here from the bridge.

**Delivery**: at least once while the log takes appends; a dead letter under way when the bridge is killed may be lost
(its sender is told nothing either way). **Bounds**: PAYLOAD_BYTES_MAX, TEXT_CHARACTERS_MAX.
"""

from __future__ import annotations

import msgspec

from edge_agent.contract.errors import DecodeError

__all__ = ["DeadLetter", "decode_dead_letter", "encode_dead_letter"]

_VERSION = 1
PAYLOAD_BYTES_MAX = 512 * 1024
TEXT_CHARACTERS_MAX = 500


class DeadLetter(msgspec.Struct, array_like=True, frozen=True):
    """One payload put aside, with where it came from and why."""

    version: int
    time_us: int
    topic: str
    reason: str
    payload: bytes
    payload_bytes: int


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
