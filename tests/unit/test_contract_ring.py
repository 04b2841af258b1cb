"""Shards, the ring and the numbered tables."""

from __future__ import annotations

import msgspec
import pytest

from edge_agent.contract import limits
from edge_agent.contract.errors import DecodeError, RejectError
from edge_agent.contract.ring import Ring, shard_of, shard_table
from edge_agent.contract.tables import Table, decode_table, encode_table, first_table, fold_tables


def test_the_hash_of_a_device_never_changes() -> None:
    """Golden values: another process, Python or machine computes the same shard."""
    assert [shard_of(name) for name in ("dev-1", "pi4", "a")] == [239, 232, 47]


def test_adding_one_of_n_moves_about_one_nth_and_only_to_the_new_one() -> None:
    """From 4 to 5 members about a fifth of the shards move, each of them to the fifth."""
    before = shard_table({f"b{n}": 1.0 for n in range(4)})
    after = shard_table({f"b{n}": 1.0 for n in range(5)})
    moved = [shard for shard in range(limits.SHARDS) if before[shard] != after[shard]]
    assert 0.1 < len(moved) / limits.SHARDS < 0.3
    assert {after[shard] for shard in moved} == {"b4"}


def test_weights_give_shares() -> None:
    """A member of weight 3 beside one of weight 1 owns about three quarters of many keys; weight 0 owns none."""
    ring = Ring({"big": 3.0, "small": 1.0, "none": 0.0})
    owners = [ring.owner(str(key)) for key in range(20_000)]
    assert 0.65 < owners.count("big") / len(owners) < 0.85
    assert "none" not in owners


def test_a_ring_of_nothing_is_refused() -> None:
    """No members, only zero weights, or a negative weight: an error that says so."""
    for members in ({}, {"a": 0.0}, {"a": -1.0}):
        with pytest.raises(RejectError):
            Ring(members)


def test_tables_count_in_order_whoever_writes_them() -> None:
    """Of two first tables the earlier counts; a table out of order, or garbage, is passed over."""
    one, other = first_table(4), first_table(8)
    second = Table(1, 2, other.partitions)
    records = [b"garbage", encode_table(second), encode_table(one), encode_table(other), encode_table(second)]
    assert fold_tables(records[:3]) == one
    assert fold_tables(records) == second
    assert fold_tables([]) is None


def test_a_wrong_table_is_refused() -> None:
    """Too few shards or another version is not a table."""
    for wrong in (Table(1, 1, (0,) * 3), Table(9, 1, (0,) * limits.SHARDS)):
        with pytest.raises(DecodeError):
            decode_table(msgspec.msgpack.encode(wrong))
