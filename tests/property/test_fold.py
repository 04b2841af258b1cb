"""The fold: any duplication and reordering of a log gives each batch once."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import limits, wire
from edge_agent.contract.errors import RejectError
from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.names import new_epoch
from edge_agent.contract.ring import shard_of
from edge_agent.contract.tables import first_table
from edge_agent.contract.wire import Kind, Reason, decode_header

TABLE = tuple(0 for _ in range(limits.SHARDS))
NOW_US = 1_790_000_000_000_000
EPOCHS = [new_epoch(NOW_US, n, 0) for n in range(3)]
DEVICES = ["dev-1", "dev-2"]
_BODY = wire.encode_columns([wire.Column("i", "int64", 1, None, (bytes(8),))])


def batch(device: str, epoch: int, seq: int) -> wire.Header:
    """The header of one batch."""
    return decode_header(wire.encode_batch(_BODY, device=device, epoch=epoch, seq=seq, rows=1, stream="s"))[0]


def skip(device: str, epoch: int, first: int, last: int) -> wire.Header:
    """The header of a skip record."""
    return decode_header(
        wire.encode_skip(device=device, epoch=epoch, seq_first=first, seq_last=last, reason=Reason.DROPPED)
    )[0]


records = st.lists(
    st.tuples(st.sampled_from(DEVICES), st.sampled_from(EPOCHS), st.integers(1, 8), st.integers(0, 3), st.booleans()),
    max_size=120,
)


@given(records)
def test_each_seq_is_covered_once_and_in_order(found: list[tuple[str, int, int, int, bool]]) -> None:
    """Whatever is in the log, the newly covered ranges of an epoch are 1..w without a gap or an overlap."""
    fold = PartitionFold(0, TABLE)
    covered: dict[tuple[str, int], int] = {}
    for offset, (device, epoch, seq, span, is_skip) in enumerate(found):
        header = skip(device, epoch, seq, seq + span) if is_skip else batch(device, epoch, seq)
        verdict = fold.apply(offset, 1000, header)
        before = covered.get((device, epoch), 0)
        if verdict.outcome is Outcome.ACCEPTED:
            assert verdict.seq_first == before + 1 <= verdict.seq_last == header.seq_last
            assert header.seq_first <= verdict.seq_first
            covered[device, epoch] = verdict.seq_last
        else:
            assert header.seq_last <= before or header.seq_first > before + 1
        assert fold.watermark(device, epoch) == covered.get((device, epoch), 0)


@given(st.integers(0, 1 << 32))
def test_a_sender_that_repeats_everything_gets_each_batch_in_once(seed: int) -> None:
    """A log with every batch appended in order at least once, between any duplicates, folds to all of them."""
    generator = random.Random(seed)
    count = generator.randint(1, 12)
    log = [generator.randint(1, count) for _ in range(30)]
    for seq in range(1, count + 1):
        log.append(seq)
        log += [generator.randint(1, count) for _ in range(generator.randint(0, 4))]
    fold = PartitionFold(0, TABLE)
    accepted = []
    for offset, seq in enumerate(log):
        if fold.apply(offset, 1, batch("dev-1", EPOCHS[0], seq)).outcome is Outcome.ACCEPTED:
            accepted.append(seq)
    assert accepted == list(range(1, count + 1)), f"seed {seed}"


@given(records, st.integers(0, 120))
def test_a_restored_state_goes_on_exactly_as_the_original(
    found: list[tuple[str, int, int, int, bool]], cut: int
) -> None:
    """Saving and restoring at any record changes no later verdict and no byte of the state."""
    fold = PartitionFold(0, TABLE)
    other = fold
    for offset, (device, epoch, seq, span, is_skip) in enumerate(found):
        if offset == cut:
            other = PartitionFold.from_bytes(fold.to_bytes())
        header = skip(device, epoch, seq, seq + span) if is_skip else batch(device, epoch, seq)
        verdict = fold.apply(offset, 5, header)
        if other is not fold:
            assert other.apply(offset, 5, header) == verdict
    assert other.to_bytes() == fold.to_bytes()


@given(st.binary(max_size=200))
def test_damaged_state_is_refused(data: bytes) -> None:
    """State bytes that are not what to_bytes wrote are refused, whatever they are."""
    good = PartitionFold(0, TABLE).to_bytes()
    for candidate in (data, good[:-5] + data, good[: len(data)]):
        if candidate == good:
            continue
        with pytest.raises(RejectError):
            PartitionFold.from_bytes(candidate)


@given(st.integers(1, 64))
def test_every_shard_has_one_owner_in_table_1(partitions: int) -> None:
    """Over all partitions' folds, each device is owned by exactly one."""
    table = first_table(partitions).partitions
    folds = [PartitionFold(partition, table) for partition in range(partitions)]
    for device in ("a", "dev-1", "x" * 128):
        assert [fold.partition for fold in folds if fold.owns(device)] == [table[shard_of(device)]]
    assert Kind.OUT in tuple(Kind)
