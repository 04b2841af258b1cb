"""The two small messages of the watermark protocol: the device's hello and the bridge's answer.

hello (device -> bridge), on connect and after a stall: the nonce of this connection and, per epoch the device
still holds, the first seq it holds. watermarks (bridge -> device), in answer to a hello and after each flush:
the same nonce and, per epoch, the highest seq such that all up to it are durable in the log or skipped. The
device trims on nothing else, ignores another nonce, and ignores a watermark lower than one it has.

**Delivery**: either message may be lost, doubled or late; the device's stall timer asks again.
**Bounds**: HELLO_EPOCHS_MAX epochs in one message; more come in the next hello, oldest first.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from . import limits
from .errors import DecodeError, LimitError
from .names import EPOCH_MAX

__all__ = [
    "NONCE_BYTES",
    "HeldEpoch",
    "Hello",
    "Watermarks",
    "decode_hello",
    "decode_watermarks",
    "encode",
    "make_hello",
    "make_watermarks",
]

_VERSION = 1
NONCE_BYTES = 8
_SEQ_MAX = 1 << 62
_MESSAGE_BYTES_MAX = 8 * 1024
M = TypeVar("M", "Hello", "Watermarks")


class HeldEpoch(msgspec.Struct, array_like=True, frozen=True):
    """One epoch that the device holds batches of. `first_seq` is the first it holds, or for an empty epoch
    the next it will make. Only the epoch's maker may cause a `lost` record; a peer with copies sets `maker` False."""

    epoch: int
    first_seq: int
    maker: bool


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """What a device says on connect and after a stall."""

    version: int
    nonce: bytes
    epochs: tuple[HeldEpoch, ...]


class Watermarks(msgspec.Struct, array_like=True, frozen=True):
    """`watermarks` are (epoch, watermark); `time_us` is the bridge's clock, for devices without one."""

    version: int
    nonce: bytes
    watermarks: tuple[tuple[int, int], ...]
    time_us: int


def make_hello(nonce: bytes, epochs: tuple[HeldEpoch, ...]) -> Hello:
    """A hello of the current version; LimitError above HELLO_EPOCHS_MAX epochs."""
    if len(epochs) > limits.HELLO_EPOCHS_MAX:
        raise LimitError("hello epochs", len(epochs), limits.HELLO_EPOCHS_MAX, "send the rest in another hello")
    return Hello(_VERSION, nonce, epochs)


def make_watermarks(nonce: bytes, watermarks: tuple[tuple[int, int], ...], time_us: int) -> Watermarks:
    """An answer of the current version."""
    return Watermarks(_VERSION, nonce, watermarks, time_us)


def encode(message: Hello | Watermarks) -> bytes:
    """The MQTT payload."""
    return msgspec.msgpack.encode(message)


def decode_hello(data: bytes) -> Hello:
    """The hello in an MQTT payload; DecodeError when it is none."""
    hello = _decode(data, Hello)
    if len(hello.epochs) > limits.HELLO_EPOCHS_MAX:
        raise DecodeError(f"hello with {len(hello.epochs)} epochs; at most {limits.HELLO_EPOCHS_MAX} are allowed")
    for held in hello.epochs:
        if not (0 < held.epoch <= EPOCH_MAX and 1 <= held.first_seq <= _SEQ_MAX):
            raise DecodeError(
                f"hello with epoch {held.epoch} and first seq {held.first_seq}, outside what either can be"
            )
    return hello


def decode_watermarks(data: bytes) -> Watermarks:
    """The watermarks in an MQTT payload; DecodeError when there are none."""
    answer = _decode(data, Watermarks)
    for epoch, watermark in answer.watermarks:
        if not (0 < epoch <= EPOCH_MAX and 0 <= watermark <= _SEQ_MAX):
            raise DecodeError(f"watermark {watermark} of epoch {epoch} is outside what either can be")
    return answer


def _decode(data: bytes, kind: type[M]) -> M:
    if len(data) > _MESSAGE_BYTES_MAX:
        raise DecodeError(f"{kind.__name__} of {len(data)} bytes; at most {_MESSAGE_BYTES_MAX} are allowed")
    try:
        message = msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a {kind.__name__}: {error}") from None
    if message.version != _VERSION or len(message.nonce) != NONCE_BYTES:
        raise DecodeError(
            f"{kind.__name__} of version {message.version} with a nonce of {len(message.nonce)} bytes; "
            f"this program knows version {_VERSION} and {NONCE_BYTES} bytes"
        )
    return message
