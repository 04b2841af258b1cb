"""The test kit of jobs: rows in, tables and dead letters out, without a log or a lake.

    kit = JobKit("alarms.py")                       # or the job itself
    kit.feed("readings", [{"name": "temp", "value": 95.5, "device": "pi-2"}])
    assert kit.tables["alarms"].to_pylist() == [...]
    assert kit.dead_letters == []
    kit.assert_any_cut("readings", [...])           # the same rows however they are cut into batches

`feed` runs the very steps that a worker runs, checks results against the tables as a lake would, and fills in what a
test does not care about: a row is then of device `device-1`, the batches are numbered, and `ts` counts seconds
from 2026-01-01 UTC.

**Delivery**: nothing is kept beyond the kit. **Bounds**: those of memory; a batch is what one `feed` gives, unless the
rows have a `seq`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from edge_agent.contract.errors import RejectError, quoted
from lake.schema import KNOWN_TABLES, arrow_schema, columns_of, columns_with, fitted
from lake.transaction.records import Column

from .appends import joined
from .arrow_columns import PROVENANCE, arrow_type
from .job_file import load_job
from .jobs import Job, run_steps

__all__ = ["DeadLetter", "JobKit"]

FIRST_TS_US = 1_767_225_600_000_000
"""2026-01-01 UTC."""
_TIMESTAMP = pa.timestamp("us", tz="UTC")
_TEXT = pa.dictionary(pa.int32(), pa.string())
_PROVENANCE_TYPES = {
    "device": _TEXT, "epoch": pa.int64(), "seq": pa.int64(), "row": pa.int32(), "function": _TEXT,
    "function_version": _TEXT, "received_at": _TIMESTAMP, "trace": _TEXT,
}  # fmt: skip
_SENT_TYPES = (_TIMESTAMP, pa.float64(), pa.int64(), pa.bool_(), pa.string())

Given = Any
"""A pyarrow Table, or a list of mappings column -> value."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A batch for which a step failed: `reason` is what the lake's dead letter would say, `rows` are the batch."""

    step: str
    reason: str
    rows: Any


class _Tables(dict[str, Any]):
    """Table name -> its rows; a table that has none is empty."""

    def __missing__(self, key: str) -> Any:
        return pa.table({})


class JobKit:
    """Runs the steps of a job on the rows it is fed."""

    def __init__(self, job: Job | Path | str) -> None:
        """`job`: a Job or a job file's path. StopError as `edgewater jobs check` has it."""
        self.job = job if isinstance(job, Job) else load_job(job)
        self.tables: dict[str, Any] = _Tables()
        self.dead_letters: list[DeadLetter] = []
        self._known: dict[str, tuple[Column, ...]] = {}
        self._seqs = itertools.count(1)

    def feed(self, stream: str, rows: Given) -> None:
        """Run the steps of `stream` on `rows`. RejectError: no device could send them.

        Rows that follow each other with the same device, epoch and seq are one batch.
        """
        table = self._complete(stream, rows)
        if not table.num_rows:
            return
        starts = _starts(table)
        counts = [after - first for first, after in itertools.pairwise([*starts, table.num_rows])]
        output = run_steps(self.job, stream, table, counts, self._check)
        for name, parts in output.appends.items():
            # As a reader gets them: text is text, whether it was stored as a dictionary or not.
            plain = joined(parts).cast(arrow_schema(self._known[name]))
            self.tables[name] = joined([self.tables[name], plain]) if name in self.tables else plain
        self.dead_letters += [
            DeadLetter(failure.step, failure.reason, table.slice(starts[failure.batch], counts[failure.batch]))
            for failure in output.failures
        ]

    def assert_any_cut(self, stream: str, rows: Given) -> None:
        """AssertionError when feeding `rows` in two parts, cut anywhere, gives other rows than feeding them at once.

        Each part is a batch of its own; what was fed before does not count.
        """
        table = self._complete(stream, rows)
        whole = self._of_parts(stream, [table])
        for at in range(1, table.num_rows):
            found = self._of_parts(stream, [table.slice(0, at), table.slice(at)])
            assert found == whole, f"cut before row {at} the tables are {found}, in one piece {whole}"

    def _of_parts(self, stream: str, parts: Sequence[Any]) -> dict[str, list[str]]:
        kit = JobKit(self.job)
        for part in parts:
            kit.feed(stream, part)
        assert not kit.dead_letters, kit.dead_letters[0].reason
        return {name: sorted(map(repr, table.to_pylist())) for name, table in kit.tables.items()}

    def _check(self, table: str, rows: Any) -> Any:
        """As the lake would, with the tables that were made so far."""
        present = self._known.get(table) or (
            columns_of(KNOWN_TABLES[table], table) if table in KNOWN_TABLES else columns_of(rows.schema, table)
        )
        columns = columns_with(present, rows.schema, table)
        found = fitted(rows, columns, table)
        self._known[table] = columns
        return found

    # Rows as a worker has them

    def _complete(self, stream: str, rows: Given) -> Any:
        given = rows if isinstance(rows, pa.Table) else self._table(stream, rows)
        if not given.num_rows:
            return given
        count = given.num_rows
        types = self._types(stream, given)
        own = {name: _converted(stream, name, given[name], kind) for name, kind in types.items()}
        defaults: dict[str, Callable[[], list[Any]]] = {
            "ts": lambda: [FIRST_TS_US + 1_000_000 * row for row in range(count)],
            "device": lambda: ["device-1"] * count,
            "epoch": lambda: [1] * count,
            "seq": lambda: [next(self._seqs)] * count,
            "row": lambda: list(range(count)),
            "received_at": lambda: [FIRST_TS_US] * count,
        }
        arrays = {"ts": pa.nulls(count, _TIMESTAMP), **own}
        for name, kind in _PROVENANCE_TYPES.items():
            given_here = name in given.column_names
            arrays[name] = _converted(stream, name, given[name], kind) if given_here else pa.nulls(count, kind)
        for name, values in defaults.items():
            kind = arrays[name].type
            if arrays[name].null_count and kind in (_TIMESTAMP, _PROVENANCE_TYPES.get(name)):
                plain = kind.value_type if kind == _TEXT else kind
                arrays[name] = pc.coalesce(arrays[name].cast(plain), pa.array(values(), plain)).cast(kind)
        return pa.table(arrays)

    def _types(self, stream: str, given: Any) -> dict[str, Any]:
        """Column -> type of the stream's own columns in `given`."""
        own = [name for name in given.column_names if name not in PROVENANCE]
        wanted = self.job.streams.get(stream)
        if wanted is None:
            return {name: _sent_type(stream, name, given.schema.field(name).type) for name in own}
        if not {*own, "ts"} == {*wanted, "ts"}:
            raise RejectError(f"rows of stream {stream} have columns {quoted(own)}; it has {quoted(list(wanted))}")
        return {name: arrow_type(kind) for name, kind in wanted.items() if name in own}

    def _table(self, stream: str, rows: Sequence[Mapping[str, Any]]) -> Any:
        names = list(dict.fromkeys(name for row in rows for name in row))
        wanted = {name: arrow_type(kind) for name, kind in self.job.streams.get(stream, {}).items()} | _PROVENANCE_TYPES
        arrays = {}
        for name in names:
            kind = wanted.get(name, _TIMESTAMP if name == "ts" else None)
            values = [_plain(row.get(name), kind) for row in rows]
            # Of a float, pyarrow would silently make a whole number here; casting afterwards refuses to.
            kind = None if kind is None or pa.types.is_integer(kind) else kind
            try:
                arrays[name] = pa.array(values, kind.value_type if kind == _TEXT else kind)
            except (pa.ArrowException, TypeError, OverflowError) as error:
                raise RejectError(
                    f"column {quoted(name)} of stream {stream}: {error}; give values of one type"
                ) from None
        return pa.table(arrays)


def _plain(value: Any, kind: Any) -> Any:
    """Times without a zone are UTC; whole numbers may stand for floating-point ones."""
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return float(value) if kind == pa.float64() and isinstance(value, int) and not isinstance(value, bool) else value


def _sent_type(stream: str, name: str, kind: Any) -> Any:
    if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_timestamp(kind):
        return _TIMESTAMP
    if kind not in _SENT_TYPES:
        raise RejectError(
            f"column {quoted(name)} of stream {stream} has type {kind}, which no device sends; use one of "
            f"{', '.join(map(str, _SENT_TYPES))}"
        )
    return kind


def _converted(stream: str, name: str, column: Any, kind: Any) -> Any:
    try:
        plain = column.cast(kind.value_type) if kind == _TEXT else column.cast(kind)
        return plain.combine_chunks().cast(kind)
    except pa.ArrowException as error:
        raise RejectError(f"column {quoted(name)} of stream {stream}: {error}; give values of one type") from None


def _starts(table: Any) -> list[int]:
    """The row at which each batch begins."""
    keys = list(zip(*(table[name].to_pylist() for name in ("device", "epoch", "seq")), strict=True))
    return [row for row, key in enumerate(keys) if not row or key != keys[row - 1]]
