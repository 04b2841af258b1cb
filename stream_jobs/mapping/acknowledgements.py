"""Which messages of one MQTT session may be acknowledged, in the order in which they came (MQTT 3.1.1, 4.6).

A message is acknowledged when everything that became of it is durable. When the connection breaks, the broker sends
what was not acknowledged again, under the same packet id and marked as a duplicate: where its rows are still on their
way (or durable since) it is recognised and not taken a second time.

**Delivery**: at least once; twice only where this process ends, or the broker forgets the session, in between.
**Bounds**: 65,535 packet ids; the broker has its own, smaller limit.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator

__all__ = ["Acknowledgements", "Taken"]


class Taken:
    """One message taken: `left` counts what has to become durable before it may be acknowledged."""

    __slots__ = ("digest", "left", "packet_id")

    def __init__(self, packet_id: int, digest: int) -> None:
        self.packet_id = packet_id
        self.digest = digest
        self.left = 1


class Acknowledgements:
    """Of one session."""

    def __init__(self) -> None:
        self._held: dict[int, Taken] = {}
        self._order: deque[Taken] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def connected(self, session_present: bool) -> None:
        """A new connection: what was not acknowledged comes again, unless the broker has forgotten it."""
        self._order.clear()
        if not session_present:
            self._held.clear()

    def arrived(self, packet_id: int, qos: int, duplicate: bool, topic: str, payload: bytes) -> Taken | None:
        """A message to take; None: it was taken before, and waits for its acknowledgement as it did."""
        if qos == 0:
            return Taken(0, 0)
        digest = zlib.crc32(payload, zlib.crc32(topic.encode("utf-8", "surrogateescape")))
        held = self._held.get(packet_id)
        if duplicate and held is not None and held.digest == digest:
            self._order.append(held)
            return None
        taken = self._held[packet_id] = Taken(packet_id, digest)
        self._order.append(taken)
        return taken

    def ready(self) -> Iterator[int]:
        """The packet ids to acknowledge now."""
        while self._order and self._order[0].left <= 0:
            taken = self._order.popleft()
            if self._held.get(taken.packet_id) is taken:
                del self._held[taken.packet_id]
            yield taken.packet_id
