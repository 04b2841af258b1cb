"""What the agent and a function's process say to each other, over a socket pair.

A frame is 4 bytes of length (little-endian) and a msgpack array whose first element is the message's tag:

    agent -> function   Load (what to run), Answer (to one Batch, in order), Deliver (an MQTT message), Rows (a batch of
                        another function), Listen (with the socket of a WSGI app), Stop
    function -> agent   Loaded, Batch, Taken (one Deliver or Rows is done with), Failed (one call, or loading), Report
                        (counters, about once a second)

**Delivery**: a batch is the spool's when its Answer says so; a message is done with when it is Taken, whatever the
function made of it. **Bounds**: FUNCTION_FRAME_BYTES_MAX, checked on the
length before anything of that size is buffered; a peer that breaks the rules is told nothing and ended.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import TypeAlias

import msgspec

from edge_agent.contract import limits
from edge_agent.contract.errors import DecodeError, LimitError

from .api import Declaration

__all__ = [
    "Answer",
    "Batch",
    "Channel",
    "Deliver",
    "Failed",
    "FrameReader",
    "FromAgent",
    "FromFunction",
    "Listen",
    "Load",
    "Loaded",
    "Report",
    "Rows",
    "Stop",
    "Taken",
    "decode_from_function",
    "encode",
]

_LENGTH = struct.Struct("<I")
_RECEIVE_BYTES = 256 * 1024
_DESCRIPTORS_MAX = 4
TEXT_CHARACTERS_MAX = 2000


class Load(msgspec.Struct, array_like=True, tag="load", frozen=True):
    """Run the function `name` (empty: the first declared) of the file or, with `builtin`, of the module `path`; with
    `check` say what it declares and end."""

    builtin: bool
    path: str
    name: str
    batch_rows: int
    flush_interval_s: float
    check: bool = False


class Answer(msgspec.Struct, array_like=True, tag="answer", frozen=True):
    """The oldest unanswered batch was accepted, or (`refused` says why) can never be."""

    refused: str = ""


class Deliver(msgspec.Struct, array_like=True, tag="deliver", frozen=True):
    """An MQTT message for a function on_topic, with the time at which the agent had it."""

    topic: str
    payload: bytes
    time_us: int


class Rows(msgspec.Struct, array_like=True, tag="rows", frozen=True):
    """A batch that the spool has accepted, for a function on_stream: its encoded body as the function sent it."""

    stream: str
    rows: int
    body: bytes


class Listen(msgspec.Struct, array_like=True, tag="listen", frozen=True):
    """Serve the WSGI app at the listening socket whose descriptor comes with this frame (SCM_RIGHTS)."""

    body_bytes_max: int


class Stop(msgspec.Struct, array_like=True, tag="stop", frozen=True):
    """Call no more, send what is gathered, end."""


class Loaded(msgspec.Struct, array_like=True, tag="loaded", frozen=True):
    """The function `name` is about to be called; `functions` are all that its file declares, by name."""

    name: str
    functions: dict[str, Declaration]
    version: bytes


class Batch(msgspec.Struct, array_like=True, tag="batch", frozen=True):
    """The encoded body of one batch."""

    stream: str
    rows: int
    body: bytes


class Taken(msgspec.Struct, array_like=True, tag="taken", frozen=True):
    """The oldest Deliver or Rows is done with."""


class Failed(msgspec.Struct, array_like=True, tag="failed", frozen=True):
    """Something went wrong in user code; `place` is file and line. A failure of loading ends the process."""

    loading: bool
    text: str
    place: str


class Report(msgspec.Struct, array_like=True, tag="report", frozen=True):
    """Counters since the process began, and whether what was done last failed. Of a WSGI app: `calls` are requests,
    `failed` those answered with 500 and above, `refused` those answered with 400 to 499."""

    calls: int
    failed: int
    missed: int
    failing: bool = False
    refused: int = 0


FromAgent: TypeAlias = Load | Answer | Deliver | Rows | Listen | Stop
FromFunction: TypeAlias = Loaded | Batch | Taken | Failed | Report
_from_agent = msgspec.msgpack.Decoder(Load | Answer | Deliver | Rows | Listen | Stop)
_from_function = msgspec.msgpack.Decoder(Loaded | Batch | Taken | Failed | Report)
_encoder = msgspec.msgpack.Encoder()


def encode(message: FromAgent | FromFunction) -> bytes:
    """One frame."""
    data = _encoder.encode(message)
    if len(data) > limits.FUNCTION_FRAME_BYTES_MAX:
        raise LimitError("frame bytes", len(data), limits.FUNCTION_FRAME_BYTES_MAX, "return fewer rows at once")
    return _LENGTH.pack(len(data)) + data


def decode_from_function(data: bytes) -> FromFunction:
    """The message in a frame that a function's process sent; DecodeError when there is none."""
    try:
        message: FromFunction = _from_function.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"frame of {len(data)} bytes: {error}") from None
    return message


class FrameReader:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole with `data`; DecodeError as soon as a length is over the limit."""
        self._buffer += data
        frames = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer, start)
            if size > limits.FUNCTION_FRAME_BYTES_MAX:
                raise DecodeError(f"frame of {size} bytes; at most {limits.FUNCTION_FRAME_BYTES_MAX} are allowed")
            end = start + _LENGTH.size + size
            if len(self._buffer) < end:
                break
            frames.append(bytes(memoryview(self._buffer)[start + _LENGTH.size : end]))
            start = end
        if start:
            del self._buffer[:start]
        return frames


class Channel:
    """The function's end: sends by waiting, receives with a time limit."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = FrameReader()
        self._received: list[FromAgent] = []
        self.descriptors: list[int] = []
        """Those that came with frames; whoever handles such a frame takes its own."""

    def send(self, message: FromFunction) -> None:
        """Send one message; waits while the agent does not read. OSError when the agent is gone."""
        self._connection.sendall(encode(message))

    def receive(self, timeout_s: float) -> FromAgent | None:
        """The next message, or None after `timeout_s` seconds. EOFError when the agent is gone."""
        if not self._received:
            readable, _, _ = select.select([self._connection], [], [], max(0.0, timeout_s))
            if not readable:
                return None
            data, descriptors, _, _ = socket.recv_fds(self._connection, _RECEIVE_BYTES, _DESCRIPTORS_MAX)
            self.descriptors += descriptors
            if not data:
                raise EOFError("the agent has closed the connection")
            self._received = [_from_agent.decode(frame) for frame in self._reader.feed(data)]
        return self._received.pop(0) if self._received else None
