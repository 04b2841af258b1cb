"""Which columns tables have: the tables that are always known, the types a lake takes, and the check before staging.

Delta's own writers take what does not fit (a 1.5 becomes 1 in an integer column); here a table of another type than its
lake table's is refused, before anything is written. Every column may hold nulls.

A column's way to fold partial rows is in its Arrow field's metadata under `edgewater.fold` (see `aggregate.py`).

**Delivery**: pure. **Bounds**: the types of `_TYPES`, flat; `COLUMNS_MAX` columns; a column name is at most 128
characters."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from edge_agent.contract.errors import LimitError, RejectError, quoted
from edge_agent.contract.limits import COLUMN_NAME_CHARACTERS_MAX
from lake.transaction.growth import COLUMNS_MAX, grown
from lake.transaction.records import Column

__all__ = [
    "COLUMNS_MAX",
    "DEAD_LETTERS",
    "FOLD",
    "KNOWN_TABLES",
    "READINGS",
    "READINGS_1M",
    "SKIPPED",
    "arrow_schema",
    "columns_of",
    "columns_with",
    "fitted",
    "known_columns",
]

FOLD = b"edgewater.fold"

_TIMESTAMP = pa.timestamp("us", tz="UTC")
_TYPES: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "byte": pa.int8(),
    "short": pa.int16(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": _TIMESTAMP,
}
_NAMES = {arrow: name for name, arrow in _TYPES.items()}
_SAME = {
    pa.large_string(): "string",
    pa.string_view(): "string",
    pa.large_binary(): "binary",
    pa.binary_view(): "binary",
}

_PROVENANCE = [
    ("device", pa.string()),
    ("epoch", pa.int64()),
    ("seq", pa.int64()),
    ("row", pa.int32()),
    ("function", pa.string()),
    ("function_version", pa.string()),
    ("received_at", _TIMESTAMP),
    ("trace", pa.string()),
]

READINGS = pa.schema([("ts", _TIMESTAMP), ("name", pa.string()), ("value", pa.float64()), *_PROVENANCE])


def _folded(name: str, type: pa.DataType, fold: str) -> pa.Field:
    return pa.field(name, type, metadata={FOLD: fold.encode()})


def _ends(end: str) -> list[pa.Field]:
    """The value of a group's first or last reading, and what orders it: (ts, epoch, seq, row) of that reading."""
    fold = f"{end}({end}_ts, {end}_epoch, {end}_seq, {end}_row)"
    return [
        _folded(f"{end}_ts", _TIMESTAMP, fold),
        _folded(f"{end}_epoch", pa.int64(), fold),
        _folded(f"{end}_seq", pa.int64(), fold),
        _folded(f"{end}_row", pa.int32(), fold),
        _folded(end, pa.float64(), fold),
    ]


READINGS_1M = pa.schema(
    [
        _folded("minute", _TIMESTAMP, "key"),
        _folded("device", pa.string(), "key"),
        _folded("name", pa.string(), "key"),
        _folded("count", pa.int64(), "sum"),
        _folded("nan_count", pa.int64(), "sum"),
        _folded("sum", pa.float64(), "sum"),
        _folded("min", pa.float64(), "min"),
        _folded("max", pa.float64(), "max"),
        _folded("mean", pa.float64(), "mean(count)"),
        _folded("m2", pa.float64(), "m2(count, mean)"),
        *_ends("first"),
        *_ends("last"),
    ]
)
"""Partial aggregates of `readings` per device, name and minute. `count` values that are neither null nor NaN with their
sum, minimum, maximum, mean and m2 (sum of squared deviations from the mean); `nan_count` values that are NaN; the
first and last non-null value by (ts, epoch, seq, row)."""

DEAD_LETTERS = pa.schema(
    [
        ("payload", pa.binary()),
        ("reason", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("device", pa.string()),
        ("epoch", pa.int64()),
        ("seq", pa.int64()),
        ("received_at", _TIMESTAMP),
        ("job", pa.string()),
    ]
)
"""What could not land, with the reason. `topic`, `partition` and `offset` say where it was in the log, `topic` alone
where it was on a device that put it aside itself; `job` is the job that put it aside, null where none did."""

SKIPPED = pa.schema(
    [
        ("device", pa.string()),
        ("epoch", pa.int64()),
        ("seq_first", pa.int64()),
        ("seq_last", pa.int64()),
        ("stream", pa.string()),
        ("rows", pa.int64()),
        ("reason", pa.string()),
        ("received_at", _TIMESTAMP),
    ]
)
"""Seqs that will never come; `stream` and `rows` are null where nobody knows what they held."""

KNOWN_TABLES: dict[str, pa.Schema] = {
    "readings": READINGS,
    "readings_1m": READINGS_1M,
    "dead_letters": DEAD_LETTERS,
    "skipped": SKIPPED,
}
"""Tables that everybody may ask for, in a lake that does not have them yet too."""


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """The Arrow schema of a table's columns, with fold metadata."""
    return pa.schema(
        pa.field(column.name, _TYPES[column.type], metadata={FOLD: column.fold.encode()} if column.fold else None)
        for column in columns
    )


def _type_name(field: pa.Field, table: str) -> str:
    arrow = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    name = _NAMES.get(arrow) or _SAME.get(arrow)
    if name is None:
        raise RejectError(
            f"column {quoted(field.name)} of table {table} has type {arrow}, which a lake does not store; "
            f"use one of {', '.join(str(known) for known in _NAMES)}"
        )
    return name


def columns_of(schema: pa.Schema, table: str) -> tuple[Column, ...]:
    """The columns that a table made from `schema` has; dictionary columns count as their values. RejectError."""
    if len(schema) > COLUMNS_MAX:
        raise LimitError(
            f"columns of table {table}", len(schema), COLUMNS_MAX, "store fewer columns, or several tables"
        )
    names = [name.lower() for name in schema.names]
    for field, lower in zip(schema, names, strict=True):
        if not 0 < len(field.name) <= COLUMN_NAME_CHARACTERS_MAX or names.count(lower) > 1:
            raise RejectError(
                f"column name {quoted(field.name)} of table {table} is empty, too long or there twice "
                "(upper and lower case do not differ); rename it"
            )
    if not names:
        raise RejectError(f"table {table} would have no columns; give at least one")
    return tuple(
        Column(field.name, _type_name(field, table), ((field.metadata or {}).get(FOLD) or b"").decode() or None)
        for field in schema
    )


def columns_with(columns: tuple[Column, ...], schema: pa.Schema, table: str) -> tuple[Column, ...]:
    """`columns` of `table` and, at the end, those of `schema` that it has not. RejectError: it cannot take them."""
    known = {column.name: column for column in columns}
    lower = {name.lower(): name for name in known}
    new = [field for field in schema if field.name not in known]
    if not new:
        return columns
    for field in new:
        if field.name.lower() in lower:
            raise RejectError(
                f"table {table} has no column {quoted(field.name)} but {quoted(lower[field.name.lower()])}, and upper "
                "and lower case do not differ; rename it"
            )
    if len(columns) + len(new) > COLUMNS_MAX:
        raise LimitError(
            f"columns of table {table}", len(columns) + len(new), COLUMNS_MAX, "store fewer columns, or several tables"
        )
    return columns + columns_of(pa.schema(new), table)


def known_columns(columns: tuple[Column, ...], table: str) -> tuple[Column, ...]:
    """`columns` of `table` and those that its definition in `KNOWN_TABLES`, if it has one, got since."""
    if table not in KNOWN_TABLES:
        return columns
    return grown(columns, columns_of(KNOWN_TABLES[table], table)) or columns


def fitted(rows: pa.Table, columns: tuple[Column, ...], table: str) -> pa.Table:
    """`rows` with exactly `columns`, in their order; absent ones are null. No value changes.

    RejectError naming the column, when `rows` has one that the table has not, or of another type.
    """
    known = {column.name: column for column in columns}
    for field in rows.schema:
        column = known.get(field.name)
        if column is None:
            raise RejectError(f"table {table} has no column {quoted(field.name)}; its columns are {', '.join(known)}")
        if (found := _type_name(field, table)) != column.type:
            raise RejectError(
                f"column {quoted(field.name)} of table {table} is {column.type} ({_TYPES[column.type]}), the rows have "
                f"{found} ({field.type}); convert it before appending"
            )
    fields, arrays = [], []
    for column in columns:
        index = rows.schema.get_field_index(column.name)
        array = rows.column(index) if index >= 0 else pa.nulls(rows.num_rows, _TYPES[column.type])
        wanted = array.type if pa.types.is_dictionary(array.type) else _TYPES[column.type]
        if pa.types.is_dictionary(wanted) and wanted.value_type != _TYPES[column.type]:
            wanted = pa.dictionary(wanted.index_type, _TYPES[column.type])
        fields.append(pa.field(column.name, wanted, metadata={FOLD: column.fold.encode()} if column.fold else None))
        arrays.append(array if array.type == wanted else array.cast(wanted))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
