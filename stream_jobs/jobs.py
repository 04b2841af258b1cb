"""Jobs: named functions from Arrow tables to Arrow tables.

    job = Job("alerts")

    @job.step(stream="readings", table="alerts")
    def alerts(rows: pa.Table) -> pa.Table:
        return rows.filter(pc.greater(rows["value"], 90.0))

    @job.step(stream="doors", tables=("openings", "alarms"))
    def doors(rows: pa.Table) -> dict[str, pa.Table]:
        ...

A step gets the rows of one micro-batch: the stream's columns and then device, epoch, seq, row, function,
function_version, received_at, trace (see `arrow_columns`). It returns the rows to append to its table, or a mapping
table name -> rows when it declares several; None appends nothing. How rows are cut into micro-batches is not fixed
and differs after a crash, so a step's results must be such that the cut does not matter: rows, or partial results
that are merged when read. A step is tested by calling it with a table, or with `testing.JobKit`.

A stream need not be declared: its columns then come as they were sent, and a step runs once for each set of columns.
Those that are declared with Job(name, streams={...}) are checked before a step sees them. The job `readings` is
Edgewater's own (`default_job.py`): every stream that none of its steps reads lands in a table of the stream's name.

**Delivery**: pure. A step that raises, or returns what it did not declare, costs only the batches it fails for: they
are found by halving and reported with the traceback; the other steps and batches go on.
**Bounds**: STEPS_MAX steps a job; a reason has at most REASON_CHARACTERS_MAX characters (the end of the traceback).
"""

from __future__ import annotations

import inspect
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from edge_agent.contract import streams
from edge_agent.contract.errors import EdgewaterError, RejectError, quoted
from edge_agent.contract.names import check_stream
from lake.layout import check_table_name
from lake.schema import KNOWN_TABLES

from .appends import Appends, Check, Rows
from .arrow_columns import StreamColumns, check_stream_columns

__all__ = ["DEFAULT_JOB", "KNOWN_STREAMS", "READINGS", "Failure", "Job", "Output", "Step", "run_steps"]

DEFAULT_JOB = "readings"
"""The name of Edgewater's own job."""
READINGS: StreamColumns = streams.READINGS_COLUMNS
KNOWN_STREAMS: Mapping[str, StreamColumns] = {
    streams.READINGS: READINGS,
    streams.DEAD_LETTERS: streams.DEAD_LETTER_COLUMNS,
}
"""The streams that every deployment has, with their columns."""
NO_STREAM = "skipped"
"""The worker's own table; no stream may have its name."""

STEPS_MAX = 100
REASON_CHARACTERS_MAX = 4000

StepFunction = Callable[[Rows], "Rows | Mapping[str, Rows] | None"]
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
            raise RejectError(f"it returned {type(result).__name__}; return {wanted} or None")
        for table, found in result.items():
            if table not in self.tables:
                raise RejectError(
                    f"it returned rows for table {quoted(table)}; it declares {', '.join(self.tables)}: return rows "
                    "for those, or declare the table too"
                )
            if not isinstance(found, pa.Table):
                raise RejectError(f"it returned {type(found).__name__} for {table}; return a pyarrow.Table")
        return dict(result)


class Job:
    """A name (the identity of its offsets and state in the lake), the streams it declares, and its steps in order."""

    def __init__(self, name: str, streams: Mapping[str, StreamColumns] | None = None) -> None:
        """`streams` are those besides KNOWN_STREAMS whose columns shall be checked: name -> columns -> type of the
        contract."""
        self.name = check_stream(name)
        for stream in {*KNOWN_STREAMS} & {*(streams or {})}:
            raise RejectError(
                f"stream {stream} has the columns {', '.join(KNOWN_STREAMS[stream])} everywhere; do not declare it"
            )
        self.streams: dict[str, StreamColumns] = {**KNOWN_STREAMS, **(streams or {})}
        self.steps: list[Step] = []
        self._by_stream: dict[str, list[Step]] = {}
        for stream, columns in self.streams.items():
            check_stream_columns(check_stream(stream), columns)

    @property
    def is_default(self) -> bool:
        """Whether this is Edgewater's own job, which lands what no step reads and keeps what nobody can decode."""
        return self.name == DEFAULT_JOB

    def step(self, *, stream: str, table: str = "", tables: Sequence[str] = ()) -> Callable[[F], F]:
        """Register the decorated function, which stays callable as it is; its name is the step's."""
        targets = (table,) if table else tuple(tables)
        if check_stream(stream) == NO_STREAM:
            raise RejectError(f"no stream may be named {NO_STREAM}, which is a table of Edgewater's own; name another")
        if not targets:
            raise RejectError(f"a step of job {self.name} needs table=... or tables=(...)")
        for target in targets:
            check_table_name(target)
            if target in KNOWN_TABLES and not self.is_default:
                raise RejectError(
                    f"table {target} is written by Edgewater's own job; give the rows of job {self.name} a table of "
                    f"another name, as {self.name.lower()}_{target}"
                )
            if target == stream.lower() and not self.is_default:
                raise RejectError(
                    f"table {target} has every row of stream {stream} already, Edgewater's own job lands it there; "
                    f"give the rows of job {self.name} a table of another name, as {self.name.lower()}_{target}"
                )

        def register(function: F) -> F:
            name = getattr(function, "__name__", "step")
            _check_signature(name, function)
            if any(step.name == name for step in self.steps):
                raise RejectError(f"job {self.name} has two steps {name}; rename one")
            if len(self.steps) == STEPS_MAX:
                raise RejectError(f"job {self.name} has more than {STEPS_MAX} steps; make it several jobs")
            step = Step(name, stream, targets, function)
            self.steps.append(step)
            self._by_stream.setdefault(stream, []).append(step)
            return function

        return register

    def reads(self, stream: str) -> bool:
        """Whether the rows of `stream` go anywhere in this job."""
        return stream in self._by_stream or self.is_default

    def steps_of(self, stream: str) -> Sequence[Step]:
        """The steps that read `stream`; in the default job one that lands it as it is, where there is no other."""
        return self._by_stream.get(stream) or ((_landing(stream),) if self.is_default else ())

    @property
    def tables(self) -> list[str]:
        """The tables that the steps append to, each once."""
        return list(dict.fromkeys(table for step in self.steps for table in step.tables))


def _check_signature(name: str, function: Callable[..., Any]) -> None:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise RejectError(f"step {name} is no plain function; write `def {name}(rows):` and return a table")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # a builtin that does not say
    try:
        signature.bind(None)
    except TypeError:
        raise RejectError(
            f"step {name} takes {signature}; a step takes one argument, the rows: `def {name}(rows):`"
        ) from None


def _landing(stream: str) -> Step:
    """The step for a stream that nothing declares: its rows, as they are, in the table of its name in lower case."""
    table = stream.lower()

    def land(rows: Rows) -> Rows:
        if table in KNOWN_TABLES:
            raise RejectError(
                f"stream {stream} would land in table {table}, which is written by Edgewater's own job; rename the "
                "stream"
            )
        return rows

    return Step("land", stream, (table,), land)


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
    """Rows, the row at which each batch begins (and after the last), and where results go."""

    rows: Rows
    starts: list[int]
    into: Appends


def run_steps(
    job: Job,
    stream: str,
    rows: Rows,
    batch_rows: Sequence[int],
    check: Check | None = None,
    *,
    into: Appends | None = None,
) -> Output:
    """Run every step of `stream` on `rows`, which are batches of `batch_rows` rows each, in that order.

    `check` says whether a table takes rows, and gives them back as it takes them. `into` is what the same transaction
    appended before; the output's `appends` are then all of it.
    """
    starts = [0]
    for count in batch_rows:
        starts.append(starts[-1] + count)
    into = Appends(check) if into is None else into
    batches = _Batches(rows, starts, into)
    output = Output(into.tables)
    for step in job.steps_of(stream):
        started = time.thread_time()
        _run(step, batches, 0, len(batch_rows), output)
        output.seconds[step.name] = time.thread_time() - started
    return output


def _run(step: Step, batches: _Batches, first: int, after: int, output: Output) -> None:
    """Run on batches `first` to `after`, and on each half alone when that fails."""
    failure: BaseException
    try:
        found = step.run(batches.rows.slice(batches.starts[first], batches.starts[after] - batches.starts[first]))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a user's function may raise anything: a dead letter
        failure = error
    else:
        try:
            batches.into.add(found)
        except (RejectError, pa.ArrowException) as error:
            failure = error
        else:
            return
    if after - first == 1:
        output.failures.append(Failure(step.name, first, _reason(step, failure)))
        return
    middle = (first + after) // 2
    _run(step, batches, first, middle, output)
    _run(step, batches, middle, after, output)


def _reason(step: Step, error: BaseException) -> str:
    if isinstance(error, EdgewaterError):
        return f"step {step.name}: {error}"[:REASON_CHARACTERS_MAX]
    lines = traceback.format_exception(type(error), error, _of_the_step(error.__traceback__))
    return f"step {step.name} raised\n{''.join(lines)[-(REASON_CHARACTERS_MAX - 100) :]}"


def _of_the_step(trace: TracebackType | None) -> TracebackType | None:
    """Without this module's own calls: what the author of the step needs begins behind them."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename == __file__:
        inner = inner.tb_next
    return inner or trace
