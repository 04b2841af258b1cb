"""The names that travel: which device, stream and function names are allowed, and what an epoch's number says.

**Delivery**: a name is checked where it enters (settings, function file, wire header), so that everything
behind may trust it. **Bounds**: lengths in `limits.py`; characters below.
"""

from __future__ import annotations

import re

from . import limits
from .errors import RejectError, quoted

__all__ = ["EPOCH_MAX", "check_device", "check_function", "check_stream", "epoch_created_s", "new_epoch"]

_DEVICE = re.compile(rf"[A-Za-z0-9_.-]{{1,{limits.DEVICE_ID_CHARACTERS_MAX}}}\Z")
_STREAM = re.compile(rf"[A-Za-z_][A-Za-z0-9_]{{0,{limits.STREAM_NAME_CHARACTERS_MAX - 1}}}\Z")
_FUNCTION = re.compile(rf"[A-Za-z0-9_.-]{{1,{limits.FUNCTION_NAME_CHARACTERS_MAX}}}\Z")

_EPOCH_ZERO_S = 1_577_836_800
"""2020-01-01 UTC: an epoch's upper 31 bits count seconds from here (until 2088), its lower 32 are random.
63 bits in all, since the tables have no unsigned 64-bit column."""
EPOCH_MAX = (1 << 63) - 1


def check_device(name: str) -> str:
    """`name`, if it may name a device; RejectError otherwise."""
    if _DEVICE.match(name) is None or name in (".", ".."):
        raise RejectError(
            f"device name {quoted(name)} is not allowed; use 1 to {limits.DEVICE_ID_CHARACTERS_MAX} "
            "letters, digits, '_', '.', '-'"
        )
    return name


def check_stream(name: str) -> str:
    """`name`, if it may name a stream (and so a table); RejectError otherwise."""
    if _STREAM.match(name) is None:
        raise RejectError(
            f"stream name {quoted(name)} is not allowed; use a letter, then at most "
            f"{limits.STREAM_NAME_CHARACTERS_MAX - 1} letters, digits, '_'"
        )
    return name


def check_function(name: str) -> str:
    """`name`, if it may name a function; RejectError otherwise."""
    if _FUNCTION.match(name) is None:
        raise RejectError(
            f"function name {quoted(name)} is not allowed; use 1 to {limits.FUNCTION_NAME_CHARACTERS_MAX} "
            "letters, digits, '_', '.', '-'"
        )
    return name


def new_epoch(time_us: int, random_32: int, last_created_s: int) -> int:
    """A new epoch id that holds its creation time, later than any epoch this spool made before.

    `last_created_s` is `epoch_created_s` of the spool's latest epoch (0: none): a device whose clock
    went back still counts upwards, because the fold forgets closed epochs by their creation time.
    """
    created_s = max(time_us // 1_000_000, last_created_s + 1, _EPOCH_ZERO_S + 1)
    return (((created_s - _EPOCH_ZERO_S) & 0x7FFFFFFF) << 32) | (random_32 & 0xFFFFFFFF)


def epoch_created_s(epoch: int) -> int:
    """Seconds since 1970 at which the epoch was made, by its device's clock."""
    return (epoch >> 32) + _EPOCH_ZERO_S
