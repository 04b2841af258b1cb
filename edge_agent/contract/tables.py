"""The numbered tables shard -> partition, as the log records them.

A table is a record of the log topic `edgewater.tables`. Bridges and workers read that topic from its start
and fold it: a record counts iff its number is the last counting number + 1, so two processes that write
table 1 at the same moment agree on the first. Weights and loads enter only through such a record.

**Delivery**: the log keeps all tables; folding them again gives the same table.
**Bounds**: exactly SHARDS entries, partitions below 10,000.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from . import limits
from .errors import DecodeError
from .ring import shard_table

__all__ = ["Table", "decode_table", "encode_table", "first_table", "fold_tables"]

_VERSION = 1
_PARTITIONS_MAX = 10_000


class Table(msgspec.Struct, array_like=True, frozen=True):
    """`partitions[shard]` is the partition that owns the shard from table `number` on."""

    version: int
    number: int
    partitions: tuple[int, ...]


def first_table(partition_count: int) -> Table:
    """Table 1 of a new deployment: the ring over equal partitions."""
    owners = shard_table({f"partition-{partition}": 1.0 for partition in range(partition_count)})
    return Table(_VERSION, 1, tuple(int(owner.removeprefix("partition-")) for owner in owners))


def encode_table(table: Table) -> bytes:
    """The record's value."""
    return msgspec.msgpack.encode(table)


def decode_table(data: bytes) -> Table:
    """The table in a record's value; DecodeError when it is none."""
    try:
        table = msgspec.msgpack.decode(data, type=Table)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a shard table: {error}") from None
    if table.version != _VERSION:
        raise DecodeError(f"shard table of version {table.version}, this program knows {_VERSION}; upgrade it")
    if len(table.partitions) != limits.SHARDS or not all(0 <= p < _PARTITIONS_MAX for p in table.partitions):
        raise DecodeError(f"shard table {table.number} does not name a partition for each of {limits.SHARDS} shards")
    return table


def fold_tables(records: Iterable[bytes]) -> Table | None:
    """The current table, or None before the first. Records that do not count, or are none, are passed over."""
    current: Table | None = None
    for data in records:
        try:
            table = decode_table(data)
        except DecodeError:
            continue
        if table.number == (current.number if current else 0) + 1:
            current = table
    return current
