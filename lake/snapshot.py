"""A snapshot of the lake: every table at the version that one published transaction gave it.

**Delivery**: a snapshot stays what it is while writers go on; what it needs is kept for `snapshots_kept_s` (an hour),
after that reading it fails clearly. **Bounds**: file lists and results are held in memory; nothing is held open
between calls."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from edge_agent.contract.errors import RejectError, quoted
from lake import layout
from lake.delta import files_at
from lake.schema import KNOWN_TABLES, arrow_schema, columns_of, known_columns
from lake.storage import Storage
from lake.transaction.records import Column

if TYPE_CHECKING:
    from lake.query import Answer, Relation
    from lake.result import Result

__all__ = ["Snapshot", "Table", "TableAt", "moment"]


@dataclass(frozen=True, slots=True)
class TableAt:
    """A table in a snapshot: its Delta version, its columns, and whether older files may have fewer columns."""

    version: int
    schema: tuple[Column, ...]
    evolved: bool


class Snapshot:
    """All tables as of `transaction` (0: nothing is published yet)."""

    def __init__(self, storage: Storage, transaction: int, tables: Mapping[str, TableAt]) -> None:
        self.transaction = transaction
        self._storage = storage
        self._tables = dict(tables)
        self._files: dict[str, pa.Table] = {}

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables, sorted."""
        return tuple(sorted(self._tables))

    @property
    def versions(self) -> dict[str, int]:
        """The Delta version of each table."""
        return {name: table.version for name, table in self._tables.items()}

    def columns(self, table: str) -> tuple[Column, ...]:
        """The columns of `table`; those of the tables everybody knows are there before the table is. RejectError."""
        if table in self._tables:
            return known_columns(self._tables[table].schema, table)
        if table in KNOWN_TABLES:
            return columns_of(KNOWN_TABLES[table], table)
        near = difflib.get_close_matches(table.lower(), self.tables, n=1)
        raise RejectError(
            f"there is no table {quoted(table)} in this snapshot; {f'did you mean {near[0]}? ' if near else ''}"
            f"it has {', '.join(self.tables) or 'none'}"
        )

    def files(self, table: str) -> list[str]:
        """Where the files of `table` are; none for a table that nothing was appended to."""
        return self._locations(table, self._file_list(table))

    def rows(self, table: str) -> int:
        """How many rows the files of `table` have (of a mergeable table: partial rows), by their statistics."""
        files = self._file_list(table)
        return int(pc.sum(files["num_records"], min_count=0).as_py()) if files.num_rows else 0

    def table(self, table: str) -> Table:
        """`table` in this snapshot. RejectError: there is none."""
        return Table(self, table)

    def scan(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        device: str | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
    ) -> pa.Table:
        """`Table.scan` as a pyarrow.Table."""
        return self.table(table).scan(columns, device, start, end).arrow()

    def query(
        self,
        sql: str,
        parameters: Sequence[object] | None = None,
        *,
        timeout_s: float | None = None,
        memory_bytes: int | None = None,
    ) -> Result:
        """The answer to one SELECT (DuckDB's SQL, with `?` for `parameters`) over the snapshot's tables.

        A mergeable table is folded; its partial rows are `<table>_partials`. RejectError: the SQL is wrong, wants
        anything but to read these tables, takes longer than `timeout_s`, or needs more than `memory_bytes`.
        """
        from lake.query import Limits, run

        return run(self._relations(sql), sql, parameters, Limits(timeout_s, memory_bytes))

    def stream(
        self,
        sql: str,
        parameters: Sequence[object] | None = None,
        *,
        timeout_s: float | None = None,
        memory_bytes: int | None = None,
    ) -> AbstractContextManager[Answer]:
        """As `query`, for an answer of any size: a context in which its batches come one after the other."""
        from lake.query import Limits, answering

        return answering(self._relations(sql), sql, parameters, Limits(timeout_s, memory_bytes))

    def _relations(self, sql: str) -> list[Relation]:
        relations = []
        for table in sorted({*self._tables, *KNOWN_TABLES}):
            # Naming a table is what makes its files be looked up; a query that finds its way to another gets an error.
            named = table in sql.lower()
            relations.append(self._relation(table, self.files(table) if named else None))
        return relations

    def relation(self, table: str, conditions: Sequence[tuple[str, str, object]] = ()) -> Relation:
        """`table` for a query, with those files that may have rows for which all (column, operator, value) hold."""
        return self._relation(table, self._locations(table, _pruned(self._file_list(table), conditions)))

    def newest(self, table: str, column: str, files_max: int) -> tuple[Relation, datetime | None]:
        """`table` with only those `files_max` files that have the highest values in the timestamp `column`, and a
        moment that no value in the other files is after (None: there are no others)."""
        files, high = self._file_list(table), f"max.{column}"
        if files.num_rows <= files_max or high not in files.column_names:
            return self.relation(table), None
        ordered = files.sort_by([(high, "descending")])
        rest = ordered[high][files_max].as_py()
        before = None if rest is None else rest if rest.tzinfo else rest.replace(tzinfo=UTC)
        return self._relation(table, self._locations(table, ordered.slice(0, files_max))), before

    def _relation(self, table: str, files: list[str] | None) -> Relation:
        from lake.query import Relation

        columns, at = self.columns(table), self._tables.get(table)
        return Relation(table, columns, files, at is not None and (at.evolved or columns != at.schema))

    def _file_list(self, table: str) -> pa.Table:
        if table not in self._files:
            known = self._tables.get(table)
            if known is None:
                self.columns(table)
                return pa.table({"path": pa.array([], pa.string())})
            self._files[table] = files_at(self._storage, layout.table_folder(table), known.version)
        return self._files[table]

    def _locations(self, table: str, files: pa.Table) -> list[str]:
        folder = layout.table_folder(table)
        return [self._storage.location(f"{folder}/{path}") for path in files["path"].to_pylist()]


class Table:
    """One table in a snapshot."""

    def __init__(self, snapshot: Snapshot, name: str) -> None:
        snapshot.columns(name)
        self.name = name
        self._snapshot = snapshot

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns; how a column of partial rows folds is in its metadata."""
        return arrow_schema(self._snapshot.columns(self.name))

    def scan(
        self,
        columns: Sequence[str] | None = None,
        device: str | None = None,
        start: datetime | str | None = None,
        end: datetime | str | None = None,
    ) -> Result:
        """Rows (folded, if the table is mergeable) with `columns` (all), of one `device` (any), from `start` on and
        before `end` by the table's first timestamp column (`ts`, if it has one); moments are datetimes with a time
        zone or text like 2026-01-01T00:00Z. Files that cannot have such rows are not read. RejectError."""
        from lake.query import run, select_sql

        schema = self._snapshot.columns(self.name)
        times = [column.name for column in schema if column.type == "timestamp"]
        conditions: list[tuple[str, str, object]] = []
        if device is not None:
            conditions.append(("device", "=", device))
        if start is not None:
            conditions.append((_time_column(times, self.name), ">=", moment(start)))
        if end is not None:
            conditions.append((_time_column(times, self.name), "<", moment(end)))
        names = {column.name: column for column in schema}
        for name in [*(columns or ()), *(name for name, _, _ in conditions)]:
            if name not in names:
                raise RejectError(
                    f"table {self.name} has no column {quoted(name)}; its columns are {', '.join(sorted(names))}"
                )
        # Of a mergeable table only keys may choose files: other columns change when partial rows are folded.
        keys = [condition for condition in conditions if names[condition[0]].fold in (None, "key")]
        sql, parameters = select_sql(self.name, columns, conditions)
        return run([self._snapshot.relation(self.name, keys)], sql, parameters)


def moment(value: datetime | str) -> datetime:
    """A point in time, UTC, from a datetime with a time zone or text in ISO 8601 with one. RejectError."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise RejectError(f"{quoted(value)} is not a time; write it like 2026-01-01T00:00Z") from None
    if value.tzinfo is None:
        raise RejectError(
            f"{value.isoformat()} has no time zone; add one: {value.isoformat()}Z as text, or tzinfo=datetime.UTC"
        )
    return value.astimezone(UTC)


def _time_column(times: list[str], table: str) -> str:
    if not times:
        raise RejectError(f"table {table} has no timestamp column; leave out start and end")
    return "ts" if "ts" in times else times[0]


def _pruned(files: pa.Table, conditions: Sequence[tuple[str, str, object]]) -> pa.Table:
    """The files that may have rows which fulfil all conditions; a file without a statistic may."""
    for name, operator, value in conditions:
        low, high = f"min.{name}", f"max.{name}"
        if operator in ("=", "<") and low in files.column_names:
            compare = pc.less_equal if operator == "=" else pc.less
            files = files.filter(pc.fill_null(compare(files[low], _scalar(value, files[low].type)), True))
        if operator in ("=", ">=") and high in files.column_names:
            files = files.filter(pc.fill_null(pc.greater_equal(files[high], _scalar(value, files[high].type)), True))
    return files


def _scalar(value: object, type: pa.DataType) -> pa.Scalar:
    return pa.scalar(value).cast(type)
