"""What the author of a function uses: a trigger as decorator, and a type for those who make many rows at once.

    @every(0.5)
    def tank():
        return {"level_m": 1.25}

A function takes no arguments and returns one of

    None                        no rows
    {name: number, ...}         one row each, stamped with the time at which the call began
    [(name, number), ...]       likewise
    [(ts_us, name, number)]     with time stamps of its own: whole microseconds since 1970-01-01 UTC
    readings(...)               columns, for those who have thousands of rows in arrays already

Its name in the tables is its name in the module; its version is the digest of its file.

**Delivery**: what a call returned counts as one: when one of its values fits no column, none of its rows is sent.
**Bounds**: an interval of 1 ms to a day; rows and bytes as in `contract/limits.py`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edge_agent.contract import limits
from edge_agent.contract.errors import LimitError, RejectError, quoted
from edge_agent.contract.names import check_stream

__all__ = ["Declaration", "Readings", "declaration_of", "every", "readings"]

INTERVAL_MIN_S = 0.001
INTERVAL_MAX_S = 86_400.0
_CODE_TYPES = "Bhi"
_ATTRIBUTE = "__edgewater__"

F = TypeVar("F", bound=Callable[[], Any])


@dataclass(frozen=True, slots=True)
class Declaration:
    """What a decorator says of a function: call it each `interval_s` seconds, its rows go to `stream`."""

    interval_s: float
    stream: str


@dataclass(frozen=True, slots=True)
class Readings:
    """Rows as columns: row i is (ts[i], names[codes[i]], values[i]); made by `readings`."""

    ts: array[int]
    names: tuple[str, ...]
    codes: array[int]
    values: array[float]


def every(seconds: float, stream: str = "readings") -> Callable[[F], F]:
    """Call the decorated function each `seconds` (0.001 to 86,400), and send its rows to `stream`.

    Calls never overlap: while one takes longer than `seconds`, the calls it delays are left out and counted.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise RejectError(f"every({quoted(seconds)}): give a number of seconds")
    if not INTERVAL_MIN_S <= seconds <= INTERVAL_MAX_S:
        raise RejectError(f"every({seconds}): give {INTERVAL_MIN_S} to {INTERVAL_MAX_S:g} seconds")
    declaration = Declaration(float(seconds), check_stream(stream))

    def declare(function: F) -> F:
        setattr(function, _ATTRIBUTE, declaration)
        return function

    return declare


def declaration_of(value: object) -> Declaration | None:
    """What a decorator of this module said of `value`, or None for anything not decorated."""
    found = getattr(value, _ATTRIBUTE, None)
    return found if isinstance(found, Declaration) else None


def readings(*, ts: array[int], names: Sequence[str], codes: array[int], values: array[float]) -> Readings:
    """Many rows at once, without Python touching each: `ts` array('q') of microseconds since 1970-01-01 UTC,
    `values` array('d'), `codes` array('B'), ('h') or ('i') of indices into `names`; all three of equal length.

    Raises RejectError for other types, unequal lengths or a code outside `names`.
    """
    for label, column, allowed in (("ts", ts, "q"), ("codes", codes, _CODE_TYPES), ("values", values, "d")):
        if getattr(column, "typecode", None) not in tuple(allowed):
            raise RejectError(f"readings: {label} is {quoted(column)}; use an array of type {' or '.join(allowed)}")
    if not len(ts) == len(codes) == len(values):
        raise RejectError(
            f"readings: {len(ts)} ts, {len(codes)} codes and {len(values)} values; give equal numbers of each"
        )
    if len(names) > limits.DICTIONARY_ENTRIES_MAX:
        raise LimitError("readings names", len(names), limits.DICTIONARY_ENTRIES_MAX, "return fewer rows at once")
    if len(codes) and not (min(codes) >= 0 and max(codes) < len(names)):
        raise RejectError(f"readings: codes from {min(codes)} to {max(codes)} for {len(names)} names")
    return Readings(ts, tuple(checked_name(name) for name in names), codes, values)


def checked_name(name: object) -> str:
    """`name`, when it can name a reading: text of 1 byte to STRING_BYTES_MAX bytes of UTF-8; RejectError otherwise."""
    if not isinstance(name, str) or not name:
        raise RejectError(f"reading name {quoted(name)} is not allowed; use text that is not empty")
    try:
        size = len(name) if name.isascii() else len(name.encode())
    except UnicodeEncodeError:
        raise RejectError(f"reading name {quoted(name)} has a lone surrogate, which is not UTF-8") from None
    if size > limits.STRING_BYTES_MAX:
        raise LimitError("reading name bytes", size, limits.STRING_BYTES_MAX, "shorten it")
    return name
