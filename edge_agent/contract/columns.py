"""Columns: how the rows of a batch travel, as little-endian buffers that Arrow takes without looking at values.

A column is a name, a type, an optional validity bitmap (Arrow's: bit i of byte i/8, least significant first,
1 = valid) and its buffers:

    type         buffers
    timestamp    int64 microseconds since 1970 UTC, 8 bytes a row
    float64      8 bytes a row
    int64        8 bytes a row
    bool         bitmap, 1 bit a row
    string       int32 offsets (rows + 1), then UTF-8 data
    dictionary   codes (uint8, int16 or int32 by width), then the names

Decoding checks shapes, never values: whoever turns a column into Arrow validates it there, vectorised.

**Delivery**: pure. **Bounds**: rows, columns, names and bytes as in `limits.py`; checked before anything is built.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from . import limits
from .errors import DecodeError, LimitError, RejectError, quoted

__all__ = ["TYPES", "Column", "booleans", "dictionary", "floats", "integers", "strings", "timestamps", "validity_of"]

TYPES = ("timestamp", "float64", "int64", "bool", "string", "dictionary")
_FIXED_WIDTH = {"timestamp": 8, "float64": 8, "int64": 8}
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `rows` values; `names` only for a dictionary, whose codes are `width` bytes each."""

    name: str
    type: str
    rows: int
    validity: bytes | None
    buffers: tuple[bytes, ...]
    names: tuple[str, ...] = ()
    width: int = 0


def check_column(column: Column) -> Column:
    """`column`, when its buffers have the sizes that its type and rows demand; DecodeError otherwise."""
    if not 1 <= len(column.name) <= limits.COLUMN_NAME_CHARACTERS_MAX:
        raise DecodeError(f"column name {quoted(column.name)}: use 1 to {limits.COLUMN_NAME_CHARACTERS_MAX} characters")
    bitmap_bytes = (column.rows + 7) // 8
    if column.validity is not None and len(column.validity) != bitmap_bytes:
        raise DecodeError(f"column {column.name}: validity of {len(column.validity)} bytes for {column.rows} rows")
    sizes = tuple(len(buffer) for buffer in column.buffers)
    if column.type in _FIXED_WIDTH:
        wanted = sizes == (column.rows * _FIXED_WIDTH[column.type],)
    elif column.type == "bool":
        wanted = sizes == (bitmap_bytes,)
    elif column.type == "string":
        wanted = len(sizes) == 2 and sizes[0] == 4 * (column.rows + 1)
    elif column.type == "dictionary":
        wanted = column.width in (1, 2, 4) and sizes == (column.rows * column.width,)
        if len(column.names) > limits.DICTIONARY_ENTRIES_MAX:
            raise DecodeError(f"column {column.name}: {len(column.names)} dictionary entries")
    else:
        raise DecodeError(f"column {column.name} has type {quoted(column.type)}; known are {', '.join(TYPES)}")
    if not wanted:
        raise DecodeError(
            f"column {column.name} of type {column.type}: buffers of {sizes} bytes for {column.rows} rows"
        )
    return column


def _little_endian(values: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def validity_of(values: Sequence[object]) -> bytes | None:
    """The validity bitmap of `values`, where None is null; None when nothing is null."""
    if None not in values:
        return None
    return _bitmap(value is not None for value in values)


def _bitmap(bits: Iterable[bool]) -> bytes:
    out = bytearray()
    byte = count = 0
    for bit in bits:
        byte |= bit << (count & 7)
        count += 1
        if not count & 7:
            out.append(byte)
            byte = 0
    if count & 7:
        out.append(byte)
    return bytes(out)


def _integers(name: str, kind: str, values: Sequence[int | None] | array[int]) -> Column:
    if isinstance(values, array):
        if values.typecode != "q":
            raise RejectError(f"column {name}: array of type {values.typecode!r}; use array('q')")
        return Column(name, kind, len(values), None, (_little_endian(values),))
    try:
        data = array("q", [0 if value is None else value for value in values])
    except OverflowError:
        worst = next(v for v in values if v is not None and not _INT64_MIN <= v <= _INT64_MAX)
        raise LimitError(f"column {name} value", worst, _INT64_MAX, "send it as a string") from None
    return Column(name, kind, len(values), validity_of(values), (_little_endian(data),))


def timestamps(name: str, values: Sequence[int | None] | array[int]) -> Column:
    """Microseconds since 1970 UTC; array('q') is taken as it is."""
    return _integers(name, "timestamp", values)


def integers(name: str, values: Sequence[int | None] | array[int]) -> Column:
    """64-bit signed integers, exact; array('q') is taken as it is."""
    return _integers(name, "int64", values)


def floats(name: str, values: Sequence[float | None] | array[float]) -> Column:
    """64-bit floats; array('d') is taken as it is."""
    if isinstance(values, array):
        if values.typecode != "d":
            raise RejectError(f"column {name}: array of type {values.typecode!r}; use array('d')")
        return Column(name, "float64", len(values), None, (_little_endian(values),))
    data = array("d", [0.0 if value is None else value for value in values])
    return Column(name, "float64", len(values), validity_of(values), (_little_endian(data),))


def booleans(name: str, values: Sequence[bool | None]) -> Column:
    """True and False, one bit each."""
    return Column(name, "bool", len(values), validity_of(values), (_bitmap(bool(value) for value in values),))


def strings(name: str, values: Sequence[str | None]) -> Column:
    """Text; as a dictionary where that is smaller, which is when values repeat."""
    distinct = dict.fromkeys(value for value in values if value is not None)
    if len(distinct) * 2 <= len(values) or len(distinct) == 1:
        codes = {value: code for code, value in enumerate(distinct)}
        return dictionary(name, [None if value is None else codes[value] for value in values], tuple(distinct))
    offsets = array("i", [0])
    pieces = []
    total = 0
    for value in values:
        piece = b"" if value is None else _utf8(name, value)
        if len(piece) > limits.STRING_BYTES_MAX:
            raise LimitError(f"column {name} text bytes", len(piece), limits.STRING_BYTES_MAX, "shorten it")
        pieces.append(piece)
        total += len(piece)
        if total > limits.BODY_RAW_BYTES_MAX:
            raise LimitError(f"column {name} bytes", total, limits.BODY_RAW_BYTES_MAX, "return fewer rows")
        offsets.append(total)
    return Column(name, "string", len(values), validity_of(values), (_little_endian(offsets), b"".join(pieces)))


def _utf8(name: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise RejectError(f"column {name}: text {quoted(value)} has a lone surrogate, which is not UTF-8") from None


def dictionary(name: str, codes: Sequence[int | None] | array[int], names: tuple[str, ...]) -> Column:
    """Row i is `names[codes[i]]`; an array of typecode 'B', 'h' or 'i' is taken as it is."""
    if len(names) > limits.DICTIONARY_ENTRIES_MAX:
        raise LimitError(f"column {name} entries", len(names), limits.DICTIONARY_ENTRIES_MAX, "use plain text")
    for entry in names:
        if len(_utf8(name, entry)) > limits.STRING_BYTES_MAX:
            raise LimitError(f"column {name} text bytes", len(entry), limits.STRING_BYTES_MAX, "shorten it")
    widths = {"B": 1, "h": 2, "i": 4}
    if isinstance(codes, array):
        if codes.typecode not in widths:
            raise RejectError(f"column {name}: array of type {codes.typecode!r}; use 'B', 'h' or 'i'")
        return Column(name, "dictionary", len(codes), None, (_little_endian(codes),), names, widths[codes.typecode])
    typecode = "B" if len(names) <= 256 else "h" if len(names) <= 32768 else "i"
    data = array(typecode, [0 if code is None else code for code in codes])
    # A dictionary of nothing but nulls still needs an entry for its codes to point at.
    entries = names or ("",)
    validity = validity_of(codes)
    return Column(name, "dictionary", len(codes), validity, (_little_endian(data),), entries, widths[typecode])
