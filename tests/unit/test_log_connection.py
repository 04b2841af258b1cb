"""One connection: frames in any pieces, answers in order, bounds kept, malformed bytes end it."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

import pytest
from kafka.protocol.metadata import ApiVersionsRequest, FindCoordinatorRequest
from kafka.protocol.producer import ProduceRequest

from stream_jobs.log import connection as module
from stream_jobs.log.codec import ApiVersionsResponse, ProduceResponse
from stream_jobs.log.connection import Connection, Connections
from stream_jobs.log.handlers import Broker
from stream_jobs.log.settings import LogSettings


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5)})
        self.written: list[bytes] = []
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def correlations(self) -> list[int]:
        """Correlation ids of the answers."""
        return [struct.unpack_from(">i", data, 4)[0] for data in self.written]


class Desk:
    """A connection on a wire, with the produce handler replaced by futures that the test resolves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.futures: list[asyncio.Future[Any]] = []
        monkeypatch.setitem(module.HANDLERS, 0, self._produce)
        broker = Broker(
            LogSettings(**settings), cast("Any", None), cast("Any", None), cast("Any", None), self.loop, "h", 1
        )
        self.connections = Connections(10)
        self.connection = Connection(broker, self.connections)
        self.wire = Wire()
        self.connection.connection_made(self.wire)

    def _produce(self, _: Broker, __: Any) -> asyncio.Future[Any]:
        self.futures.append(self.loop.create_future())
        return self.futures[-1]

    def feed(self, data: bytes) -> bytes:
        """Give bytes as the transport would, while the connection reads; what it did not take is returned."""
        while data and self.wire.reading and not self.wire.closed:
            buffer = self.connection.get_buffer(-1)
            taken = min(len(buffer), len(data))
            buffer[:taken] = data[:taken]
            data = data[taken:]
            self.connection.buffer_updated(taken)
        return data

    def resolve(self, number: int) -> None:
        """Answer the produce request of that number."""
        self.futures[number].set_result(ProduceResponse(responses=[]))
        self.loop.run_until_complete(asyncio.sleep(0))


def frame(message: Any, version: int, correlation: int) -> bytes:
    """A request with its length."""
    message.API_VERSION = version
    message.with_header(correlation, "c")
    return bytes(message.encode(header=True, framed=True))


def ask(correlation: int) -> bytes:
    """A request that is answered at once."""
    return frame(ApiVersionsRequest(), 0, correlation)


def send(correlation: int, size: int = 10) -> bytes:
    """A produce request with `size` bytes of records."""
    topic = ProduceRequest.TopicProduceData
    data = topic(name="t", partition_data=[topic.PartitionProduceData(index=0, records=b"x" * size)])
    return frame(ProduceRequest(transactional_id=None, acks=-1, timeout_ms=1, topic_data=[data]), 8, correlation)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A connection with room for three produce requests."""
    made = Desk(monkeypatch, in_flight_max=3)
    yield made
    made.loop.close()


def test_frames_come_in_any_pieces(desk: Desk) -> None:
    """Byte by byte, or all at once: the same answers in the same order."""
    data = b"".join(ask(number) for number in range(5))
    for position in range(len(data)):
        desk.feed(data[position : position + 1])
    desk.feed(data)
    assert desk.wire.correlations() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


def test_answers_keep_the_order_of_requests(desk: Desk) -> None:
    """A produce request whose sync is done waits for the one before it."""
    desk.feed(send(1) + send(2))
    assert len(desk.futures) == 2
    desk.resolve(1)
    assert desk.wire.correlations() == []
    desk.resolve(0)
    assert desk.wire.correlations() == [1, 2]


def test_other_requests_wait_for_those_under_way(desk: Desk) -> None:
    """Anything but produce is handled when everything before it was answered, as in Apache Kafka."""
    desk.feed(send(1) + ask(2) + send(3))
    assert len(desk.futures) == 1
    desk.resolve(0)
    assert desk.wire.correlations() == [1, 2]
    assert len(desk.futures) == 2


def test_requests_under_way_are_bounded(desk: Desk) -> None:
    """Beyond in_flight_max nothing is handled, and reading stops when the buffer is full."""
    left = desk.feed(b"".join(send(number, 30_000) for number in range(10)))
    assert len(desk.futures) == 3
    assert left
    assert not desk.wire.reading
    desk.resolve(0)
    assert len(desk.futures) == 4
    assert desk.wire.reading


def test_a_large_frame_has_a_buffer_of_its_own(desk: Desk) -> None:
    """A request beyond the shared buffer is read whole, and the ones around it too."""
    desk.feed(ask(1) + send(2, 300_000) + send(3))
    assert len(desk.futures) == 2
    desk.resolve(0)
    desk.resolve(1)
    assert desk.wire.correlations() == [1, 2, 3]


def test_a_large_frame_waits_its_turn(desk: Desk) -> None:
    """A large request that may not be handled yet stops the reading until it may."""
    left = desk.feed(b"".join(send(number, 300_000) for number in range(4)))
    assert (left, len(desk.futures), desk.wire.reading) == (b"", 3, False)
    desk.resolve(0)
    assert (len(desk.futures), desk.wire.reading) == (4, True)


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">ih", 2**31 - 1, 0),
        struct.pack(">ih", -5, 0),
        struct.pack(">ih", 5 * 1024 * 1024, 3),
        struct.pack(">ih", 3, 0),
        struct.pack(">ihhih", 10, 3, 12, 1, -1),
        struct.pack(">ihhih", 10, 999, 0, 1, -1),
        struct.pack(">ihhih", 10, 0, 0, 1, -1),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_bytes_that_are_no_request_end_the_connection(desk: Desk, data: bytes) -> None:
    """Before anything is buffered for them, and counted."""
    desk.feed(data)
    assert desk.wire.closed
    assert desk.connections.malformed == 1


def test_an_unknown_version_of_api_versions_is_answered_in_version_0(desk: Desk) -> None:
    """So that a newer client can ask again (KIP-511)."""
    desk.feed(frame(ApiVersionsRequest(), 4, 9))
    answer = ApiVersionsResponse.decode(desk.wire.written[0], version=0, header=True, framed=True)
    assert answer.error_code == 35
    assert answer.api_keys


def test_a_client_that_does_not_read_is_not_served(desk: Desk) -> None:
    """While the transport's buffer is full no further request is handled."""
    desk.connection.pause_writing()
    desk.feed(ask(1))
    assert desk.wire.written == []
    desk.connection.resume_writing()
    assert desk.wire.correlations() == [1]


def test_connections_are_bounded(desk: Desk) -> None:
    """One more than connections_max is closed at once, without touching the others."""
    desk.connections.limit = 1
    second, wire = Connection(desk.connection._broker, desk.connections), Wire()
    second.connection_made(wire)
    assert wire.closed
    assert desk.connections.refused == 1
    desk.feed(frame(FindCoordinatorRequest(key="g", key_type=0), 2, 3))
    assert desk.wire.correlations() == [3]


def test_a_broken_connection_gives_up_what_it_waited_for(desk: Desk) -> None:
    """The futures are cancelled, and answers that come later go nowhere."""
    desk.feed(send(1) + send(2))
    desk.connection.connection_lost(None)
    assert all(future.cancelled() for future in desk.futures)
    assert not desk.connections.open
