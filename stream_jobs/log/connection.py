"""One client connection: frames in, answers out, in the order of the requests.

As in Apache Kafka, requests of one connection are handled one after the other, with one exception: produce requests
follow each other without waiting for their syncs, so that one round of syncs covers many.

**Delivery**: an answer is written after its request was handled to the end; a connection that breaks leaves what was
appended in the log (an idempotent producer sends again and is told the first offset).
**Bounds**: a frame is read only after its length was found within request_bytes_max (OTHER_BYTES_MAX for requests that
carry no records); at most in_flight_max produce requests, or one other request, are under way, and while the client
does not read its answers nothing more of it is handled. Bytes that are no request close the connection, and only that.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sqlite3
import struct
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass, field
from inspect import isawaitable

from edge_agent.contract.errors import DecodeError, quoted

from .codec import API_VERSIONS_KEY, PRODUCE_KEY, Request, UnsupportedRequestError, decode_request, encode_response
from .codes import Code, ProtocolError
from .handlers import HANDLERS, Answer, Broker
from .handlers.cluster import api_versions

__all__ = ["Connection", "Connections"]

_LOG = logging.getLogger(__name__)
BUFFER_BYTES = 64 * 1024
OTHER_BYTES_MAX = 4 * 1024 * 1024
WRITE_BUFFER_BYTES = 1024 * 1024
KEEPALIVE_AFTER_S = 60
_LENGTH_AND_KEY = struct.Struct(">ih")
_LENGTH_BYTES = 4


@dataclass
class Connections:
    """All open connections, and counters for the status file."""

    limit: int
    open: set[Connection] = field(default_factory=set)
    refused: int = 0
    malformed: int = 0
    requests: int = 0


def _find_dead_peers(connection: socket.socket | None) -> None:
    """A client whose machine is gone without a word gives its connection back after some minutes."""
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_AFTER_S)


class Connection(asyncio.BufferedProtocol):
    """See the module."""

    def __init__(self, broker: Broker, connections: Connections) -> None:
        self._broker = broker
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._host = ""
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0
        self._large: memoryview | None = None
        self._filled = 0
        self._pending: deque[tuple[Request, Answer | asyncio.Future[Answer]]] = deque()
        self._serial = False
        self._reading = True
        self._writable = True
        self._handling = False

    # --- transport ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Refuse the connection when there are too many."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._host = f"/{peer[0]}" if peer else ""
        if len(self._connections.open) >= self._connections.limit:
            self._connections.refused += 1
            _LOG.warning("connection from %s refused: connections_max of %d are open", peer, self._connections.limit)
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        _find_dead_peers(transport.get_extra_info("socket"))
        self._connections.open.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Give up what is under way for this client."""
        if error is not None:
            _LOG.debug("connection from %s broke: %s", self._host, error)
        self._transport = None
        self._connections.open.discard(self)
        for _, answer in self._pending:
            if isinstance(answer, asyncio.Future):
                answer.cancel()
        self._pending.clear()

    def pause_writing(self) -> None:
        """The client does not read its answers."""
        self._writable = False

    def resume_writing(self) -> None:
        """The client reads again."""
        self._writable = True
        self._flush()
        self._handle_frames()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - given by asyncio, our frames know better
        """Where the next bytes go: into a large frame of its own, or into the shared buffer."""
        if self._large is not None:
            return self._large[self._filled :]
        return self._buffer[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have come."""
        if self._large is not None:
            self._filled += nbytes
        else:
            self._end += nbytes
        self._handle_frames()

    def close(self) -> None:
        """End the connection without sending what is left."""
        if self._transport is not None:
            self._transport.abort()

    # --- frames ---------------------------------------------------------------------------------------------------

    def _handle_frames(self) -> None:
        if self._handling:
            return
        self._handling = True
        try:
            while self._transport is not None and (frame := self._next_frame()) is not None:
                self._handle(frame)
        except DecodeError as error:
            self._connections.malformed += 1
            _LOG.warning("connection from %s closed: %s", self._host, error)
            self.close()
        finally:
            self._handling = False
        self._steer_reading()

    def _next_frame(self) -> memoryview | None:
        """The next whole frame whose turn it is; DecodeError when what comes cannot be one."""
        if self._large is not None:
            if self._filled < len(self._large) or not self._admits(int.from_bytes(self._large[:2], "big")):
                return None
            frame, self._large = self._large, None
            return frame
        have = self._end - self._start
        if have < _LENGTH_AND_KEY.size:
            self._make_room()
            return None
        length, key = _LENGTH_AND_KEY.unpack_from(self._buffer, self._start)
        allowed = self._broker.settings.request_bytes_max
        allowed = allowed if key == PRODUCE_KEY else min(allowed, OTHER_BYTES_MAX)
        if not _LENGTH_AND_KEY.size <= length <= allowed:
            head = quoted(bytes(self._buffer[self._start : self._start + 16]))
            raise DecodeError(f"{head} begins a request of {length} bytes; at most {allowed} are allowed for its kind")
        begin = self._start + _LENGTH_BYTES
        if have >= _LENGTH_BYTES + length:
            if not self._admits(key):
                return None
            self._start = begin + length
            return self._buffer[begin : begin + length]
        if _LENGTH_BYTES + length > BUFFER_BYTES:
            self._large = memoryview(bytearray(length))
            self._filled = self._end - begin
            self._large[: self._filled] = self._buffer[begin : self._end]
            self._start = self._end = 0
        else:
            self._make_room()
        return None

    def _make_room(self) -> None:
        if self._start:
            have = self._end - self._start
            self._buffer[:have] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, have

    def _admits(self, key: int) -> bool:
        """Whether a request of this kind may be handled now."""
        if not self._pending:
            return self._writable
        few = len(self._pending) < self._broker.settings.in_flight_max
        return key == PRODUCE_KEY and not self._serial and few and self._writable

    def _steer_reading(self) -> None:
        """Stop reading while there is no room for more bytes."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._large is None and self._end == BUFFER_BYTES:
            self._make_room()
        room = self._end < BUFFER_BYTES if self._large is None else self._filled < len(self._large)
        if room and not self._reading:
            self._reading = True
            self._transport.resume_reading()
        elif not room and self._reading:
            self._reading = False
            self._transport.pause_reading()

    # --- requests -------------------------------------------------------------------------------------------------

    def _handle(self, frame: memoryview) -> None:
        self._connections.requests += 1
        try:
            request = decode_request(frame, self._host)
            answer = HANDLERS[request.key](self._broker, request)
        except UnsupportedRequestError as error:
            if error.key != API_VERSIONS_KEY:
                raise
            # An unknown version of ApiVersions is answered in version 0, so that the client can ask again (KIP-511).
            request = Request(error.key, 0, error.correlation_id, "", self._host, None)
            answer = api_versions(self._broker, None, Code.UNSUPPORTED_VERSION)
        except (ProtocolError, sqlite3.Error) as error:
            _LOG.warning("connection from %s closed: %s", self._host, error)
            self.close()
            return
        if answer is None:
            return
        if isawaitable(answer):
            answer = self._follow(answer)
        self._serial = request.key != PRODUCE_KEY
        self._pending.append((request, answer))
        self._flush()

    def _follow(self, answer: Awaitable[Answer]) -> asyncio.Future[Answer]:
        future = asyncio.ensure_future(answer, loop=self._broker.loop)
        if not future.done():
            future.add_done_callback(self._answered)
        return future

    def _answered(self, future: asyncio.Future[Answer]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            _LOG.error("connection from %s closed: a request failed: %r", self._host, error)
            self.close()
            return
        self._flush()
        self._handle_frames()

    def _flush(self) -> None:
        """Write the answers whose turn it is."""
        while self._pending and self._transport is not None and self._writable:
            request, answer = self._pending[0]
            if isinstance(answer, asyncio.Future):
                if not answer.done() or answer.cancelled() or answer.exception() is not None:
                    return
                answer = answer.result()
            self._pending.popleft()
            self._transport.write(encode_response(request, answer))
