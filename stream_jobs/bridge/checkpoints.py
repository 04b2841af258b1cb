"""Checkpoints of a partition's fold, as records of `edgewater.checkpoints` (the same partition number).

A record's value is msgpack [version, topic id of edgewater.batches, offset, fold state]: the state is that of
`PartitionFold.to_bytes` at `offset`, the next one to fold. Which record counts is decided by what they hold: the
right topic id, then the highest offset. Never the last one written: a bridge that was paused may write late.

**Delivery**: older records are deleted below the one that counts, and only below it, when that one is durable.
**Bounds**: CHECKPOINT_BYTES_MAX; a larger state is not written, and an alarm says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from edge_agent.contract import limits
from edge_agent.contract.errors import DecodeError, LimitError
from edge_agent.contract.fold import PartitionFold

__all__ = ["Checkpoint", "Kept", "decode_checkpoint", "encode_checkpoint", "highest"]

_VERSION = 1


class Checkpoint(msgspec.Struct, array_like=True, frozen=True):
    """One checkpoint; `offset` is the fold's `next_offset`."""

    version: int
    topic_id: str
    offset: int
    state: bytes


class Kept(NamedTuple):
    """A checkpoint and where it is in the checkpoint topic."""

    position: int
    checkpoint: Checkpoint


def encode_checkpoint(topic_id: str, fold: PartitionFold) -> bytes:
    """The record's value; LimitError above CHECKPOINT_BYTES_MAX."""
    data = msgspec.msgpack.encode(Checkpoint(_VERSION, topic_id, fold.next_offset, fold.to_bytes()))
    if len(data) > limits.CHECKPOINT_BYTES_MAX:
        raise LimitError(
            "checkpoint bytes", len(data), limits.CHECKPOINT_BYTES_MAX, "spread the devices over more partitions"
        )
    return data


def decode_checkpoint(data: bytes) -> Checkpoint:
    """The checkpoint in a record's value; DecodeError when it is none or of another version."""
    try:
        found = msgspec.msgpack.decode(data, type=Checkpoint)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a checkpoint: {error}") from None
    if found.version != _VERSION:
        raise DecodeError(f"checkpoint of version {found.version}, this program knows {_VERSION}; upgrade it")
    return found


def highest(kept: Iterable[Kept], topic_id: str, offset_max: int) -> Kept | None:
    """The checkpoint that counts: of this topic, and the highest offset that is not above `offset_max`."""
    fitting = [k for k in kept if k.checkpoint.topic_id == topic_id and k.checkpoint.offset <= offset_max]
    return max(fitting, key=lambda k: (k.checkpoint.offset, -k.position), default=None)
