"""The bridge as a whole on a model of the log: named schedules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent.contract.errors import DecodeError, SettingsError
from edge_agent.contract.fold import PartitionFold
from edge_agent.contract.ring import shard_of
from edge_agent.contract.tables import first_table
from edge_agent.contract.topics import LOG_BATCHES, LOG_CHECKPOINTS, batch_topic, hello_topic
from edge_agent.contract.watermarks import decode_watermarks
from edge_agent.contract.wire import Kind, encode_marker
from stream_jobs.bridge.checkpoints import decode_checkpoint, encode_checkpoint
from stream_jobs.bridge.dead_letters import RATE_MAX, decode_dead_letter, encode_dead_letter
from stream_jobs.bridge.restore import header_of
from stream_jobs.bridge.service import BridgeService
from stream_jobs.bridge.settings import parse_shards
from stream_jobs.bridge.window import Window
from tests.kit.bridge_model import Device, World


@pytest.fixture
def world() -> Iterator[World]:
    """One bridge, one device, fair weather; the bridge has taken up its partition."""
    found = World(1, bridges=1, devices=1)
    found.faults = False
    found.turn(0)
    found.turn(0)
    yield found
    found.close()


def _bridge(world: World) -> BridgeService:
    bridge = world.bridges[0]
    assert bridge is not None
    return bridge


def _land(world: World) -> None:
    """Every append under way is answered, and the bridge has a turn."""
    producer = world.producers[0]
    assert producer is not None
    while producer.waiting:
        producer.land("ok")
    world.clock.advance(0.1)
    world.turn(0)


def _hello(world: World, device: Device) -> None:
    _bridge(world)._receive(hello_topic(device.name), device.connect())
    world.turn(0)
    _deliver(world)


def _deliver(world: World) -> None:
    for _, payload in world.to_devices:
        world.devices[0].answer(payload)
    world.to_devices.clear()


def _send(world: World, *seqs: int) -> None:
    device = world.devices[0]
    for seq in seqs:
        _bridge(world)._receive(batch_topic(device.name), device.message(seq))


def test_batches_reach_the_log_and_their_device_is_told(world: World) -> None:
    """Hello, batches in order, appends, watermark."""
    device = world.devices[0]
    device.accepted = 3
    _hello(world, device)
    _send(world, 1, 2, 3)
    _deliver(world)
    assert device.trimmed == 0
    _land(world)
    _deliver(world)
    assert device.trimmed == 3
    assert _bridge(world)._tally.durable_batches == 3
    assert [record.key for record in world.log.history] == [device.name.encode()] * 3


def test_schedule_gap_already_deleted(world: World) -> None:
    """A bridge that slept over OUT, its checkpoint and the deletion publishes nothing and loads its state again."""
    device = world.devices[0]
    device.accepted = 1
    _hello(world, device)
    out = encode_marker(Kind.OUT, shard=shard_of(device.name), table_number=2)
    world.log.append(LOG_BATCHES, None, out)
    fold = PartitionFold(0, first_table(1).partitions)
    fold.apply(0, 1, header_of(out)[0])
    world.log.append(LOG_CHECKPOINTS, None, encode_checkpoint(world.log.topic_id, fold))
    world.log.delete_before(LOG_BATCHES, 1)
    _send(world, 1)
    _land(world)
    world.turn(0)
    _land(world)
    _deliver(world)
    assert device.trimmed == 0, "the batch is void: trimming it would lose it"
    assert _bridge(world)._tally.reloads == 1
    assert _bridge(world)._tally.alarm_count == 1
    part = _bridge(world)._log_side.bridge(0)
    assert part is not None
    assert not part.fold.owns(device.name)


def test_an_older_checkpoint_does_not_remove_a_newer_one(world: World) -> None:
    """A late bridge deletes only below the highest checkpoint, which is not its own."""
    device = world.devices[0]
    device.accepted = 9
    _hello(world, device)
    _send(world, 1, 2)
    _land(world)
    newer = _bridge(world)._log_side.bridge(0)
    assert newer is not None
    fold = PartitionFold.from_bytes(newer.fold.to_bytes())
    for seq in (3, 4, 5):
        record = world.log.append(LOG_BATCHES, None, device.message(seq))
        fold.apply(record.offset, record.append_time_ms, header_of(record.value)[0])
    world.log.append(LOG_CHECKPOINTS, None, encode_checkpoint(world.log.topic_id, fold))
    world.clock.advance(1)
    world.turn(0)
    _land(world)
    start = world.log.start.get(LOG_CHECKPOINTS, 0)
    kept = [decode_checkpoint(record.value).offset for record in world.log.records[LOG_CHECKPOINTS][start:]]
    assert kept == [5, 2]


def test_a_restart_goes_on_from_the_checkpoint(world: World) -> None:
    """kill -9 with appends under way: the next one folds what is in the log and answers it."""
    device = world.devices[0]
    device.accepted = 8
    _hello(world, device)
    _send(world, *range(1, 7))
    _land(world)
    world.clock.advance(1)
    world.turn(0)
    _land(world)
    _send(world, 7, 8)
    world.kill(0)
    while world.zombies[0].waiting:
        world.zombies[0].land("ok")
    world.turn(0)
    world.turn(0)
    _hello(world, device)
    assert device.trimmed == 8
    assert _bridge(world)._tally.read_back == 0


def test_payloads_without_a_place_become_dead_letters(world: World) -> None:
    """Unreadable headers, another device's batch, markers from a device, and topics that are none."""
    device = world.devices[0]
    bad = [
        (batch_topic(device.name), b"nonsense"),
        (batch_topic("somebody-else"), device.message(1)),
        (batch_topic(device.name), encode_marker(Kind.OUT, shard=1, table_number=9)),
        (f"edgewater/batch/999/{device.name}", device.message(1)),
        (hello_topic(device.name), b"nonsense"),
    ]
    for topic, payload in bad:
        _bridge(world)._receive(topic, payload)
    _land(world)
    letters = [decode_dead_letter(record.value) for record in world.log.history]
    assert [(letter.topic, letter.payload) for letter in letters] == bad
    assert "somebody-else" in letters[1].reason
    assert _bridge(world)._tally.dead_letters == len(bad)
    assert all(header_of(record.value)[0] is None for record in world.log.history)
    world.check_now()


def test_dead_letters_are_folded_without_reading_them_back(world: World) -> None:
    """Thousands between batches: each answer takes the fold one further, so that no batch waits for a read-back."""
    device = world.devices[0]
    device.accepted = 20
    _hello(world, device)
    for seq in range(1, 21):
        for _ in range(40):
            _bridge(world)._receive(batch_topic(device.name), b"nonsense")
        _send(world, seq)
    _land(world)
    _deliver(world)
    assert device.trimmed == 20
    tally = _bridge(world)._tally
    assert (tally.dead_letters, tally.read_back) == (800, 0)
    part = _bridge(world)._log_side.bridge(0)
    assert part is not None
    assert part.fold.next_offset == 820
    world.check_now()


def test_dead_letters_among_records_of_another_bridge_are_read_with_them(world: World) -> None:
    """Nobody waits for a dead letter behind a hole; the next batch reads the hole once, and both are folded."""
    device = world.devices[0]
    device.accepted = 2
    _hello(world, device)
    world.log.append(LOG_BATCHES, None, b"of somebody else")
    _bridge(world)._receive(batch_topic(device.name), b"nonsense")
    _land(world)
    part = _bridge(world)._log_side.bridge(0)
    assert part is not None
    assert part.fold.next_offset == 0
    _send(world, 1)
    _land(world)
    _deliver(world)
    assert device.trimmed == 1
    assert part.fold.next_offset == 3
    assert _bridge(world)._tally.read_back == 3
    world.check_now()


def test_a_flood_of_nonsense_is_counted_and_bounded(world: World) -> None:
    """At most RATE_MAX a second reach the log; the rest is counted, with one alarm a minute."""
    bridge = _bridge(world)
    bridge._window._records_max = 10 * RATE_MAX
    topic = batch_topic(world.devices[0].name)
    for _ in range(RATE_MAX + 500):
        bridge._receive(topic, b"nonsense")
    assert len(world.producers[0].waiting) == RATE_MAX  # type: ignore[union-attr]
    world.clock.advance(0.5)
    for _ in range(RATE_MAX):
        bridge._receive(topic, b"nonsense")
    assert len(world.producers[0].waiting) == RATE_MAX + RATE_MAX // 2  # type: ignore[union-attr]
    assert bridge._tally.dead_letters_dropped == 1000
    assert bridge._tally.alarm_count == 1
    assert topic in bridge._tally.alarms[0][1]


def test_a_full_window_stops_reading_and_then_refuses(world: World) -> None:
    """In-flight bytes are bounded: first the receiver says so, a quarter above it drops."""
    bridge = _bridge(world)
    bridge._window._records_max = 16
    device = world.devices[0]
    room = [bridge._receive(batch_topic(device.name), device.message(seq)) for seq in range(1, 31)]
    assert room[:15] == [True] * 15
    assert not any(room[15:])
    assert bridge._tally.appended == 21
    assert bridge._tally.refused == 9


def test_gaps_are_answered_at_a_limited_rate(world: World) -> None:
    """The device is told the watermark, so that it goes back, but not for each message."""
    device = world.devices[0]
    device.accepted = 9
    _hello(world, device)
    for _ in range(3):
        _send(world, 5, 6)
        world.turn(0)
    assert len(world.to_devices) == 1
    assert decode_watermarks(world.to_devices[0][1]).watermarks == ((device.epoch, 0),)


def test_a_topic_made_anew_while_running_is_noticed(world: World) -> None:
    """With the next checkpoint: alarm, and the partition is taken up from what there is."""
    device = world.devices[0]
    device.accepted = 6
    _hello(world, device)
    _send(world, 1, 2, 3)
    _land(world)
    world.log.topic_id = "topic-2"
    world.log.records[LOG_BATCHES] = []
    world.clock.advance(1)
    for _ in range(3):
        world.turn(0)
        _land(world)
    tally = _bridge(world)._tally
    assert tally.reloads == 1
    assert "made anew" in tally.alarms[0][1]
    part = _bridge(world)._log_side.bridge(0)
    assert part is not None
    assert part.fold.next_offset == 0


def test_lost_seqs_are_recorded_and_reported(world: World) -> None:
    """A device that no longer has what the log lacks: one skip record, an alarm, and it goes on."""
    device = world.devices[0]
    device.accepted = 5
    device.lose(2)
    _hello(world, device)
    _send(world, 3, 4, 5)
    _land(world)
    _deliver(world)
    assert device.trimmed == 5
    assert _bridge(world)._tally.lost_records == 1
    assert "no longer has seqs 1 to 2" in _bridge(world)._tally.alarms[0][1]


@pytest.mark.parametrize("text", ["", "x", "0-256", "5-", "-1"])
def test_shards_that_are_none_are_refused(text: str) -> None:
    """The message shows what was written and what to write."""
    with pytest.raises(SettingsError, match="shards"):
        parse_shards(text)


def test_shards_are_numbers_and_ranges() -> None:
    """As in 0-2,7."""
    assert parse_shards("0-2, 7") == {0, 1, 2, 7}


def test_a_long_payload_is_cut_in_its_dead_letter() -> None:
    """The beginning is kept, and how long it was."""
    found = decode_dead_letter(encode_dead_letter(b"x" * 600_000, topic="t", reason="r", time_us=1))
    assert (len(found.payload), found.payload_bytes) == (512 * 1024, 600_000)
    with pytest.raises(DecodeError):
        decode_dead_letter(b"\x01")


def test_the_window_counts_what_is_under_way() -> None:
    """Bytes and records go up when an append starts and down when its answer is taken."""
    window = Window(100, 10)
    done: list[Any] = [window.started(LOG_BATCHES, 0, None, 60) for _ in range(2)]
    assert (window.bytes, window.room, window.overfull) == (120, False, False)
    window.started(LOG_BATCHES, 0, None, 6)
    assert window.overfull
    done[0](5, 6, None)
    assert [(answered.offset, answered.append_time_ms) for answered in window.take()] == [(5, 6)]
    assert (window.bytes, window.records, window.room) == (66, 2, True)
    window.close()
