"""From a batch back to rows of Python values, for functions on_stream and for tests; the lake never comes this way.

**Delivery**: pure; the values are the very ones that were encoded: timestamps are whole microseconds. DecodeError for
bytes that are no batch. **Bounds**: one batch, value by value.
"""

from __future__ import annotations

import itertools
import sys
from array import array
from typing import Any

from edge_agent.contract import wire
from edge_agent.contract.columns import Column
from edge_agent.contract.errors import DecodeError

__all__ = ["rows_of_body"]

_CODES = {1: "B", 2: "h", 4: "i"}


def _numbers(typecode: str, data: bytes) -> list[Any]:
    numbers: array[Any] = array(typecode)
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _bits(data: bytes, count: int) -> list[bool]:
    return [bool(data[at >> 3] >> (at & 7) & 1) for at in range(count)]


def _texts(column: Column) -> list[str]:
    offsets, data = _numbers("i", column.buffers[0]), column.buffers[1]
    return [data[start:end].decode() for start, end in itertools.pairwise(offsets)]


def _values(column: Column) -> list[Any]:
    if column.type == "float64":
        values = _numbers("d", column.buffers[0])
    elif column.type in ("timestamp", "int64"):
        values = _numbers("q", column.buffers[0])
    elif column.type == "bool":
        values = _bits(column.buffers[0], column.rows)
    elif column.type == "string":
        values = _texts(column)
    else:
        values = [column.names[code] for code in _numbers(_CODES[column.width], column.buffers[0])]
    if column.validity is None:
        return values
    valid = _bits(column.validity, column.rows)
    return [value if known else None for value, known in zip(values, valid, strict=True)]


def rows_of_body(body: bytes, rows: int) -> list[dict[str, Any]]:
    """The rows of an encoded body, each with `ts` and its columns, null as None."""
    found = wire.decode_body(body, rows)
    try:
        values = [_values(column) for column in found]
    except (IndexError, UnicodeDecodeError) as error:
        raise DecodeError(f"body of {rows} rows: {error}") from None
    names = [column.name for column in found]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]
