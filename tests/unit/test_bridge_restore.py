"""Checkpoints and taking up a partition, on a model of the log."""

from __future__ import annotations

import pytest

from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import DecodeError, LimitError, StopError
from edge_agent.contract.fold import PartitionFold
from edge_agent.contract.tables import first_table
from edge_agent.contract.topics import LOG_BATCHES, LOG_CHECKPOINTS
from edge_agent.contract.wire import encode_batch
from stream_jobs.bridge.checkpoints import Checkpoint, Kept, decode_checkpoint, encode_checkpoint, highest
from stream_jobs.bridge.restore import header_of, restore
from tests.kit.bridge_model import ModelClient, ModelLog

EPOCH = (200_000_000 << 32) | 7
TABLE = first_table(1)


def _log(batches: int) -> ModelLog:
    log = ModelLog(ManualClock())
    for seq in range(1, batches + 1):
        log.append(LOG_BATCHES, b"a", encode_batch(b"x", device="a", epoch=EPOCH, seq=seq, rows=1, stream="readings"))
    return log


def _fold(log: ModelLog, until: int) -> PartitionFold:
    fold = PartitionFold(0, TABLE.partitions)
    for record in log.records[LOG_BATCHES][:until]:
        fold.apply(record.offset, record.append_time_ms, header_of(record.value)[0])
    return fold


def _checkpoint(log: ModelLog, until: int, topic_id: str = "topic-1") -> None:
    log.append(LOG_CHECKPOINTS, None, encode_checkpoint(topic_id, _fold(log, until)))


def test_without_a_checkpoint_the_log_is_folded_from_its_start() -> None:
    """All records, from offset 0."""
    log = _log(5)
    found = restore(ModelClient(log), 0, TABLE)
    assert (found.fold.watermark("a", EPOCH), found.records_read, found.alarms) == (5, 5, ())


def test_the_highest_checkpoint_counts_not_the_last_written() -> None:
    """A paused bridge writes an old one late: it is passed over."""
    log = _log(5)
    _checkpoint(log, 4)
    _checkpoint(log, 2)
    found = restore(ModelClient(log), 0, TABLE)
    assert found.records_read == 1
    assert found.fold.to_bytes() == _fold(log, 5).to_bytes()


def test_records_that_are_deleted_and_not_covered_stop_the_bridge() -> None:
    """It says which are missing."""
    log = _log(5)
    log.delete_before(LOG_BATCHES, 3)
    with pytest.raises(StopError, match="records 0 to 2 are deleted"):
        restore(ModelClient(log), 0, TABLE)
    _checkpoint(log, 2)
    with pytest.raises(StopError, match="records 2 to 2 are deleted"):
        restore(ModelClient(log), 0, TABLE)
    _checkpoint(log, 3)
    assert restore(ModelClient(log), 0, TABLE).fold.next_offset == 5


def test_a_rewound_log_is_reported_and_folded_as_it_is() -> None:
    """A checkpoint above the log's end is of another history: alarm, and it has to be replaced."""
    log = _log(5)
    _checkpoint(log, 2)
    _checkpoint(log, 5)
    del log.records[LOG_BATCHES][3:]
    found = restore(ModelClient(log), 0, TABLE)
    assert found.fold.next_offset == 3
    assert "rewound" in found.alarms[0]
    assert found.replace


def test_a_topic_made_anew_is_reported_and_folded_as_it_is() -> None:
    """A checkpoint of another topic id does not count, however high it is."""
    log = _log(5)
    _checkpoint(log, 5, topic_id="topic-0")
    found = restore(ModelClient(log), 0, TABLE)
    assert found.fold.next_offset == 5
    assert found.records_read == 5
    assert "made anew" in found.alarms[0]
    assert found.replace


def test_a_damaged_checkpoint_is_reported_and_passed_over() -> None:
    """An unreadable record in the checkpoint topic is an alarm, not an end."""
    log = _log(3)
    _checkpoint(log, 2)
    log.append(LOG_CHECKPOINTS, None, b"nonsense")
    found = restore(ModelClient(log), 0, TABLE)
    assert found.records_read == 1
    assert "not a checkpoint" in found.alarms[0]


def test_a_checkpoint_of_another_place_stops_the_bridge() -> None:
    """Its fold says another partition than the record does."""
    log = _log(1)
    fold = PartitionFold(3, first_table(4).partitions)
    log.append(LOG_CHECKPOINTS, None, encode_checkpoint("topic-1", fold))
    with pytest.raises(StopError, match="another place"):
        restore(ModelClient(log), 0, TABLE)


def test_of_equal_checkpoints_the_first_counts() -> None:
    """Two bridges at the same offset: whichever position, nothing below it is needed."""
    kept = [Kept(position, Checkpoint(1, "t", 7, b"")) for position in (3, 4)]
    found = highest(kept, "t", 100)
    assert found is not None
    assert found.position == 3
    assert highest(kept, "t", 6) is None


def test_a_checkpoint_survives_its_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded and decoded it is the same; damaged, of another version or too large it is refused."""
    fold = _fold(_log(3), 3)
    data = encode_checkpoint("t", fold)
    found = decode_checkpoint(data)
    assert (found.topic_id, found.offset, found.state) == ("t", 3, fold.to_bytes())
    with pytest.raises(DecodeError):
        decode_checkpoint(data[:-1])
    with pytest.raises(DecodeError, match="version 9"):
        decode_checkpoint(b"\x94\x09\xa1t\x03\xc4\x00")
    monkeypatch.setattr("edge_agent.contract.limits.CHECKPOINT_BYTES_MAX", 10)
    with pytest.raises(LimitError):
        encode_checkpoint("t", fold)
