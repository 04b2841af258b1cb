"""From what a function returned to batches: rows checked value by value here, on the device, and never again.

**Delivery**: pure; `Collector.add` takes all rows of a call or, with RejectError, none of them.
**Bounds**: a batch of single rows is full at `batch_rows` rows or 256 KiB of names; of columns, at BULK_ROWS_MAX rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import SupportsFloat

from edge_agent.contract import columns, wire
from edge_agent.contract.errors import RejectError, quoted

from .api import Readings, checked_name

__all__ = ["BULK_ROWS_MAX", "Body", "Collector"]

BULK_ROWS_MAX = 16_384
"""Rows of one batch cut from `readings`: 278 KiB at 17 bytes a row, and so below BATCH_BYTES_MAX uncompressed."""
_NAME_BYTES_MAX = 256 * 1024
_EXACT_MAX = 1 << 53
_INT64_MAX = (1 << 63) - 1

Body = tuple[int, bytes]
"""Number of rows, and the encoded body of a batch."""
Row = tuple[int, str, float]


def checked_value(name: str, value: object) -> float:
    """`value` as float64; RejectError for what is no number, and for integers that float64 cannot hold exactly."""
    if type(value) is float:
        return value
    if isinstance(value, int):
        if not -_EXACT_MAX <= value <= _EXACT_MAX and (abs(value) > 1 << 1023 or int(float(value)) != value):
            raise RejectError(f"value {quoted(value)} of {quoted(name)} has no exact float64; send it in parts")
        return float(value)
    if isinstance(value, SupportsFloat):
        return float(value)
    raise RejectError(f"value {quoted(value)} of {quoted(name)} is {type(value).__name__}; a reading takes a number")


def rows_of(result: object, ts_us: int) -> Iterator[Row]:
    """The rows of a call's `result` (see `api.py`) that began at `ts_us`; RejectError names what is wrong."""
    if isinstance(result, Mapping):
        for name, value in result.items():
            yield ts_us, checked_name(name), checked_value(name, value)
        return
    if isinstance(result, (str, bytes)) or not isinstance(result, Iterable):
        raise RejectError(f"returned {quoted(result)}; return a mapping, a list of rows, readings(...) or None")
    for row in result:
        if not isinstance(row, (tuple, list)) or len(row) not in (2, 3):
            raise RejectError(f"row {quoted(row)} is not (name, value) or (ts_us, name, value)")
        ts, name, value = (ts_us, *row) if len(row) == 2 else row
        if isinstance(ts, bool) or not isinstance(ts, int) or not -_INT64_MAX <= ts <= _INT64_MAX:
            raise RejectError(f"time stamp {quoted(ts)} of {quoted(name)} is not whole microseconds since 1970")
        yield ts, checked_name(name), checked_value(name, value)


def _narrowed(codes: array[int], entries: int) -> array[int]:
    typecode = "B" if entries <= 256 else "h" if entries <= 32_768 else "i"
    return codes if codes.typecode == typecode else array(typecode, codes)


def encoded(ts: array[int], names: tuple[str, ...], codes: array[int], values: array[float]) -> Body:
    """One batch of the stream type `readings`."""
    body = wire.encode_columns(
        [columns.timestamps("ts", ts), columns.dictionary("name", codes, names), columns.floats("value", values)]
    )
    return len(ts), body


class Collector:
    """Gathers rows of one stream until there is a batch worth sending."""

    def __init__(self, batch_rows: int) -> None:
        self._batch_rows = batch_rows
        self._clear()

    def _clear(self) -> None:
        self._ts = array("q")
        self._values = array("d")
        self._codes = array("i")
        self._names: dict[str, int] = {}
        self._name_bytes = 0

    @property
    def rows(self) -> int:
        """Rows gathered and not yet taken."""
        return len(self._ts)

    def add(self, result: object, ts_us: int) -> Iterator[Body]:
        """Take the rows of one call, and give the batches that are full now.

        The rows are checked before the first batch is given; consume the iterator to its end.
        """
        if result is None:
            return iter(())
        if isinstance(result, Readings):
            return self._bulk(result)
        return self._single(list(rows_of(result, ts_us)))

    def _single(self, rows: list[Row]) -> Iterator[Body]:
        for ts, name, value in rows:
            code = self._names.get(name)
            if code is None:
                code = self._names[name] = len(self._names)
                self._name_bytes += 4 * len(name)
            self._ts.append(ts)
            self._codes.append(code)
            self._values.append(value)
            if len(self._ts) >= self._batch_rows or self._name_bytes >= _NAME_BYTES_MAX:
                yield self.take()

    def _bulk(self, rows: Readings) -> Iterator[Body]:
        if self.rows:
            yield self.take()
        for start in range(0, len(rows.ts), BULK_ROWS_MAX):
            part = slice(start, start + BULK_ROWS_MAX)
            yield encoded(rows.ts[part], rows.names, rows.codes[part], rows.values[part])

    def take(self) -> Body:
        """A batch of everything gathered (at least one row)."""
        names = tuple(self._names)
        body = encoded(self._ts, names, _narrowed(self._codes, len(names)), self._values)
        self._clear()
        return body
