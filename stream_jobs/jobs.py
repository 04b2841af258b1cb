"""Jobs: named functions from Arrow tables to Arrow tables.

    job = Job("readings")

    @job.step(stream="readings", table="readings")
    def raw(rows: pa.Table) -> pa.Table:
        return rows

    @job.step(stream="readings", tables=("alerts", "alerts_1h"))
    def alerts(rows: pa.Table) -> dict[str, pa.Table]:
        ...

A step gets the rows of one micro-batch: the stream's columns and then device, epoch, seq, row, function,
function_version, received_at, trace (see `arrow_columns`). It returns the rows to append to its table, or a mapping
table name -> rows when it declares several; None appends nothing. How rows are cut into micro-batches is not fixed
and differs after a crash, so a step's results must be such that the cut does not matter: rows, or partial results
that are merged when read. A step is tested by calling it with a table; `run_steps` runs all steps of a stream.

**Delivery**: pure. A step that raises, or returns what it did not declare, costs only the batches it fails for: they
are found by halving and reported with the traceback; the other steps and batches go on.
**Bounds**: STEPS_MAX steps a job; a reason has at most REASON_CHARACTERS_MAX characters (the end of the traceback).
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from edge_agent.contract.errors import EdgewaterError, RejectError, quoted
from edge_agent.contract.names import check_stream

from .arrow_columns import StreamColumns, check_stream_columns

__all__ = ["READINGS", "Failure", "Job", "Output", "Step", "readings_job", "run_steps"]

READINGS: StreamColumns = {"ts": "timestamp", "name": "dictionary", "value": "float64"}
"""The stream that every deployment has."""

STEPS_MAX = 100
REASON_CHARACTERS_MAX = 4000

Rows = Any
"""A pyarrow Table."""
StepFunction = Callable[[Rows], "Rows | Mapping[str, Rows] | None"]
Check = Callable[[str, Rows], Rows]
"""(table name, rows) -> the rows as the table takes them; raises an EdgewaterError when it does not take them."""
F = TypeVar("F", bound=StepFunction)


@dataclass(frozen=True, slots=True)
class Step:
    """One function, the stream it reads and the tables it appends to."""

    name: str
    stream: str
    tables: tuple[str, ...]
    function: StepFunction

    def run(self, rows: Rows) -> dict[str, Rows]:
        """The rows to append, by table. RejectError when the function returns anything but what it declared."""
        result = self.function(rows)
        if result is None:
            return {}
        if isinstance(result, pa.Table) and len(self.tables) == 1:
            return {self.tables[0]: result}
        if not isinstance(result, Mapping):
            wanted = "a pyarrow.Table" if len(self.tables) == 1 else "a mapping table name -> pyarrow.Table"
            raise RejectError(f"step {self.name} returned {type(result).__name__}; return {wanted} or None")
        for table, found in result.items():
            if table not in self.tables:
                raise RejectError(
                    f"step {self.name} returned rows for table {quoted(table)}; it declares {', '.join(self.tables)}"
                )
            if not isinstance(found, pa.Table):
                raise RejectError(
                    f"step {self.name} returned {type(found).__name__} for {table}; return a pyarrow.Table"
                )
        return dict(result)


class Job:
    """A name (the identity of its offsets and state in the lake), the streams it reads, and its steps in order."""

    def __init__(self, name: str, streams: Mapping[str, StreamColumns] | None = None) -> None:
        """`streams` are those besides `readings`: name -> columns -> type of the contract."""
        self.name = check_stream(name)
        self.streams: dict[str, StreamColumns] = {"readings": READINGS, **(streams or {})}
        self.steps: list[Step] = []
        for stream, columns in self.streams.items():
            check_stream_columns(check_stream(stream), columns)

    def step(self, *, stream: str, table: str = "", tables: Sequence[str] = ()) -> Callable[[F], F]:
        """Register the decorated function, which stays callable as it is; its name is the step's."""
        targets = (table,) if table else tuple(tables)
        if stream not in self.streams:
            raise RejectError(
                f"job {self.name} reads no stream {quoted(stream)}; known are {', '.join(self.streams)}: "
                "declare it with Job(name, streams={...})"
            )
        if not targets:
            raise RejectError(f"a step of job {self.name} needs table=... or tables=(...)")
        for target in targets:
            check_stream(target)

        def register(function: F) -> F:
            name = getattr(function, "__name__", "step")
            if any(step.name == name for step in self.steps):
                raise RejectError(f"job {self.name} has two steps {name}; rename one")
            if len(self.steps) == STEPS_MAX:
                raise RejectError(f"job {self.name} has more than {STEPS_MAX} steps; make it several jobs")
            self.steps.append(Step(name, stream, targets, function))
            return function

        return register

    def reads(self, stream: str) -> bool:
        """Whether any step reads `stream`."""
        return any(step.stream == stream for step in self.steps)

    @property
    def tables(self) -> list[str]:
        """The tables that the steps append to, each once."""
        return list(dict.fromkeys(table for step in self.steps for table in step.tables))


@dataclass(frozen=True, slots=True)
class Failure:
    """A step failed for one batch, the `batch`-th of those given; `reason` ends with the exception."""

    step: str
    batch: int
    reason: str


@dataclass(slots=True)
class Output:
    """What the steps of a stream appended (table name -> tables), what failed, and the seconds each step took."""

    appends: dict[str, list[Rows]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


class _Batches(NamedTuple):
    """Rows, the row at which each batch begins (and after the last), and what checks results."""

    rows: Rows
    starts: list[int]
    check: Check | None


def run_steps(job: Job, stream: str, rows: Rows, batch_rows: Sequence[int], check: Check | None = None) -> Output:
    """Run every step of `stream` on `rows`, which are batches of `batch_rows` rows each, in that order.

    `check` says whether a table takes rows, and gives them back as it takes them.
    """
    starts = [0]
    for count in batch_rows:
        starts.append(starts[-1] + count)
    batches = _Batches(rows, starts, check)
    output = Output()
    for step in job.steps:
        if step.stream == stream:
            started = time.thread_time()
            _run(step, batches, 0, len(batch_rows), output)
            output.seconds[step.name] = time.thread_time() - started
    return output


def _run(step: Step, batches: _Batches, first: int, after: int, output: Output) -> None:
    """Run on batches `first` to `after`, and on each half alone when that fails."""
    try:
        found = step.run(batches.rows.slice(batches.starts[first], batches.starts[after] - batches.starts[first]))
        if batches.check is not None:
            found = {table: batches.check(table, part) for table, part in found.items()}
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything; it becomes a dead letter
        if after - first == 1:
            output.failures.append(Failure(step.name, first, _reason(step, error)))
            return
        middle = (first + after) // 2
        _run(step, batches, first, middle, output)
        _run(step, batches, middle, after, output)
        return
    for table, part in found.items():
        if part.num_rows:
            output.appends.setdefault(table, []).append(part)


def _reason(step: Step, error: Exception) -> str:
    if isinstance(error, EdgewaterError):
        return f"step {step.name}: {error}"[:REASON_CHARACTERS_MAX]
    # The first entry is this module's call; what the author of the step needs begins behind it.
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return f"step {step.name} raised\n{''.join(lines)[-(REASON_CHARACTERS_MAX - 100) :]}"


def readings_job() -> Job:
    """The default job: every reading in `readings`, partial aggregates a device, name and minute in `readings_1m`."""
    from lake.aggregate import partials_from

    job = Job("readings")

    @job.step(stream="readings", table="readings")
    def readings(rows: Rows) -> Rows:
        return rows

    @job.step(stream="readings", table="readings_1m")
    def readings_1m(rows: Rows) -> Rows:
        return partials_from(rows)

    return job
