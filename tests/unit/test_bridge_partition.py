"""What the bridge decides for one partition."""

from __future__ import annotations

from edge_agent.contract import limits
from edge_agent.contract.fold import PartitionFold
from edge_agent.contract.names import epoch_created_s
from edge_agent.contract.ring import shard_of
from edge_agent.contract.tables import first_table
from edge_agent.contract.watermarks import HeldEpoch
from edge_agent.contract.wire import (
    Header,
    Kind,
    Reason,
    encode_batch,
    encode_close,
    encode_marker,
    encode_skip,
    message_header,
)
from stream_jobs.bridge.partition import END, Held, Lost, PartitionBridge, Refused, Ticket

EPOCH = (200_000_000 << 32) | 7
DEVICE = "pump-1"
NOW_MS = 1_800_000_000_000


def _bridge() -> PartitionBridge:
    return PartitionBridge(PartitionFold(0, first_table(1).partitions))


def _batch(seq: int, device: str = DEVICE, epoch: int = EPOCH) -> Header:
    return message_header(encode_batch(b"x", device=device, epoch=epoch, seq=seq, rows=1, stream="readings"))


def _close(seq_last: int) -> Header:
    return message_header(encode_close(device=DEVICE, epoch=EPOCH, seq_last=seq_last))


def _take(bridge: PartitionBridge, header: Header) -> Ticket:
    found = bridge.receive(header)
    assert isinstance(found, Ticket), found
    return found


def _durable(bridge: PartitionBridge, *seqs: int, append_time_ms: int = NOW_MS) -> None:
    for seq in seqs:
        ticket = _take(bridge, _batch(seq))
        assert bridge.read_to(bridge.fold.next_offset, append_time_ms) is None
        bridge.settle(ticket, bridge.fold.next_offset, append_time_ms)


def test_batches_are_taken_in_order_ahead_of_their_confirmation() -> None:
    """What continues the predicted position is taken; the watermark rises only when the log has it."""
    bridge = _bridge()
    tickets = [_take(bridge, _batch(seq)) for seq in (1, 2, 3)]
    assert bridge.watermark(DEVICE, EPOCH) == 0
    bridge.settle(tickets[0], 0, NOW_MS)
    assert bridge.watermark(DEVICE, EPOCH) == 1
    assert bridge.progressed == {(DEVICE, EPOCH)}


def test_what_is_under_way_or_durable_is_a_duplicate() -> None:
    """At or below the predicted position nothing is appended again."""
    bridge = _bridge()
    ticket = _take(bridge, _batch(1))
    assert bridge.receive(_batch(1)) is Refused.DUPLICATE
    bridge.settle(ticket, 0, NOW_MS)
    assert bridge.receive(_batch(1)) is Refused.DUPLICATE


def test_a_gap_is_refused() -> None:
    """Above predicted + 1 nothing is appended."""
    assert _bridge().receive(_batch(2)) is Refused.GAP


def test_a_skip_record_that_covers_the_next_seq_is_taken() -> None:
    """A skip may begin below the position, as long as it covers the seq that comes next."""
    bridge = _bridge()
    _durable(bridge, 1, 2)
    skip = message_header(encode_skip(device=DEVICE, epoch=EPOCH, seq_first=2, seq_last=5, reason=Reason.DROPPED))
    ticket = _take(bridge, skip)
    bridge.settle(ticket, 2, NOW_MS)
    assert bridge.watermark(DEVICE, EPOCH) == 5


def test_a_failed_append_sets_the_position_back() -> None:
    """After a failure the device has to start again from what is durable; later seqs are gaps until then."""
    bridge = _bridge()
    _durable(bridge, 1)
    second, third = _take(bridge, _batch(2)), _take(bridge, _batch(3))
    bridge.fail(second)
    assert bridge.receive(_batch(4)) is Refused.GAP
    again = _take(bridge, _batch(2))
    bridge.fail(third)
    assert _take(bridge, _batch(3)), "a failure from before the restart does not set the position back again"
    bridge.settle(again, 1, NOW_MS)
    assert bridge.watermark(DEVICE, EPOCH) == 2


def test_a_record_the_fold_does_not_count_sets_the_position_back() -> None:
    """An append that landed behind a lost one is a gap in the log: the prediction goes back to the fold."""
    bridge = _bridge()
    _take(bridge, _batch(1))  # never lands, and nobody has said so yet
    second = _take(bridge, _batch(2))
    bridge.settle(second, 0, NOW_MS)
    assert bridge.watermark(DEVICE, EPOCH) == 0
    assert isinstance(bridge.receive(_batch(1)), Ticket)


def test_contiguous_answers_need_no_reading() -> None:
    """Offset = next offset: folded from what is known."""
    bridge = _bridge()
    assert bridge.read_to(0, NOW_MS) is None


def test_a_gap_in_offsets_is_read_first() -> None:
    """Records of others up to and including the answer's offset."""
    assert _bridge().read_to(4, NOW_MS) == 5


def test_an_answer_without_offset_or_stamp_is_read_back() -> None:
    """Without an offset the log is read to its end, without an append time up to the record itself."""
    assert _bridge().read_to(-1, -1) == END
    assert _bridge().read_to(0, -1) == 1


def test_an_answer_below_the_expected_offset_is_suspicious() -> None:
    """Unless it was covered by reading back, it means that somebody else is there: read to the end."""
    bridge = _bridge()
    _durable(bridge, 1, 2)
    assert bridge.read_to(1, NOW_MS) == END
    bridge.fold_read(2, NOW_MS, _batch(3))
    assert bridge.read_to(2, NOW_MS) is None


def test_records_read_back_are_folded_and_settle_what_they_cover() -> None:
    """Another bridge's batches and the own one between them count in the order of the log."""
    bridge = _bridge()
    own = _take(bridge, _batch(1))
    for offset, seq in enumerate((1, 1, 2)):
        bridge.fold_read(offset, NOW_MS, _batch(seq))
    bridge.settle(own, 1, NOW_MS)
    assert bridge.watermark(DEVICE, EPOCH) == 2
    assert isinstance(bridge.receive(_batch(3)), Ticket)


def test_another_bridge_that_went_on_is_followed() -> None:
    """With an own append still under way, a device that follows the other bridge is not refused."""
    bridge = _bridge()
    _take(bridge, _batch(1))
    for offset, seq in enumerate((1, 2, 3)):
        bridge.fold_read(offset, NOW_MS, _batch(seq))
    assert isinstance(bridge.receive(_batch(4)), Ticket)


def test_after_out_nothing_is_taken() -> None:
    """Schedule "checkpoint without OUT": a fold that has OUT accepts and answers nothing for the shard."""
    bridge = _bridge()
    _durable(bridge, 1)
    bridge.fold_read(1, NOW_MS, message_header(encode_marker(Kind.OUT, shard=shard_of(DEVICE), table_number=2)))
    again = PartitionBridge(PartitionFold.from_bytes(bridge.fold.to_bytes()))
    assert again.receive(_batch(2)) is Refused.VOID


def test_a_hello_is_answered_when_the_next_seq_is_held() -> None:
    """First held = watermark + 1, or below: nothing is missing."""
    bridge = _bridge()
    _durable(bridge, 1, 2)
    for first in (1, 2, 3):
        assert bridge.hello(DEVICE, HeldEpoch(EPOCH, first, True), at_end=False) is Held.ANSWER


def test_missing_seqs_are_lost_only_after_reading_to_the_end() -> None:
    """First read what others appended; then a skip record `lost` for what nobody has, and the position follows."""
    bridge = _bridge()
    _durable(bridge, 1)
    held = HeldEpoch(EPOCH, 5, True)
    assert bridge.hello(DEVICE, held, at_end=False) is Held.READ
    found = bridge.hello(DEVICE, held, at_end=True)
    assert isinstance(found, Lost)
    header = message_header(found.message)
    assert (header.reason, header.seq_first, header.seq_last) == (Reason.LOST, 2, 4)
    assert isinstance(bridge.receive(_batch(5)), Ticket)
    assert bridge.hello(DEVICE, held, at_end=True) is Held.WAIT, "the record is under way: do not write it twice"


def test_a_peer_never_causes_lost() -> None:
    """Only the epoch's maker may."""
    bridge = _bridge()
    assert bridge.hello(DEVICE, HeldEpoch(EPOCH, 5, False), at_end=True) is Held.ANSWER


def test_a_close_is_appended_once_everything_before_it_is() -> None:
    """It names the last seq; with that under way or durable it is taken, once."""
    bridge = _bridge()
    assert bridge.receive(_close(1)) is Refused.GAP
    _durable(bridge, 1)
    ticket = _take(bridge, _close(1))
    assert bridge.receive(_close(1)) is Refused.DUPLICATE
    bridge.settle(ticket, 1, NOW_MS)
    assert bridge.receive(_close(1)) is Refused.DUPLICATE
    assert isinstance(bridge.receive(_batch(2)), Ticket), "schedule `clone closes`: the original goes on"


def _forgotten() -> tuple[PartitionBridge, int]:
    """A bridge whose fold has forgotten EPOCH, and the append time of what comes now."""
    bridge = _bridge()
    closed_ms = epoch_created_s(EPOCH) * 1000 + 1000
    _durable(bridge, 1, append_time_ms=closed_ms)
    bridge.settle(_take(bridge, _close(1)), 1, closed_ms)
    later_ms = closed_ms + limits.EPOCH_FORGET_AFTER_S * 1000
    other = EPOCH + (1 << 32)
    bridge.settle(_take(bridge, _batch(1, epoch=other)), 2, later_ms)
    assert bridge.fold.forgotten(DEVICE, EPOCH)
    return bridge, later_ms


def test_a_forgotten_epoch_can_be_drained() -> None:
    """Schedule "thirty days later": appended in order from the hello's first seq, answered when in the log."""
    bridge, later_ms = _forgotten()
    bridge.progressed.clear()
    assert bridge.receive(_batch(4)) is Refused.GAP
    assert bridge.hello(DEVICE, HeldEpoch(EPOCH, 4, True), at_end=False) is Held.ANSWER
    assert bridge.watermark(DEVICE, EPOCH) == 3
    first, second = _take(bridge, _batch(4)), _take(bridge, _batch(5))
    assert bridge.watermark(DEVICE, EPOCH) == 3
    bridge.settle(first, bridge.fold.next_offset, later_ms)
    bridge.settle(second, bridge.fold.next_offset, later_ms)
    assert bridge.watermark(DEVICE, EPOCH) == 5
    assert bridge.progressed == {(DEVICE, EPOCH)}
    assert bridge.fold.watermark(DEVICE, EPOCH) == 0, "the fold keeps nothing of it"


def test_an_epoch_that_is_forgotten_by_its_own_next_batch_can_be_drained() -> None:
    """The fold forgets before a device's record: the batch that triggers it is expired, and still answered."""
    bridge = _bridge()
    closed_ms = epoch_created_s(EPOCH) * 1000 + 1000
    _durable(bridge, 1, append_time_ms=closed_ms)
    bridge.settle(_take(bridge, _close(1)), 1, closed_ms)
    ticket = _take(bridge, _batch(2))
    bridge.settle(ticket, 2, closed_ms + limits.EPOCH_FORGET_AFTER_S * 1000)
    assert bridge.fold.forgotten(DEVICE, EPOCH)
    assert bridge.watermark(DEVICE, EPOCH) == 2


def test_tickets_of_an_earlier_state_are_harmless() -> None:
    """After loading the state again, answers of appends from before settle without a trace in the prediction."""
    old = _bridge()
    ticket = _take(old, _batch(1))
    new = PartitionBridge(PartitionFold.from_bytes(old.fold.to_bytes()))
    new.settle(ticket, 0, NOW_MS)
    new.fail(ticket)
    assert new.watermark(DEVICE, EPOCH) == 1
