"""From what a function returned to batches: rows checked value by value here, on the device, and never again.

For the stream `readings` (`ts`, `name`, `value` as float64) a call returns one of

    None                             no rows
    a number                         one row, named after the function; numpy's, Decimal and the like are numbers too
    {name: number, ...}              one row each, stamped with the time at which the call began; a dataclass likewise
    [(name, number), ...]            likewise; any iterable of them, or a generator, will do
    [(ts, name, number), ...]        with times of their own: whole microseconds since 1970 UTC, or aware datetimes
    readings(...)                    columns, for those who have thousands of rows in arrays already

For any other stream a mapping or a dataclass is one row, column -> value, and an iterable of them is rows; see
`table_rows.py` and, for what a column may hold, `cell.py`. A column `ts`, where a row has one, is its time.

**Delivery**: pure; `add` takes all rows of a call or, with RejectError, none of them.
**Bounds**: a batch of single rows is full at `batch_rows` rows or 256 KiB of names; of columns, at BULK_ROWS_MAX rows;
a call has CALL_ROWS_MAX single rows.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import Protocol, SupportsFloat, SupportsIndex

from edge_agent.contract import columns, wire
from edge_agent.contract.errors import LimitError, RejectError, quoted
from edge_agent.contract.streams import READINGS

from .api import Readings, checked_name
from .cell import exact_float, microseconds, whole
from .table_rows import CALL_ROWS_MAX, Body, TableCollector, fields_of, is_row

__all__ = ["BULK_ROWS_MAX", "Body", "Collector", "ReadingsCollector", "collector"]

BULK_ROWS_MAX = 16_384
"""Rows of one batch cut from `readings`: 278 KiB at 17 bytes a row, and so below BATCH_BYTES_MAX uncompressed."""
_NAME_BYTES_MAX = 256 * 1024
_INT64_MAX = (1 << 63) - 1
_EXACT_MAX = 1 << 53

Row = tuple[int, str, float]


class Collector(Protocol):
    """Gathers the rows of one function until there is a batch worth sending."""

    @property
    def rows(self) -> int:
        """Rows gathered and not yet taken."""
        ...

    def add(self, result: object, ts_us: int) -> Iterator[Body]:
        """Take the rows of one call that began at `ts_us`, and give the batches that are full now."""
        ...

    def take(self) -> Body:
        """A batch of everything gathered (at least one row)."""
        ...


def collector(function: str, stream: str, batch_rows: int) -> Collector:
    """What gathers the rows that `function` returns for `stream`."""
    if stream == READINGS:
        return ReadingsCollector(batch_rows, function)
    return TableCollector(function, stream, batch_rows)


def checked_value(name: str, value: object, function: str) -> float:
    """`value` as float64; RejectError for what is no number, and for integers that float64 cannot hold exactly."""
    if type(value) is float:
        return value
    if type(value) is int and -_EXACT_MAX <= value <= _EXACT_MAX:
        return float(value)
    number = int(value) if isinstance(value, bool) else whole(value)
    if number is not None:
        exact = exact_float(number)
        if exact is None:
            raise RejectError(
                f"value {quoted(value)} of {quoted(name)} has no exact float64, as readings have; give function "
                f"{function} a stream of its own, as stream={quoted(function + '_rows')}: there integers are exact"
            )
        return exact
    if isinstance(value, SupportsFloat) and not isinstance(value, (str, complex)):
        try:
            return float(value)
        except Exception as error:  # noqa: BLE001 - a user's type may raise anything, and is told what it was
            raise RejectError(
                f"value {quoted(value)} of {quoted(name)} of function {function} gives no float: {error}"
            ) from None
    raise RejectError(
        f"value {quoted(value)} of {quoted(name)} is {type(value).__name__}; a reading is a number: leave it out, or "
        f"give function {function} a stream of its own for text and other columns, as stream="
        f"{quoted(function + '_rows')}"
    )


def _own_stream(what: str, function: str) -> RejectError:
    return RejectError(
        f"{what} is no reading; return numbers, a mapping name -> number or pairs (name, number), or give function "
        f"{function} a stream of its own for rows with columns, as stream={quoted(function + '_rows')}"
    )


def rows_of(result: object, ts_us: int, function: str) -> Iterator[Row]:
    """The rows of a call's `result` (see the module) that began at `ts_us`; RejectError names what is wrong."""
    if isinstance(result, (str, bytes)):
        raise _own_stream(f"function {function} returned {quoted(result)}, which", function)
    if is_row(result):
        for name, value in fields_of(result).items():
            checked = checked_name(name)
            yield ts_us, checked, checked_value(checked, value, function)
        return
    if not isinstance(result, Iterable):
        if isinstance(result, (SupportsFloat, SupportsIndex)):
            yield ts_us, checked_name(function), checked_value(function, result, function)
            return
        raise _own_stream(f"function {function} returned {quoted(result)}, which", function)
    for number, row in enumerate(result):
        if number >= CALL_ROWS_MAX:
            raise LimitError(f"rows of one call of function {function}", number + 1, CALL_ROWS_MAX, "return fewer")
        if not isinstance(row, (tuple, list)) or len(row) not in (2, 3):
            raise _own_stream(f"row {quoted(row)}, not (name, value) or (ts_us, name, value),", function)
        ts, name, value = (ts_us, *row) if len(row) == 2 else row
        if type(ts) is not int or not -_INT64_MAX <= ts <= _INT64_MAX:
            try:
                ts = microseconds(ts)
            except RejectError as error:
                raise RejectError(f"time stamp {quoted(ts)} of {quoted(name)} of function {function} {error}") from None
        yield ts, checked_name(name), checked_value(name, value, function)


def _narrowed(codes: array[int], entries: int) -> array[int]:
    typecode = "B" if entries <= 256 else "h" if entries <= 32_768 else "i"
    return codes if codes.typecode == typecode else array(typecode, codes)


def encoded(ts: array[int], names: tuple[str, ...], codes: array[int], values: array[float]) -> Body:
    """One batch of the stream type `readings`."""
    body = wire.encode_columns(
        [columns.timestamps("ts", ts), columns.dictionary("name", codes, names), columns.floats("value", values)]
    )
    return len(ts), body


class ReadingsCollector:
    """Gathers rows of the stream `readings` until there is a batch worth sending."""

    def __init__(self, batch_rows: int, function: str) -> None:
        self._batch_rows = batch_rows
        self._function = function
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
        return self._single(list(rows_of(result, ts_us, self._function)))

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
