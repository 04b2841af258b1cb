"""A snapshot of the lake: every table at the version that one published transaction gave it.

**Delivery**: a snapshot stays what it is while writers go on; what it needs is kept for `snapshots_kept_s` (an hour),
after that reading it fails clearly. **Bounds**: file lists and results are held in memory; nothing is held open
between calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from edge_agent.contract.errors import RejectError, quoted
from lake import layout
from lake.delta import files_at
from lake.schema import KNOWN_TABLES, columns_of, known_columns
from lake.storage import Storage
from lake.transaction.records import Column

if TYPE_CHECKING:
    from lake.query import Relation
    from lake.result import Result

__all__ = ["Snapshot", "TableAt"]


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
        raise RejectError(
            f"there is no table {quoted(table)} in this snapshot; it has {', '.join(self.tables) or 'none'}"
        )

    def files(self, table: str) -> list[str]:
        """Where the files of `table` are; none for a table that nothing was appended to."""
        return self._locations(table, self._file_list(table))

    def rows(self, table: str) -> int:
        """How many rows the files of `table` have (of a mergeable table: partial rows), by their statistics."""
        files = self._file_list(table)
        return int(pc.sum(files["num_records"], min_count=0).as_py()) if files.num_rows else 0

    def scan(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        device: str | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> pa.Table:
        """Rows of `table` (folded, if it is mergeable) with `columns` (all), of one `device` (any), from `start` on
        and before `end` by the table's first timestamp column. Files that cannot have such rows are not read.
        RejectError."""
        from lake.query import run, select_sql

        schema = self.columns(table)
        times = [column.name for column in schema if column.type == "timestamp"]
        conditions: list[tuple[str, str, object]] = []
        if device is not None:
            conditions.append(("device", "=", device))
        if start is not None:
            conditions.append((_time_column(times, table), ">=", _utc(start)))
        if end is not None:
            conditions.append((_time_column(times, table), "<", _utc(end)))
        names = {column.name for column in schema}
        for name in [*(columns or ()), *(name for name, _, _ in conditions)]:
            if name not in names:
                raise RejectError(
                    f"table {table} has no column {quoted(name)}; its columns are {', '.join(sorted(names))}"
                )
        # Of a mergeable table only keys may choose files: other columns change when partial rows are folded.
        keys = {column.name for column in schema if column.fold in (None, "key")}
        files = _pruned(self._file_list(table), [condition for condition in conditions if condition[0] in keys])
        relation = self._relation(table, self._locations(table, files))
        sql, parameters = select_sql(table, columns, conditions)
        return run([relation], sql, parameters).arrow()

    def query(self, sql: str, parameters: Sequence[object] | None = None) -> Result:
        """The answer to one SELECT (DuckDB's SQL, with `?` for `parameters`) over the snapshot's tables.

        A mergeable table is folded; its partial rows are `<table>_partials`. RejectError: the SQL is wrong, or wants
        anything but to read these tables.
        """
        from lake.query import run

        relations = []
        for table in sorted({*self._tables, *KNOWN_TABLES}):
            # Naming a table is what makes its files be looked up; a query that finds its way to another gets an error.
            named = table in sql.lower()
            relations.append(self._relation(table, self.files(table) if named else None))
        return run(relations, sql, parameters)

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


def _time_column(times: list[str], table: str) -> str:
    if not times:
        raise RejectError(f"table {table} has no timestamp column; leave out start and end")
    return "ts" if "ts" in times else times[0]


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise RejectError(f"{moment} has no time zone; add one, for instance tzinfo=datetime.UTC")
    return moment.astimezone(UTC)


def _pruned(files: pa.Table, conditions: list[tuple[str, str, object]]) -> pa.Table:
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
