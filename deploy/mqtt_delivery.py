"""What waits for one MQTT subscriber, and which subscribers a topic has: the embedded broker's memory, bounded.

A publisher's message is written straight to a subscriber that keeps up. One that does not has an outbox; at its bound
the publishers are not read any further, so that TCP holds them back, all the way to a device's spool. A subscriber that
takes nothing for `stall_timeout_s` while its outbox is full is cut off, so one sleeping client stops nobody for long.

**Delivery**: in the order received from each publisher. What waits for a subscriber is lost with its connection: the
watermark protocol sends it again. **Bounds**: messages and bytes of each outbox, messages in flight, cached topics.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar

from .mqtt_settings import MqttSettings

__all__ = ["Outbox", "TopicCache", "matches", "publish_head"]

_WRITE_BUFFER_BYTES = 256 * 1024
_PACKET_IDS = 65535
_CACHED_TOPICS_MAX = 20_000

T = TypeVar("T")


class Stream(Protocol):
    """The writing side of a connection."""

    def write(self, data: bytes) -> None:
        """Take bytes to send."""
        ...

    def waiting(self) -> int:
        """Bytes taken and not yet given to the system."""
        ...

    async def drain(self) -> None:
        """Wait until few bytes wait."""
        ...


def publish_head(topic: bytes, payload_bytes: int, qos: int, packet_id: int, retain: bool) -> bytes:
    """All of an MQTT 3.1.1 PUBLISH before its payload (section 3.3); `topic` with its two bytes of length."""
    length = len(topic) + payload_bytes + (2 if qos else 0)
    head = bytearray([0x30 | qos << 1 | retain])
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    head += topic
    if qos:
        head += packet_id.to_bytes(2, "big")
    return bytes(head)


def matches(topic: str, topic_filter: str) -> bool:
    """Whether a topic matches a filter (MQTT 3.1.1 section 4.7); leading wildcards match no topic with a leading $."""
    if "+" not in topic_filter and "#" not in topic_filter:
        return topic_filter == topic
    if topic.startswith("$") and topic_filter[:1] in "+#":
        return False
    levels, filters = topic.split("/"), topic_filter.split("/")
    for at, wanted in enumerate(filters):
        if wanted == "#":
            return True
        if at >= len(levels) or wanted not in ("+", levels[at]):
            return False
    return len(levels) == len(filters)


class TopicCache(Generic[T]):
    """Topic -> those subscribed, remembered until any subscription changes. `T` is whatever stands for a subscriber."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[tuple[T, int], ...]] = {}

    def clear(self) -> None:
        """Call when a subscription was added or removed."""
        self._found.clear()

    def subscribers(
        self, topic: str, subscriptions: Mapping[str, Iterable[tuple[T, int]]]
    ) -> tuple[tuple[T, int], ...]:
        """Each subscriber once, with the greatest QoS among its filters that match `topic`."""
        found = self._found.get(topic)
        if found is None:
            greatest: dict[int, tuple[T, int]] = {}
            for topic_filter, subscribed in subscriptions.items():
                if matches(topic, topic_filter):
                    for one, qos in subscribed:
                        known = greatest.get(id(one))
                        if known is None or known[1] < qos:
                            greatest[id(one)] = (one, qos)
            if len(self._found) >= _CACHED_TOPICS_MAX:
                self._found.clear()
            found = self._found[topic] = tuple(greatest.values())
        return found


class Outbox:
    """Messages for one subscriber: those in flight (their packet ids) and those that wait."""

    def __init__(self, stream: Stream, settings: MqttSettings, now: Callable[[], float]) -> None:
        self._stream = stream
        self._settings = settings
        self._now = now
        self._waiting: deque[tuple[bytes, bytes | memoryview, int, bool]] = deque()
        self._in_flight: set[int] = set()
        self._packet_id = 0
        self._progress_at = now()
        self._wake = asyncio.Event()
        self._space = asyncio.Event()
        self.closed = False
        self.bytes = 0
        self.sent = 0

    @property
    def full(self) -> bool:
        """Whether a publisher has to wait before `offer`."""
        return self.bytes >= self._settings.queue_bytes_max or len(self._waiting) >= self._settings.queue_messages_max

    def offer(self, topic: bytes, payload: bytes | memoryview, qos: int, retain: bool = False) -> None:
        """Send now when the subscriber keeps up, else put it in line. Ask `full` first. When closed: nothing."""
        if self.closed:
            return
        if not self._waiting and self._may_send(qos) and self._stream.waiting() < _WRITE_BUFFER_BYTES:
            self._send(topic, payload, qos, retain)
            return
        if not self._waiting:
            self._progress_at = self._now()
        self._waiting.append((topic, payload, qos, retain))
        self.bytes += len(payload)
        self._wake.set()

    def acknowledged(self, packet_id: int) -> None:
        """The subscriber has acknowledged a message; unknown ids are ignored, as MQTT wants."""
        self._in_flight.discard(packet_id)
        if self._waiting:
            self._progress_at = self._now()
            self._wake.set()

    async def space(self) -> bool:
        """Wait until there is room. False when the subscriber took nothing for `stall_timeout_s`: cut it off."""
        while self.full and not self.closed:
            remaining = self._progress_at + self._settings.stall_timeout_s - self._now()
            if remaining <= 0:
                return False
            self._space.clear()
            try:
                async with asyncio.timeout(remaining):
                    await self._space.wait()
            except TimeoutError:
                continue
        return True

    def close(self) -> None:
        """Forget everything, and let every waiting publisher go on."""
        self.closed = True
        self._waiting.clear()
        self._in_flight.clear()
        self.bytes = 0
        self._space.set()
        self._wake.set()

    async def run(self) -> None:
        """Send what waits, as the subscriber takes it; ends when closed. Raises OSError when the connection is gone."""
        while not self.closed:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting and self._may_send(self._waiting[0][2]):
                topic, payload, qos, retain = self._waiting.popleft()
                self.bytes -= len(payload)
                self._send(topic, payload, qos, retain)
                self._progress_at = self._now()
                if not self.full:
                    self._space.set()
                if self._stream.waiting() >= _WRITE_BUFFER_BYTES:
                    await self._stream.drain()
                    self._progress_at = self._now()

    def _may_send(self, qos: int) -> bool:
        return qos == 0 or len(self._in_flight) < self._settings.in_flight_max

    def _send(self, topic: bytes, payload: bytes | memoryview, qos: int, retain: bool) -> None:
        packet_id = 0
        if qos:
            packet_id = self._packet_id % _PACKET_IDS + 1
            while packet_id in self._in_flight:
                packet_id = packet_id % _PACKET_IDS + 1
            self._packet_id = packet_id
            self._in_flight.add(packet_id)
        self.sent += 1
        self._stream.write(b"".join((publish_head(topic, len(payload), qos, packet_id, retain), payload)))
