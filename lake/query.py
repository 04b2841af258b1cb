"""The only module that speaks to DuckDB: one SELECT over a snapshot's tables, and nothing else.

Each query has a DuckDB of its own, in memory, in which every table is a view over exactly the snapshot's files.
Before the query runs, DuckDB is closed: no file but those may be opened, nothing may be loaded or attached, and no
setting changed. So reading is all that SQL can do here, whatever it says.

**Delivery**: reads only. **Bounds**: DuckDB's memory limit (80 % of the machine's memory) with at most `SPILL_MAX` of
temporary files beside it; one statement; the result is held in memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from edge_agent.contract.errors import RejectError, quoted
from lake.aggregate import fold_sql, is_mergeable
from lake.result import Result
from lake.transaction.records import Column

__all__ = ["SPILL_MAX", "Relation", "run", "select_sql"]

SPILL_MAX = "16GB"

_TYPES = {
    "boolean": "BOOLEAN",
    "byte": "TINYINT",
    "short": "SMALLINT",
    "integer": "INTEGER",
    "long": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "string": "VARCHAR",
    "binary": "BLOB",
    "date": "DATE",
    "timestamp": "TIMESTAMPTZ",
}


@dataclass(frozen=True, slots=True)
class Relation:
    """A table for a query: its columns, and its files; None for files makes a view that only tells its columns."""

    name: str
    columns: tuple[Column, ...]
    files: list[str] | None
    evolved: bool = False


def run(relations: Sequence[Relation], sql: str, parameters: Sequence[object] | None = None) -> Result:
    """The answer to `sql`, one SELECT over `relations`. RejectError with DuckDB's reason."""
    try:
        with tempfile.TemporaryDirectory(prefix="edgewater-query-") as spill, duckdb.connect(":memory:") as connection:
            _set_up(connection, relations, Path(spill))
            statements = connection.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise RejectError(f"a query is one SELECT statement, this is {_described(statements)}: {quoted(sql)}")
            return Result(pa.table(connection.sql(sql, params=list(parameters or []) or None)))
    except duckdb.PermissionException as error:
        raise RejectError(f"a query reads the lake's tables and nothing else: {_reason(error)}") from error
    except duckdb.Error as error:
        raise RejectError(f"the query failed: {_reason(error)}") from error


def _described(statements: Sequence[duckdb.Statement]) -> str:
    if len(statements) == 1:
        return f"a statement of type {statements[0].type.name}"
    return f"{len(statements)} statements" if statements else "empty"


def _reason(error: duckdb.Error) -> str:
    return str(error).strip()


def select_sql(
    table: str, columns: Sequence[str] | None, conditions: Sequence[tuple[str, str, object]]
) -> tuple[str, list[object]]:
    """SELECT of `columns` (None: all) where all of (column, operator, value) hold, and its parameters."""
    selected = "*" if columns is None else ", ".join(map(_name, columns))
    where = " AND ".join(f"{_name(name)} {operator} ?" for name, operator, _ in conditions)
    return (
        f"SELECT {selected} FROM {_name(table)}" + (f" WHERE {where}" if where else ""),  # noqa: S608 - names are quoted
        [value for _, _, value in conditions],
    )


def _set_up(connection: duckdb.DuckDBPyConnection, relations: Sequence[Relation], spill: Path) -> None:
    """Views over the relations' files; then nothing but these files can be reached any more."""
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET autoload_known_extensions = false")
    connection.execute(f"SET temp_directory = {_text(str(spill))}")
    connection.execute(f"SET max_temp_directory_size = {_text(SPILL_MAX)}")
    files = [file for relation in relations for file in relation.files or []]
    # DuckDB asks for the pattern as well as for the file that it finds by it.
    allowed = dict.fromkeys([*files, *map(_pattern, files)])
    connection.execute(f"SET allowed_paths = [{', '.join(map(_text, allowed))}]")
    for relation in relations:
        for name, select in _views(relation).items():
            connection.execute(f"CREATE VIEW {_name(name)} AS {select}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def _views(relation: Relation) -> dict[str, str]:
    """View name -> SELECT: the table, and its partial rows when it is mergeable."""
    rows = _rows_sql(relation)
    if not is_mergeable(relation.columns):
        return {relation.name: rows}
    partials = f"{relation.name}_partials"
    return {partials: rows, relation.name: fold_sql(relation.columns, _name(partials))}


def _rows_sql(relation: Relation) -> str:
    columns = ", ".join(_name(column.name) for column in relation.columns)
    typed = ", ".join(f"NULL::{_TYPES[column.type]} AS {_name(column.name)}" for column in relation.columns)
    if relation.files is None:
        message = f"table {relation.name} has to be named plainly in the query"
        return f"SELECT {typed} WHERE error({_text(message)})::BOOLEAN"
    if not relation.files:
        return f"SELECT {typed} WHERE false"
    # A folder like site=a on the way to the lake would become a column without hive_partitioning = false.
    options = "hive_partitioning = false" + (", union_by_name = true" if relation.evolved else "")
    files = f"read_parquet([{', '.join(_text(_pattern(file)) for file in relation.files)}], {options})"
    if relation.evolved:
        return f"SELECT {columns} FROM (SELECT {typed} WHERE false UNION ALL BY NAME SELECT * FROM {files})"  # noqa: S608
    return f"SELECT {columns} FROM {files}"  # noqa: S608 - names and file names are quoted


def _pattern(file: str) -> str:
    """`file` as a pattern that matches only itself."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in file)


def _name(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
