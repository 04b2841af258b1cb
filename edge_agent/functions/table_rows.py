"""Rows of streams other than `readings`: from mappings and dataclasses to columns of their own type.

A column's type is that of its first value in this process; of a dataclass, what its annotation says. A column of
integers that meets a float becomes one of floats; other mixtures are errors. A column that a row has not is null there.

**Delivery**: pure; `TableCollector.add` takes all rows of a call or, with RejectError, none of them.
**Bounds**: a batch is full at `batch_rows` rows or BATCH_BYTES; a row has ROW_BYTES_MAX and BATCH_COLUMNS_MAX columns;
a function has COLUMNS_KNOWN_MAX columns; a call CALL_ROWS_MAX rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edge_agent.contract import columns, limits, wire
from edge_agent.contract.columns import Column
from edge_agent.contract.errors import LimitError, RejectError, quoted

from .cell import cell, exact_float, microseconds, text_bytes

__all__ = ["CALL_ROWS_MAX", "TableCollector", "fields_of", "is_row"]

CALL_ROWS_MAX = 1_000_000
ROW_BYTES_MAX = 128 * limits.KIB
BATCH_BYTES = 256 * limits.KIB
COLUMNS_KNOWN_MAX = 1024
_RESERVED = frozenset(("device", "epoch", "seq", "row", "function", "function_version", "received_at", "trace"))
"""Where a row comes from: columns that every table has already."""
_ANNOTATED = {"float": "float64", "int": "int64", "bool": "bool", "str": "string", "datetime": "timestamp"}
_VALUE_BYTES = 9

assert BATCH_BYTES + ROW_BYTES_MAX < limits.BATCH_BYTES_MAX, "a batch fits its message although it does not compress"

Row = tuple[int, dict[str, Any]]
Body = tuple[int, bytes]


def is_row(value: object) -> bool:
    """Whether `value` is one row: a mapping, an instance of a dataclass, or a named tuple."""
    return isinstance(value, Mapping) or _has_fields(value)


def _has_fields(value: object) -> bool:
    if isinstance(value, type):
        return False
    return dataclasses.is_dataclass(value) or (isinstance(value, tuple) and hasattr(value, "_fields"))


def fields_of(value: Any) -> Mapping[Any, object]:
    """A row's columns and values."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple):
        return dict(zip(value._fields, value, strict=True))  # type: ignore[attr-defined]  # see `_has_fields`
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def annotated_types(kind: type) -> dict[str, str]:
    """Column -> type for the fields of a dataclass or named tuple that are annotated with a column's type (or None)."""
    found = {}
    if dataclasses.is_dataclass(kind):
        annotations: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(kind)}
    else:
        annotations = getattr(kind, "__annotations__", {}) if hasattr(kind, "_fields") else {}
    for name, annotation in annotations.items():
        text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
        parts = text.replace("Optional[", "").replace("typing.", "").replace("datetime.", "").replace("]", "")
        names = {part.strip() for part in parts.split("|")} - {"None"}
        if len(names) == 1 and (known := _ANNOTATED.get(names.pop())) is not None:
            found[name] = known
    return found


class TableCollector:
    """Gathers rows of one stream until there is a batch worth sending."""

    def __init__(self, function: str, stream: str, batch_rows: int) -> None:
        self._function = function
        self._stream = stream
        self._batch_rows = batch_rows
        self._types: dict[str, str] = {}
        self._fixed: set[str] = set()
        """Columns whose type an annotation has decided."""
        self._spellings: set[str] = set()
        self._kinds: set[type] = set()
        self._clear()

    def _clear(self) -> None:
        self._ts: list[int] = []
        self._values: dict[str, list[Any]] = {}
        self._integers: set[str] = set()
        """Columns that have gathered integers, which a float would turn into floats."""
        self._bytes = 0

    @property
    def rows(self) -> int:
        """Rows gathered and not yet taken."""
        return len(self._ts)

    # -- checking ----------------------------------------------------------------------------------------------

    def add(self, result: object, ts_us: int) -> Iterator[Body]:
        """Take the rows of one call that began at `ts_us`, and give the batches that are full now.

        The rows are checked before the first batch is given; consume the iterator to its end.
        """
        if result is None:
            return iter(())
        before = dict(self._types), set(self._fixed), set(self._spellings), set(self._kinds)
        try:
            rows = [self._checked(row, ts_us) for row in self._rows_of(result)]
        except BaseException:
            self._types, self._fixed, self._spellings, self._kinds = before
            raise
        return self._put([row for row in rows if row is not None])

    def _rows_of(self, result: object) -> Iterator[object]:
        if is_row(result):
            yield result
            return
        if isinstance(result, (str, bytes)) or not isinstance(result, Iterable):
            raise RejectError(
                f"function {self._function} returned {quoted(result)}; rows of stream {self._stream} are mappings "
                "column -> value, or dataclasses, one or a list of them"
            )
        for number, row in enumerate(result):
            if number >= CALL_ROWS_MAX:
                raise LimitError(
                    f"rows of one call of function {self._function}", number + 1, CALL_ROWS_MAX, "return fewer at once"
                )
            if not is_row(row):
                raise RejectError(
                    f"row {quoted(row)} of function {self._function} is no mapping column -> value and no dataclass, "
                    f"as stream {self._stream} takes"
                )
            yield row

    def _checked(self, row: object, ts_us: int) -> tuple[int, dict[str, Any], int] | None:
        kind = type(row)
        if kind not in self._kinds:
            self._learn(kind)
        fields = fields_of(row)
        if not fields:
            return None
        values = {}
        size = 8
        for name, value in fields.items():
            if name == "ts":
                ts_us = ts_us if value is None else self._time(value)
                continue
            if name not in self._spellings:
                self._check_name(name)
            typed = self._typed(name, value)
            values[name] = typed
            size += _VALUE_BYTES + (text_bytes(typed) if isinstance(typed, str) else 0)
        if len(values) >= limits.BATCH_COLUMNS_MAX:
            raise LimitError(
                f"columns of a row of function {self._function}", len(values), limits.BATCH_COLUMNS_MAX - 1,
                "split them over several streams, or send name and value as rows",
            )  # fmt: skip
        if size > ROW_BYTES_MAX:
            raise LimitError(
                f"bytes of a row of function {self._function}", size, ROW_BYTES_MAX, "shorten its texts, or split it"
            )
        return ts_us, values, size

    def _learn(self, kind: type) -> None:
        for name, known in annotated_types(kind).items():
            if name != "ts":
                self._types.setdefault(name, known)
                self._fixed.add(name)
        if len(self._kinds) < COLUMNS_KNOWN_MAX:
            self._kinds.add(kind)

    def _time(self, value: object) -> int:
        try:
            return microseconds(value)
        except RejectError as error:
            raise RejectError(f"value {quoted(value)} of column 'ts' of function {self._function} {error}") from None

    def _check_name(self, name: object) -> None:
        whose = f"column name {quoted(name)} of function {self._function}"
        if not isinstance(name, str) or not 1 <= len(name) <= limits.COLUMN_NAME_CHARACTERS_MAX:
            raise RejectError(
                f"{whose} is not allowed; use text of 1 to {limits.COLUMN_NAME_CHARACTERS_MAX} characters"
            )
        try:
            text_bytes(name)
        except RejectError as error:
            raise RejectError(f"{whose} {error}") from None
        if "\0" in name:
            raise RejectError(f"{whose} holds a NUL character")
        lowered = name.lower()
        if lowered in _RESERVED:
            raise RejectError(f"{whose} is taken: every row says so where it comes from; use another, as my_{lowered}")
        other = next((known for known in self._spellings if known != name and known.lower() == lowered), None)
        if other is not None or lowered == "ts":
            raise RejectError(f"{whose} differs from {other or 'ts'} only in case, which tables do not tell apart")
        if len(self._spellings) >= COLUMNS_KNOWN_MAX:
            raise LimitError(
                f"columns of function {self._function}", len(self._spellings) + 1, COLUMNS_KNOWN_MAX,
                "send what varies as a value, in rows of name and value",
            )  # fmt: skip
        self._spellings.add(name)

    def _typed(self, name: str, value: object) -> Any:
        """`value` as the type of its column has it; None is null."""
        found = cell(value, name, self._function)
        if found is None:
            return None
        kind, exact = found
        known = self._types.setdefault(name, kind)
        if kind == known:
            return exact
        if known == "float64" and kind == "int64":
            number = exact_float(int(exact))
            if number is not None:
                return number
            raise RejectError(f"{self._whose(name, value)} has no exact float64, which the column is; send it as text")
        if known == "int64" and kind == "float64" and name not in self._fixed:
            self._types[name] = "float64"
            return exact
        why = "by its annotation" if name in self._fixed else "since its first value"
        raise RejectError(
            f"{self._whose(name, value)} is {kind}, the column is {known} {why}; "
            "give one type a column, as float(value) or str(value)"
        )

    def _whose(self, name: str, value: object) -> str:
        return f"value {quoted(value)} of column {quoted(name)} of function {self._function}"

    # -- gathering ---------------------------------------------------------------------------------------------

    def _put(self, rows: list[tuple[int, dict[str, Any], int]]) -> Iterator[Body]:
        for ts_us, values, size in rows:
            if self._ts and not (self._has_place(values) and self._widened(values)):
                yield self.take()
            count = len(self._ts)
            for name, value in values.items():
                column = self._values.get(name)
                if column is None:
                    column = self._values[name] = [None] * count
                column.append(value)
                if type(value) is int:
                    self._integers.add(name)
            self._ts.append(ts_us)
            if len(values) < len(self._values):
                for column in self._values.values():
                    if len(column) == count:
                        column.append(None)
            self._bytes += size + _VALUE_BYTES * (len(self._values) - len(values))
            if len(self._ts) >= self._batch_rows or self._bytes >= BATCH_BYTES:
                yield self.take()

    def _has_place(self, values: dict[str, Any]) -> bool:
        """Whether a batch can have the gathered columns and those of this row too."""
        if len(self._values) + len(values) < limits.BATCH_COLUMNS_MAX:
            return True
        return len(self._values.keys() | values.keys()) < limits.BATCH_COLUMNS_MAX

    def _widened(self, values: dict[str, Any]) -> bool:
        """Make floats of gathered integers where this row has a float; False where one of them has no exact float."""
        for name in [name for name in self._integers if type(values.get(name)) is float]:
            gathered = self._values[name]
            floats = [exact_float(each) if type(each) is int else each for each in gathered]
            if any(new is None and old is not None for new, old in zip(floats, gathered, strict=True)):
                return False
            self._values[name] = floats
            self._integers.remove(name)
        return True

    def take(self) -> Body:
        """A batch of everything gathered (at least one row)."""
        made = [columns.timestamps("ts", self._ts)]
        made += [column for name, values in self._values.items() if (column := self._column(name, values)) is not None]
        body = len(self._ts), wire.encode_columns(made)
        self._clear()
        return body

    def _column(self, name: str, values: list[Any]) -> Column | None:
        kinds = {type(value) for value in values if value is not None}
        if not kinds:
            # Nothing but nulls says nothing of a type; the column comes with its first value.
            return None
        if kinds == {float}:
            return columns.floats(name, values)
        if kinds == {str}:
            return columns.strings(name, values)
        if kinds == {bool}:
            return columns.booleans(name, values)
        if self._types[name] == "timestamp":
            return columns.timestamps(name, values)
        return columns.integers(name, values)
