"""The embedded broker's outbox and topic cache, without a network."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from deploy.mqtt_delivery import Outbox, TopicCache, matches, publish_head
from deploy.mqtt_settings import MqttSettings

T = TypeVar("T")
TOPIC = b"\x00\x01t"


class Stream:
    """A writing side that keeps what it is given; `buffered` bytes wait until the test lets them go."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.buffered = 0
        self.drained = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Keep a packet."""
        self.packets.append(data)

    def waiting(self) -> int:
        """What the test says."""
        return self.buffered

    async def drain(self) -> None:
        """Wait for the test."""
        await self.drained.wait()


class Time:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run with a deadline."""

    async def bounded() -> T:
        async with asyncio.timeout(10):
            return await coroutine

    return asyncio.run(bounded())


def packet_ids(stream: Stream) -> list[int]:
    """Packet ids of QoS 1 packets with a topic of one letter and a short payload."""
    return [int.from_bytes(packet[5:7], "big") for packet in stream.packets]


@pytest.mark.parametrize(
    ("topic", "topic_filter", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/+", True),
        ("a", "a/+", False),
        ("a/", "a/+", True),
        ("a/b/c", "a/+", False),
        ("a", "a/#", True),
        ("a/b/c", "a/#", True),
        ("ab", "a/#", False),
        ("/a", "+/a", True),
        ("$SYS/x", "#", False),
        ("$SYS/x", "+/x", False),
        ("$SYS/x", "$SYS/#", True),
        ("a/b", "b/a", False),
    ],
)
def test_matching_follows_the_standard(topic: str, topic_filter: str, expected: bool) -> None:
    """The examples of MQTT 3.1.1 section 4.7 and the cases around them."""
    assert matches(topic, topic_filter) is expected


@pytest.mark.parametrize(
    ("payload_bytes", "expected"),
    [(0, b"\x32\x05\x00\x01t\x00\x07"), (122, b"\x32\x7f\x00\x01t\x00\x07"), (123, b"\x32\x80\x01\x00\x01t\x00\x07")],
)
def test_the_head_of_a_publish_packet(payload_bytes: int, expected: bytes) -> None:
    """The remaining length changes to two bytes at 128 (MQTT 3.1.1 section 2.2.3)."""
    assert publish_head(TOPIC, payload_bytes, 1, 7, False) == expected


def test_a_head_of_qos_0_has_no_packet_id_and_retain_is_a_flag() -> None:
    """QoS 0 and retained: first byte 0x31, then length and topic only."""
    assert publish_head(TOPIC, 1, 0, 0, True) == b"\x31\x04\x00\x01t"


def test_each_subscriber_comes_once_with_its_greatest_qos() -> None:
    """Overlapping filters of one subscriber are one delivery."""
    cache: TopicCache[str] = TopicCache()
    one, two = "one", "two"
    found = cache.subscribers("a/b", {"a/+": [(one, 0), (two, 1)], "#": [(one, 1)], "c": [(two, 1)]})
    assert sorted(found) == [("one", 1), ("two", 1)]


def test_the_cache_answers_as_before_until_it_is_cleared() -> None:
    """A subscription that appears is seen after `clear`."""
    cache: TopicCache[str] = TopicCache()
    assert cache.subscribers("a", {}) == ()
    assert cache.subscribers("a", {"a": [("one", 1)]}) == ()
    cache.clear()
    assert cache.subscribers("a", {"a": [("one", 1)]}) == (("one", 1),)


def test_a_subscriber_that_keeps_up_gets_messages_at_once() -> None:
    """Nothing waits while few are in flight and the connection takes what it is given."""

    async def story() -> None:
        stream = Stream()
        outbox = Outbox(stream, MqttSettings(), Time())
        for number in range(3):
            outbox.offer(TOPIC, bytes([number]), 1)
        assert packet_ids(stream) == [1, 2, 3]
        assert (outbox.bytes, outbox.sent) == (0, 3)

    run(story())


def test_messages_beyond_the_window_wait_for_acknowledgements_in_order() -> None:
    """With two in flight the third waits until one is acknowledged; QoS 0 keeps its place in the line."""

    async def story() -> None:
        stream = Stream()
        outbox = Outbox(stream, MqttSettings(in_flight_max=2), Time())
        sender = asyncio.ensure_future(outbox.run())
        for number in range(4):
            outbox.offer(TOPIC, bytes([number]), 0 if number == 3 else 1)
        await asyncio.sleep(0)
        assert [packet[-1] for packet in stream.packets] == [0, 1]
        outbox.acknowledged(99)
        outbox.acknowledged(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [packet[-1] for packet in stream.packets] == [0, 1, 2, 3]
        outbox.close()
        await sender

    run(story())


def test_packet_ids_skip_those_in_flight_when_they_come_round() -> None:
    """After 65535 comes 1, unless 1 is still unacknowledged; 0 is never used."""

    async def story() -> None:
        stream = Stream()
        outbox = Outbox(stream, MqttSettings(), Time())
        outbox.offer(TOPIC, b"x", 1)
        for packet_id in range(2, 65536):
            outbox.offer(TOPIC, b"x", 1)
            outbox.acknowledged(packet_id)
        outbox.offer(TOPIC, b"x", 1)
        assert packet_ids(stream)[-2:] == [65535, 2]

    run(story())


def test_a_full_outbox_lets_its_publisher_on_when_there_is_room() -> None:
    """`space` returns true as soon as what waited has gone out."""

    async def story() -> None:
        stream = Stream()
        outbox = Outbox(stream, MqttSettings(in_flight_max=1, queue_messages_max=1), Time())
        sender = asyncio.ensure_future(outbox.run())
        outbox.offer(TOPIC, b"1", 1)
        outbox.offer(TOPIC, b"2", 1)
        assert outbox.full
        publisher = asyncio.ensure_future(outbox.space())
        await asyncio.sleep(0)
        assert not publisher.done()
        outbox.acknowledged(1)
        assert await publisher
        assert not outbox.full
        outbox.close()
        await sender

    run(story())


def test_the_bound_is_in_bytes_too() -> None:
    """An outbox with 64 KiB waiting is full."""

    async def story() -> None:
        stream = Stream()
        stream.buffered = 1 << 20
        outbox = Outbox(stream, MqttSettings(queue_bytes_max=65536), Time())
        outbox.offer(TOPIC, bytes(65535), 1)
        assert not outbox.full
        outbox.offer(TOPIC, bytes(1), 1)
        assert outbox.full
        assert outbox.bytes == 65536

    run(story())


def test_a_subscriber_that_takes_nothing_in_time_is_given_up() -> None:
    """`space` returns false once `stall_timeout_s` has passed since the last progress, not since long before."""

    async def story() -> None:
        stream, clock = Stream(), Time()
        outbox = Outbox(stream, MqttSettings(in_flight_max=1, queue_messages_max=1, stall_timeout_s=5), clock)
        outbox.offer(TOPIC, b"1", 1)
        clock.now = 1000.0
        outbox.offer(TOPIC, b"2", 1)
        waiting = asyncio.ensure_future(outbox.space())
        await asyncio.sleep(0)
        assert not waiting.done(), "time spent idle does not count"
        waiting.cancel()
        clock.now = 1005.0
        assert await outbox.space() is False

    run(story())


def test_closing_frees_what_waits_and_everybody_who_waits() -> None:
    """After `close` a waiting publisher goes on, nothing is held, and further messages are ignored."""

    async def story() -> None:
        stream = Stream()
        outbox = Outbox(stream, MqttSettings(in_flight_max=1, queue_messages_max=1), Time())
        sender = asyncio.ensure_future(outbox.run())
        outbox.offer(TOPIC, b"1", 1)
        outbox.offer(TOPIC, b"2", 1)
        publisher = asyncio.ensure_future(outbox.space())
        await asyncio.sleep(0)
        outbox.close()
        assert await publisher
        await sender
        outbox.offer(TOPIC, b"3", 1)
        assert (outbox.bytes, len(stream.packets)) == (0, 1)

    run(story())
