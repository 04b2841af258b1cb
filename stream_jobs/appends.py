"""What one transaction appends: rows as their tables take them, and nothing that contradicts what came before.

The lake checks rows against the tables that it has. Rows of one transaction must go together as well: two batches may
bring the same new column in different types, or create a table each in its way. The first that comes decides.

Whole numbers for a column of floating-point numbers are converted where that is exact; nothing else is converted.

**Delivery**: pure but for `check`. **Bounds**: those of the rows given; what fits costs a look-up and a comparison of
schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from edge_agent.contract.errors import RejectError, quoted

__all__ = ["Appends", "Check", "Rows", "joined"]

Rows = Any
"""A pyarrow Table."""
Check = Callable[[str, Rows], Rows]
"""(table name, rows) -> the rows as the table takes them; raises an EdgewaterError when it does not take them. Rows
without columns give the table's own, where there is one."""
_Types = dict[str, Any]
"""Column name -> Arrow type, a dictionary's being that of its values."""

_EXACT_BELOW = float(1 << 63)


class Appends:
    """Table name -> the parts that are appended to it, in `tables`."""

    def __init__(self, check: Check | None = None) -> None:
        self.tables: dict[str, list[Rows]] = {}
        self._check = check
        self._types: dict[str, _Types] = {}
        self._last: dict[str, Any] = {}

    def add(self, found: Mapping[str, Rows]) -> None:
        """Append to all the tables of `found`, or to none: RejectError."""
        fitted = {table: self._fitted(table, rows) for table, rows in found.items()}
        for table, rows in fitted.items():
            if rows.num_rows:
                self.put(table, rows)

    def put(self, table: str, rows: Rows) -> None:
        """Append rows that are known to fit."""
        self.tables.setdefault(table, []).append(rows)
        if self._last.get(table) != rows.schema:
            self._last[table] = rows.schema
            self._types.setdefault(table, {}).update(_types(rows.schema))

    def _fitted(self, table: str, rows: Rows) -> Rows:
        if self._check is not None:
            rows = self._as_the_lake_takes_it(table, rows, self._check)
        if table in self._last and self._last[table] != rows.schema:
            rows = _agreeing(table, rows, self._types[table])
        return rows

    @staticmethod
    def _as_the_lake_takes_it(table: str, rows: Rows, check: Check) -> Rows:
        try:
            return check(table, rows)
        except RejectError:
            try:
                types = _types(check(table, pa.table({})).schema)
            except RejectError:
                types = {}
            converted = _with_doubles(rows, types)
            if converted is rows:
                raise
            return check(table, converted)


def joined(parts: list[Rows]) -> Rows:
    """The parts as one table; a column that one of them has not is null there."""
    if len(parts) == 1:
        return parts[0]
    if all(part.schema == parts[0].schema for part in parts):
        return pa.concat_tables(parts)
    # The same values may be a dictionary in one part and plain in another.
    types: _Types = {}
    for part in parts:
        for field in part.schema:
            kind = types.setdefault(field.name, field.type)
            types[field.name] = kind if kind == field.type else _value_type(field.type)
    plain = [
        part.cast(pa.schema([field.with_type(types[field.name]) for field in part.schema])) for part in parts
    ]  # fmt: skip
    return pa.concat_tables(plain, promote_options="default")


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _types(schema: Any) -> _Types:
    return {field.name: _value_type(field.type) for field in schema}


def _agreeing(table: str, rows: Rows, types: _Types) -> Rows:
    """`rows`, if they can be in one transaction with those before them."""
    rows = _with_doubles(rows, types)
    spelling = {name.lower(): name for name in types}
    for field in rows.schema:
        before = spelling.get(field.name.lower())
        if before is None:
            continue
        if before != field.name:
            raise RejectError(
                f"column {quoted(field.name)} of table {table} was {quoted(before)} in rows just before, and upper and "
                "lower case do not differ; rename it"
            )
        if _value_type(field.type) != types[before]:
            raise RejectError(
                f"column {quoted(field.name)} of table {table} was {types[before]} in rows just before, these have "
                f"{field.type}; send one type"
            )
    return rows


def _with_doubles(rows: Rows, types: _Types) -> Rows:
    """`rows` with whole numbers as floating-point numbers where `types` says so and that is exact."""
    for index, field in enumerate(rows.schema):
        if pa.types.is_integer(field.type) and types.get(field.name) == pa.float64():
            doubles = _doubles(rows.column(index).cast(pa.int64()))
            if doubles is not None:
                rows = rows.set_column(index, field.with_type(pa.float64()), doubles)
    return rows


def _doubles(column: Any) -> Any:
    """The numbers as float64, or None where one would change."""
    doubles = column.cast(pa.float64(), safe=False)
    inside = pc.less(doubles, _EXACT_BELOW)
    back = pc.if_else(inside, doubles, 0.0).cast(pa.int64(), safe=False)
    same = pc.and_(inside, pc.equal(back, column))
    return doubles if pc.all(same, min_count=0).as_py() else None
