"""What waits for functions: MQTT messages and rows of other functions, on their way to a function's process.

The network thread of MQTT puts messages in, the main thread takes them out; neither ever waits for a function.

**Delivery**: at most once: nothing here survives the agent, and what a process had in hand when it ended is gone.
**Bounds**: for each function MESSAGES_MAX things of WAITING_BYTES_MAX together; then the oldest is dropped, counted
as missed. A message over MESSAGE_BYTES_MAX is not taken, counted likewise.
"""

from __future__ import annotations

import threading
from collections import deque

from edge_agent.contract import limits

from .frames import Deliver, Rows
from .topic_filter import matches

__all__ = ["MESSAGE_BYTES_MAX", "Mailbox", "Mailboxes"]

MESSAGES_MAX = 1000
WAITING_BYTES_MAX = 8 * limits.MIB
MESSAGE_BYTES_MAX = 1 * limits.MIB

assert WAITING_BYTES_MAX > limits.BODY_RAW_BYTES_MAX > MESSAGE_BYTES_MAX


def _size(thing: Deliver | Rows) -> int:
    return len(thing.body) if isinstance(thing, Rows) else len(thing.topic) + len(thing.payload)


class Mailbox:
    """What waits for one function, oldest first."""

    def __init__(self) -> None:
        self._things: deque[Deliver | Rows] = deque()
        self._bytes = 0
        self.missed = 0

    def __len__(self) -> int:
        return len(self._things)

    def put(self, thing: Deliver | Rows) -> None:
        """Let `thing` wait; the oldest are dropped where there is no room."""
        self._things.append(thing)
        self._bytes += _size(thing)
        while len(self._things) > MESSAGES_MAX or self._bytes > WAITING_BYTES_MAX:
            self._bytes -= _size(self._things.popleft())
            self.missed += 1

    def take(self) -> Deliver | Rows | None:
        """The oldest, or None."""
        if not self._things:
            return None
        thing = self._things.popleft()
        self._bytes -= _size(thing)
        return thing


class Mailboxes:
    """The mailboxes of all functions that wait for messages or rows, by function name; for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._topics: dict[str, tuple[str, Mailbox]] = {}
        self._streams: dict[str, tuple[str, Mailbox]] = {}

    def open(self, function: str, *, topic: str = "", reads: str = "") -> Mailbox:
        """The mailbox of `function`, which from now on takes messages on the filter `topic`, or rows of `reads`."""
        with self._lock:
            known = self._topics.get(function) or self._streams.get(function)
            mailbox = Mailbox() if known is None else known[1]
            for places, what in ((self._topics, topic), (self._streams, reads)):
                places.pop(function, None)
                if what:
                    places[function] = what, mailbox
            return mailbox

    @property
    def filters(self) -> tuple[str, ...]:
        """The topic filters that functions wait for."""
        with self._lock:
            return tuple(dict.fromkeys(topic for topic, _ in self._topics.values()))

    def reads(self, stream: str) -> bool:
        """Whether some function reads `stream`."""
        return any(reads == stream for reads, _ in tuple(self._streams.values()))

    def message(self, message: Deliver) -> bool:
        """Let a message wait for each function that wants it; whether there is one. For the network thread."""
        wanted = False
        with self._lock:
            for topic_filter, mailbox in self._topics.values():
                if matches(topic_filter, message.topic):
                    wanted = True
                    if len(message.payload) > MESSAGE_BYTES_MAX:
                        mailbox.missed += 1
                    else:
                        mailbox.put(message)
        return wanted

    def rows(self, rows: Rows) -> None:
        """Let an accepted batch wait for each function that reads its stream."""
        with self._lock:
            for reads, mailbox in self._streams.values():
                if reads == rows.stream:
                    mailbox.put(rows)

    def take(self, mailbox: Mailbox) -> Deliver | Rows | None:
        """The oldest thing in `mailbox`, or None."""
        with self._lock:
            return mailbox.take()
