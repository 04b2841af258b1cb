"""The fold's rules, one by one."""

from __future__ import annotations

import pytest

from edge_agent.contract import limits, wire
from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.names import epoch_created_s, new_epoch
from edge_agent.contract.ring import shard_of
from edge_agent.contract.wire import Kind, Reason, decode_header

NOW_S = 1_790_000_000
NOW_MS = NOW_S * 1000
EPOCH = new_epoch(NOW_S * 1_000_000, 1, 0)
DAY_MS = 24 * 3600 * 1000
DEVICE = "dev-1"
SHARD = shard_of(DEVICE)
HERE = tuple(0 for _ in range(limits.SHARDS))
ELSEWHERE = tuple(1 for _ in range(limits.SHARDS))
_BODY = wire.encode_columns([wire.Column("i", "int64", 1, None, (bytes(8),))])


def batch(seq: int, epoch: int = EPOCH) -> wire.Header:
    """The header of a batch of DEVICE."""
    return decode_header(wire.encode_batch(_BODY, device=DEVICE, epoch=epoch, seq=seq, rows=1, stream="s"))[0]


def close(seq: int, epoch: int = EPOCH) -> wire.Header:
    """The header of a close record of DEVICE."""
    return decode_header(wire.encode_close(device=DEVICE, epoch=epoch, seq_last=seq))[0]


def marker(kind: Kind, number: int, state: bytes = b"") -> tuple[wire.Header, bytes]:
    """Header and body of a marker for DEVICE's shard."""
    header, body = decode_header(wire.encode_marker(kind, shard=SHARD, table_number=number, state=state))
    return header, bytes(body)


class Log:
    """Feeds a fold records at increasing offsets."""

    def __init__(self, fold: PartitionFold) -> None:
        self.fold = fold

    def add(self, header: wire.Header | None, at_ms: int = NOW_MS, body: bytes = b"") -> Outcome:
        """The fold's outcome of the next record."""
        return self.fold.apply(self.fold.next_offset, at_ms, header, body).outcome


def test_a_gap_is_not_accepted_until_it_is_filled() -> None:
    """The watermark is the contiguous prefix, never the maximum."""
    log = Log(PartitionFold(0, HERE))
    assert log.add(batch(2)) is Outcome.GAP
    assert log.fold.watermark(DEVICE, EPOCH) == 0
    assert log.add(batch(1)) is Outcome.ACCEPTED
    assert log.add(batch(2)) is Outcome.ACCEPTED
    assert log.add(batch(1)) is Outcome.DUPLICATE


def test_a_skip_record_covers_only_what_is_new() -> None:
    """A skip record over seqs that partly arrived newly covers the rest."""
    fold = PartitionFold(0, HERE)
    fold.apply(0, NOW_MS, batch(1))
    header = decode_header(
        wire.encode_skip(device=DEVICE, epoch=EPOCH, seq_first=1, seq_last=4, reason=Reason.DROPPED)
    )[0]
    verdict = fold.apply(1, NOW_MS, header)
    assert (verdict.outcome, verdict.seq_first, verdict.seq_last) == (Outcome.ACCEPTED, 2, 4)


def test_an_offset_folded_twice_is_a_programming_error() -> None:
    """Whoever feeds an offset again has lost its place and is told so."""
    log = Log(PartitionFold(0, HERE))
    log.add(None)
    with pytest.raises(ValueError, match="folded already"):
        log.fold.apply(0, NOW_MS, None)


def test_a_record_without_header_is_malformed() -> None:
    """It takes its offset and nothing else."""
    assert Log(PartitionFold(0, HERE)).add(None) is Outcome.MALFORMED


def test_a_partition_that_does_not_own_the_shard_accepts_nothing() -> None:
    """Records written by a bridge with an old table are void."""
    assert Log(PartitionFold(0, ELSEWHERE)).add(batch(1)) is Outcome.VOID


def test_close_is_a_hint_for_thirty_days() -> None:
    """After a close, watermark + 1 is accepted until the timer is over, then expired for ever."""
    log = Log(PartitionFold(0, HERE))
    log.add(batch(1))
    assert log.add(close(1)) is Outcome.CLOSED
    assert log.add(batch(2), NOW_MS + 29 * DAY_MS) is Outcome.ACCEPTED
    assert log.add(close(2), NOW_MS + 29 * DAY_MS) is Outcome.CLOSED
    assert log.add(batch(3), NOW_MS + 30 * DAY_MS) is Outcome.EXPIRED
    assert log.fold.forgotten(DEVICE, EPOCH)
    assert log.add(batch(1), NOW_MS + 31 * DAY_MS) is Outcome.EXPIRED


def test_thirty_days_later_a_restored_image_sends_a_forgotten_epoch() -> None:
    """An older epoch that was never seen is expired too once a later one of the device was forgotten."""
    log = Log(PartitionFold(0, HERE))
    log.add(batch(1))
    log.add(close(1))
    older = new_epoch((NOW_S - 100) * 1_000_000, 7, 0)
    assert log.add(batch(1, older), NOW_MS + 31 * DAY_MS) is Outcome.EXPIRED
    newer = new_epoch((NOW_S + 32 * 24 * 3600) * 1_000_000, 7, 0)
    assert log.add(batch(1, newer), NOW_MS + 32 * DAY_MS) is Outcome.ACCEPTED


def test_an_epoch_from_a_clock_in_the_future_is_never_forgotten() -> None:
    """Forgetting it would expire every later epoch of the right clock."""
    log = Log(PartitionFold(0, HERE))
    future = new_epoch((NOW_S + 365 * 24 * 3600) * 1_000_000, 7, 0)
    log.add(batch(1, future))
    log.add(close(1, future))
    assert log.add(batch(1, EPOCH), NOW_MS + 40 * DAY_MS) is Outcome.ACCEPTED
    assert log.add(batch(1, future), NOW_MS + 40 * DAY_MS) is Outcome.DUPLICATE


def test_nothing_is_accepted_after_out_nor_before_in() -> None:
    """A partition accepts a shard's records only between its IN (or table 1) and its OUT."""
    old, new = Log(PartitionFold(0, HERE)), Log(PartitionFold(1, HERE))
    old.add(batch(1))
    assert new.add(batch(2)) is Outcome.VOID
    assert old.add(marker(Kind.OUT, 2)[0]) is Outcome.MOVED
    assert old.add(batch(2)) is Outcome.VOID
    header, body = marker(Kind.IN, 2, old.fold.shard_state(SHARD))
    assert new.add(header, body=body) is Outcome.MOVED
    assert new.add(batch(1)) is Outcome.DUPLICATE
    assert new.add(batch(2)) is Outcome.ACCEPTED


def test_a_marker_counts_once() -> None:
    """A retried or late marker is void, so it cannot reset a watermark or void a shard that came back."""
    old, new = Log(PartitionFold(0, HERE)), Log(PartitionFold(1, HERE))
    old.add(marker(Kind.OUT, 2)[0])
    header, body = marker(Kind.IN, 2, old.fold.shard_state(SHARD))
    new.add(header, body=body)
    new.add(batch(1))
    assert new.add(header, body=body) is Outcome.VOID
    assert new.fold.watermark(DEVICE, EPOCH) == 1
    assert old.add(marker(Kind.OUT, 2)[0]) is Outcome.VOID
    back, back_body = marker(Kind.IN, 3, new.fold.shard_state(SHARD))
    assert old.add(back, body=back_body) is Outcome.MOVED
    assert old.add(marker(Kind.OUT, 2)[0]) is Outcome.VOID
    assert old.add(batch(2)) is Outcome.ACCEPTED


def test_an_in_marker_with_an_unreadable_state_is_void() -> None:
    """The shard stays where it is rather than starting again from nothing."""
    new = Log(PartitionFold(1, HERE))
    assert new.add(marker(Kind.IN, 2)[0], body=b"\xc1") is Outcome.VOID


def test_an_epoch_holds_its_time_and_is_later_than_the_last() -> None:
    """A device whose clock went back still makes later epochs."""
    first = new_epoch(NOW_S * 1_000_000, 5, 0)
    assert epoch_created_s(first) == NOW_S
    second = new_epoch((NOW_S - 1_000_000) * 1_000_000, 4, epoch_created_s(first))
    assert epoch_created_s(second) == NOW_S + 1
    assert 0 < new_epoch(0, 0, 0) < 1 << 63
