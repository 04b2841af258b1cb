"""One value of one column: what it is on the wire, exactly, or an error that says whose it is and what to do.

    None                            null
    bool (numpy's too)              bool
    int, and what is an index       int64, exact; beyond 64 bits an error
    float, and what has a float     float64 (numpy scalars, Decimal, Fraction)
    str                             string
    datetime with a zone            timestamp, microseconds UTC

**Delivery**: pure. **Bounds**: text of STRING_BYTES_MAX bytes; integers of 64 bits.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import SupportsFloat, SupportsIndex

from edge_agent.contract import limits
from edge_agent.contract.errors import LimitError, RejectError, quoted

__all__ = ["Cell", "cell", "exact_float", "microseconds", "text_bytes", "whole"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_EXACT_MAX = 1 << 53
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1

Cell = tuple[str, bool | int | float | str]
"""(the contract's name of a column's type, the value)."""


def exact_float(value: int) -> float | None:
    """`value` as float64, or None where float64 has no such number."""
    if -_EXACT_MAX <= value <= _EXACT_MAX:
        return float(value)
    if abs(value) > 1 << 1023 or int(float(value)) != value:
        return None
    return float(value)


def text_bytes(text: str) -> int:
    """Size in UTF-8. RejectError for a lone surrogate."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise RejectError("has a lone surrogate, which is not UTF-8") from None


def whole(value: object) -> int | None:
    """`value` as an integer, when it is one (an int, a numpy integer) but no boolean; else None."""
    if type(value) is int:
        return value
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return value.__index__()
    except Exception:  # noqa: BLE001 - an array of numpy looks like an index until it is asked
        return None


def microseconds(value: object) -> int:
    """A time as microseconds since 1970-01-01 UTC: a whole number of them, or a datetime with a zone. RejectError."""
    if type(value) is not int and isinstance(value, datetime):
        try:
            zone = value.utcoffset()
            number = None if zone is None else (value - _EPOCH) // _MICROSECOND
        except Exception:  # noqa: BLE001 - of pandas, NaT is a datetime until it is asked
            raise RejectError("is no time; send None where there is none") from None
        if number is None:
            raise RejectError("has no time zone; say which one, as datetime.now(timezone.utc)")
        return number
    number = whole(value)
    if number is None:
        raise RejectError("is not whole microseconds since 1970, nor a datetime with a time zone")
    if not _INT64_MIN < number <= _INT64_MAX:
        raise RejectError("is beyond 64 bits; give microseconds since 1970-01-01 UTC")
    return number


def _is_numpy_bool(value: object) -> bool:
    kind = type(value)
    return kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_")


def _text(value: str, column: str, function: str) -> Cell:
    try:
        size = text_bytes(value)
    except RejectError as error:
        raise RejectError(f"{_whose(value, column, function)} {error}") from None
    if size > limits.STRING_BYTES_MAX:
        raise LimitError(
            f"bytes of the text in column {quoted(column)} of function {function}", size, limits.STRING_BYTES_MAX,
            "shorten it, or send it in parts",
        )  # fmt: skip
    return "string", value if type(value) is str else str.__str__(value)


def _whose(value: object, column: str, function: str) -> str:
    return f"value {quoted(value)} of column {quoted(column)} of function {function}"


def cell(value: object, column: str, function: str) -> Cell | None:
    """What `value` is on the wire; None is null. RejectError names function, column and value."""
    kind = type(value)
    if kind is float:
        return "float64", value  # type: ignore[return-value]  # known from its type
    if value is None:
        return None
    if kind is int and _INT64_MIN <= value <= _INT64_MAX:  # type: ignore[operator]  # likewise
        return "int64", value  # type: ignore[return-value]
    if kind is bool:
        return "bool", value  # type: ignore[return-value]
    if isinstance(value, str):
        return _text(value, column, function)
    if isinstance(value, bool) or _is_numpy_bool(value):
        return "bool", bool(value)
    if isinstance(value, datetime):
        try:
            return "timestamp", microseconds(value)
        except RejectError as error:
            raise RejectError(f"{_whose(value, column, function)} {error}") from None
    number = whole(value)
    if number is not None:
        if not _INT64_MIN <= number <= _INT64_MAX:
            raise RejectError(f"{_whose(value, column, function)} is beyond 64 bits; send it as text: str(value)")
        return "int64", number
    if isinstance(value, SupportsFloat) and not isinstance(value, complex):
        try:
            return "float64", float(value)
        except Exception as error:  # noqa: BLE001 - a user's type may raise anything, and is told what it was
            raise RejectError(f"{_whose(value, column, function)} gives no float: {error}") from None
    raise RejectError(f"{_whose(value, column, function)} is {_named(kind)}; {_instead(value)}")


def _named(kind: type) -> str:
    name = kind.__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"


def _instead(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "a column takes numbers, text, booleans, times or None: send value.hex() or text"
    if isinstance(value, (dict, list, tuple, set)):
        return "a column takes one value a row: give each part a column or row of its own, or send text (json.dumps)"
    if isinstance(value, date):
        return "send a datetime with a time zone, or text: value.isoformat()"
    return "a column takes numbers, text, booleans, times or None: send text, as str(value)"
