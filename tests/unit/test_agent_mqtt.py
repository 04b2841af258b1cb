"""The agent's MQTT connection against a broker of a few lines that grants and refuses what the test says."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent.mqtt import Connected, Connection, Disconnected, Event, Received, SubscriptionAnswered

CONNACK = b"\x20\x02\x00\x00"


class FewLines:
    """A broker for one client: CONNACK, SUBACK by `refused`, and PUBLISH on demand."""

    def __init__(self, refused: set[str]) -> None:
        self.refused = refused
        self.asked: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._client: socket.socket | None = None
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _packet(self, client: socket.socket) -> tuple[int, bytes]:
        first = client.recv(1)
        if not first:
            raise ConnectionError
        length = shift = 0
        while True:
            (byte,) = client.recv(1)
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return first[0], client.recv(length, socket.MSG_WAITALL) if length else b""

    def _serve(self) -> None:
        client, _ = self._server.accept()
        self._client = client
        try:
            while True:
                kind, body = self._packet(client)
                if kind == 0x10:
                    client.sendall(CONNACK)
                elif kind == 0x82:
                    (size,) = struct.unpack_from("!H", body, 2)
                    topic = body[4 : 4 + size].decode()
                    self.asked.append(topic)
                    client.sendall(b"\x90\x03" + body[:2] + (b"\x80" if topic in self.refused else b"\x01"))
        except (OSError, IndexError, ValueError):
            client.close()

    def publish(self, topic: str, payload: bytes) -> None:
        """A message, QoS 0."""
        assert self._client is not None
        body = struct.pack("!H", len(topic.encode())) + topic.encode() + payload
        assert len(body) < 128
        self._client.sendall(bytes([0x30, len(body)]) + body)

    def close(self) -> None:
        """End it."""
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)


class Bench:
    """A connection to a broker of a few lines, with what it delivers."""

    def __init__(self, refused: set[str]) -> None:
        self.broker = FewLines(refused)
        self.events: queue.Queue[Event] = queue.Queue()
        self.taken: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.connection = Connection(
            f"mqtt://127.0.0.1:{self.broker.port}", client_id="c", topic="edgewater/ack/d", queued_bytes_max=1000,
            deliver=self.events.put, take=lambda topic, payload: self.taken.put((topic, payload)),
        )  # fmt: skip
        self.connection.start()

    def event(self) -> Event:
        """The next event."""
        return self.events.get(timeout=10)


@pytest.fixture
def bench(request: Any) -> Iterator[Bench]:
    """A connection; the marked topics are refused."""
    found = Bench(set(getattr(request, "param", ())))
    yield found
    found.connection.close()
    found.broker.close()


@pytest.mark.parametrize("bench", [["secret/#"]], indirect=True)
def test_a_refused_topic_is_no_end_of_the_connection(bench: Bench) -> None:
    """The answer says which filter, and why; the connection goes on, and other topics too."""
    assert isinstance(bench.event(), Connected)
    bench.connection.subscribe("secret/#")
    bench.connection.subscribe("open/+")
    bench.connection.subscribe("open/+")
    answers = [bench.event(), bench.event()]
    assert all(isinstance(each, SubscriptionAnswered) for each in answers)
    told = {bench.connection.asked_as(each.message_id): each.refused for each in answers}  # type: ignore[union-attr]
    assert told["open/+"] == ""
    assert "Unspecified error" in told["secret/#"] or "failure" in told["secret/#"].lower()
    assert bench.broker.asked == ["edgewater/ack/d", "secret/#", "open/+"]
    bench.broker.publish("edgewater/ack/d", b"still here")
    event = bench.event()
    assert isinstance(event, Received)
    assert event.payload == b"still here"


def test_messages_for_functions_do_not_wait_for_events(bench: Bench) -> None:
    """What comes on a function's topic goes to `take` at once, and is no event."""
    assert isinstance(bench.event(), Connected)
    bench.broker.publish("open/a", b"1")
    assert bench.taken.get(timeout=10) == ("open/a", b"1")
    assert bench.events.empty()


@pytest.mark.parametrize("bench", [["edgewater/ack/d"]], indirect=True)
def test_the_devices_own_topic_refused(bench: Bench) -> None:
    """Without watermarks nothing works: the connection ends and says so."""
    event = bench.event()
    assert isinstance(event, Disconnected)
    assert "subscription to edgewater/ack/d refused" in event.reason


def test_after_the_end_nothing_is_asked(bench: Bench) -> None:
    """A subscription on a connection that has ended does no harm."""
    assert isinstance(bench.event(), Connected)
    bench.broker.close()
    assert isinstance(bench.event(), Disconnected)
    bench.connection.subscribe("late")
    assert bench.broker.asked == ["edgewater/ack/d"]
