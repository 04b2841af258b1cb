"""The only module that speaks to DuckDB: one SELECT over a snapshot's tables, and nothing else.

Each query has a DuckDB of its own, in memory, in which every table is a view over exactly the snapshot's files.
Before the query runs, DuckDB is closed: no file but those may be opened, nothing may be loaded or attached, no variable
of Python is a table, and no setting changed. So reading is all that SQL can do here, whatever it says.

**Delivery**: reads only. Ctrl-C and the time limit end a query at once. **Bounds**: `Limits.memory_bytes` for DuckDB
(80 % of the machine's memory) with at most `SPILL_MAX` of temporary files beside it, in a folder that goes with the
query; one statement; `run` holds its result in memory, of at most `Limits.result_bytes`, `answering` one batch.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import duckdb
import pyarrow as pa

from edge_agent.contract.errors import LimitError, RejectError, quoted
from edge_agent.contract.limits import MIB
from lake.aggregate import fold_sql, is_mergeable
from lake.query_errors import explained
from lake.result import Result
from lake.transaction.records import Column

__all__ = ["MEMORY_BYTES_MIN", "SPILL_MAX", "Answer", "Limits", "Relation", "answering", "run", "select_sql"]

SPILL_MAX = "16GB"
MEMORY_BYTES_MIN = 64_000_000

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


@dataclass(frozen=True, slots=True)
class Limits:
    """What a query may take: seconds (None: any) and bytes of memory (None: 80 % of the machine's)."""

    timeout_s: float | None = None
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not self.timeout_s > 0:
            raise RejectError(f"a query's time limit of {self.timeout_s} s is not above 0; give more, or none")
        if self.memory_bytes is not None and self.memory_bytes < MEMORY_BYTES_MIN:
            raise RejectError(
                f"a query's memory of {self.memory_bytes} bytes is below {MEMORY_BYTES_MIN}, "
                "with which no query runs; give more, or none"
            )

    @property
    def result_bytes(self) -> int:
        """The most that a result in memory may take: the same again, or half of the machine's."""
        return self.memory_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


_NO_LIMITS = Limits()


class Answer:
    """The rows of an answer as they come, a batch at a time: iterate once."""

    def __init__(self, query: _Query, reader: pa.RecordBatchReader) -> None:
        self.schema: pa.Schema = reader.schema
        self._query = query
        self._reader = reader

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while True:
            with self._query.guarded():
                batch = next(self._reader, None)
            if batch is None:
                return
            yield batch


@contextmanager
def answering(
    relations: Sequence[Relation], sql: str, parameters: Sequence[object] | None = None, limits: Limits = _NO_LIMITS
) -> Iterator[Answer]:
    """The answer to `sql`, one SELECT over `relations`, while the context lasts. RejectError with DuckDB's reason."""
    with tempfile.TemporaryDirectory(prefix="edgewater-query-") as spill, duckdb.connect(":memory:") as connection:
        query = _Query(connection, relations, sql, parameters, limits)
        with _Deadline(connection, limits.timeout_s) as query.deadline:
            try:
                with query.guarded():
                    _set_up(connection, relations, Path(spill), limits)
                    reader = query.started()
                yield Answer(query, reader)
            finally:
                # What still runs, since nobody wants the rest, must not be waited for.
                connection.interrupt()


def run(
    relations: Sequence[Relation], sql: str, parameters: Sequence[object] | None = None, limits: Limits = _NO_LIMITS
) -> Result:
    """The whole answer to `sql`. RejectError with DuckDB's reason; LimitError: it is too large to be held."""
    with answering(relations, sql, parameters, limits) as answer:
        batches, size = [], 0
        for batch in answer:
            batches.append(batch)
            size += batch.nbytes
            if size > limits.result_bytes:
                raise LimitError(
                    "the answer's size in bytes", size, limits.result_bytes,
                    "select fewer columns or rows, aggregate, or have it written as it comes: "
                    "edgewater lake query --format parquet --output FILE",
                )  # fmt: skip
        return Result(pa.Table.from_batches(batches, answer.schema))


class _Deadline:
    """Interrupts a connection again and again once its time is over, or after Ctrl-C: between two statements an
    interruption is lost, and a KeyboardInterrupt where Python raises it into code that swallows it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, timeout_s: float | None) -> None:
        self.passed = False
        self.stopped = False
        """Whether it was Ctrl-C."""
        self._connection = connection
        self._timeout_s = timeout_s
        self._woken = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lake-query-deadline", daemon=True)
        # A program that handles SIGINT in its own way keeps doing so.
        self._hears = (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        )

    def __enter__(self) -> Self:
        if self._hears:
            signal.signal(signal.SIGINT, self._stop)
        if self._hears or self._timeout_s is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._woken.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._hears:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        self._woken.set()
        signal.default_int_handler(number, frame)

    def _watch(self) -> None:
        self.passed = not self._woken.wait(self._timeout_s)
        while not self._over.wait(0.02):
            self._connection.interrupt()


class _Query:
    """One SELECT on its connection, and what its errors are called."""

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        relations: Sequence[Relation],
        sql: str,
        parameters: Sequence[object] | None,
        limits: Limits,
    ) -> None:
        self.deadline = _Deadline(connection, None)
        self._connection = connection
        self._relations = relations
        self._sql = sql
        self._parameters = list(parameters or []) or None
        self._limits = limits

    def started(self) -> pa.RecordBatchReader:
        """The answer's reader, when the SQL is one SELECT."""
        statements = self._connection.extract_statements(self._sql)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise RejectError(f"a query is one SELECT statement, this is {_described(statements)}: {quoted(self._sql)}")
        relation: Any = self._connection.sql(self._sql, params=self._parameters)
        return pa.RecordBatchReader.from_stream(relation)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Around what DuckDB does: its errors become ours."""
        try:
            yield
        except (duckdb.Error, OSError) as error:
            if self.deadline.stopped:
                raise KeyboardInterrupt from None
            # Errors behind the first batch come through Arrow, which makes an OSError of each.
            raise self._explained(self._placed(error)) from error
        except RuntimeError as error:
            if "Query interrupted" in str(error):
                raise KeyboardInterrupt from None  # that is how DuckDB tells a signal
            raise
        if self.deadline.stopped:
            raise KeyboardInterrupt
        if self.deadline.passed:
            raise self._explained("")

    def _placed(self, error: Exception) -> str:
        """The reason with its place in the SQL: binding for a relation does not tell it, binding for EXPLAIN does."""
        reason = str(error)
        if "\nLINE " in reason or not isinstance(error, duckdb.BinderException | duckdb.CatalogException):
            return reason
        try:
            self._connection.execute(f"EXPLAIN\n{self._sql}", self._parameters)
        except duckdb.Error as again:
            head, found, place = str(again).partition("\nLINE ")
            number, _, rest = place.partition(":")
            if found and number.isdecimal() and head.splitlines()[0] == reason.splitlines()[0]:
                return f"{reason}\n\nLINE {int(number) - 1}:{rest}"
        return reason

    def _explained(self, reason: str) -> RejectError:
        if self.deadline.passed:
            return RejectError(
                f"the query took longer than {self._limits.timeout_s:g} s; filter by device and time, aggregate, "
                "or allow more (--timeout-s, timeout_s=)"
            )
        columns: dict[str, list[str]] = {}
        for relation in self._relations:
            columns |= {name: [column.name for column in relation.columns] for name in _views(relation)}
        return RejectError(explained(reason, self._sql, columns))


def _described(statements: Sequence[duckdb.Statement]) -> str:
    if len(statements) == 1:
        kind = statements[0].type.name
        if kind == "MULTI":
            return "more than one (a PIVOT needs its values: PIVOT ... ON name IN ('a', 'b'))"
        return f"a statement of type {kind}"
    return f"{len(statements)} statements" if statements else "empty"


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


def _set_up(connection: duckdb.DuckDBPyConnection, relations: Sequence[Relation], spill: Path, limits: Limits) -> None:
    """Views over the relations' files; then nothing but these files can be reached any more."""
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET autoload_known_extensions = false")
    connection.execute("SET allow_persistent_secrets = false")
    connection.execute("SET python_enable_replacements = false")
    if limits.memory_bytes is not None:
        connection.execute(f"SET memory_limit = '{limits.memory_bytes // MIB}MiB'")
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
