"""One step of the worker without the lake: records in, what every table gets out.

Phases, each timed in CPU seconds of its thread: fold, decode (bodies to columns), arrow (columns to tables),
steps (the job's functions).

**Delivery**: pure but for the folds it moves. A batch whose columns hold what Arrow refuses is found by trying its
neighbours without it; it alone becomes a dead letter.
**Bounds**: those of the records given.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from edge_agent.contract.errors import DecodeError
from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.wire import message_header
from stream_jobs.appends import Appends, Check, joined
from stream_jobs.arrow_columns import Batch, StreamColumns, arrow_table
from stream_jobs.jobs import Job, run_steps

from .batching import Record
from .decoding import DeadLetter, Decoded, Folded, Group, dead_letter, decode, fold_records
from .tables import DEAD_LETTERS, SKIPPED, dead_letter_rows, skipped_rows

__all__ = ["Phases", "StepResult", "run_step"]

_SAMPLE_ROWS = 1024


class Phases:
    """Seconds by phase: CPU of the thread that ran it, and elapsed (which includes what other threads did for it)."""

    def __init__(self) -> None:
        self.cpu_s: defaultdict[str, float] = defaultdict(float)
        self.elapsed_s: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add what the block takes to `phase`."""
        cpu_s, elapsed_s = time.thread_time(), time.monotonic()
        try:
            yield
        finally:
            self.cpu_s[phase] += time.thread_time() - cpu_s
            self.elapsed_s[phase] += time.monotonic() - elapsed_s


@dataclass(slots=True)
class StepResult:
    """What a step wants to append, and what it counted. `samples` are (ts, received_at) of some rows, for freshness;
    `failures` has for each of the job's steps that failed how many batches, and the last line of the last reason."""

    appends: dict[str, Any] = field(default_factory=dict)
    rows: int = 0
    batches: int = 0
    dead_letters: int = 0
    skipped_rows: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    samples: list[tuple[Any, Any]] = field(default_factory=list)
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)


def run_step(
    job: Job,
    folds: Mapping[int, PartitionFold],
    records: Mapping[int, Sequence[Record]],
    phases: Phases,
    check: Check | None = None,
) -> StepResult:
    """Fold and decode `records` (by partition, in offset order) and run the job's steps on what was accepted.

    `check` says whether a table takes rows (see `jobs.run_steps`).
    """
    folded = Folded()
    with phases.timed("fold"):
        for partition, items in records.items():
            fold_records(folds[partition], items, folded)
    with phases.timed("decode"):
        decoded = decode(folded.accepted, job)
    run = _Run(job, phases, check, folded, decoded)
    for group in decoded.groups.values():
        run.group(group)
    return run.finished()


class _Run:
    """The part of a step behind the fold: streams to tables."""

    def __init__(self, job: Job, phases: Phases, check: Check | None, folded: Folded, decoded: Decoded) -> None:
        self._job = job
        self._phases = phases
        self._decoded = decoded
        self._letters = (folded.dead_letters if job.is_default else []) + decoded.dead_letters
        self._appends = Appends(check)
        self._result = StepResult(outcomes=folded.outcomes)

    def group(self, group: Group) -> None:
        """Columns of a group to a table, then the job's steps."""
        with self._phases.timed("arrow"):
            rows, batches, records, refused = _table(group.batches, group.records, group.columns)
        if self._job.is_default:
            self._letters += refused
        if rows is None:
            return
        with self._phases.timed("steps"):
            batch_rows = [batch.header.rows for batch in batches]
            output = run_steps(self._job, group.stream, rows, batch_rows, into=self._appends)
        self._letters += [
            DeadLetter(records[failure.batch], failure.reason, batches[failure.batch].header, self._job.name)
            for failure in output.failures
        ]
        for failure in output.failures:
            count, _ = self._result.failures.get(failure.step, (0, ""))
            self._result.failures[failure.step] = (count + 1, failure.reason.rstrip().rpartition("\n")[2])
        self._result.rows += rows.num_rows
        self._result.batches += len(batches)
        if "ts" in rows.column_names and pa.types.is_timestamp(rows["ts"].type):
            self._result.samples.append(_sample(rows))

    def finished(self) -> StepResult:
        """With dead letters and skips as tables."""
        result, skipped = self._result, self._decoded.skipped
        if self._letters:
            self._appends.put(DEAD_LETTERS, dead_letter_rows(self._letters))
        if skipped:
            self._appends.put(SKIPPED, skipped_rows(skipped))
        result.dead_letters = len(self._letters)
        result.skipped_rows = sum(entry.rows or 0 for entry in skipped)
        result.appends = {name: joined(parts) for name, parts in self._appends.tables.items()}
        return result


def _sample(rows: Any) -> tuple[Any, Any]:
    stride = max(1, rows.num_rows // _SAMPLE_ROWS)
    sampled = rows.select(["ts", "received_at"]).take(pa.array(range(0, rows.num_rows, stride), pa.int64()))
    return sampled["ts"], sampled["received_at"]


_Table = tuple[Any, Sequence[Batch], Sequence[Record], list[DeadLetter]]


def _table(batches: Sequence[Batch], records: Sequence[Record], columns: StreamColumns) -> _Table:
    """The table of those batches that Arrow takes, and a dead letter for each other."""
    try:
        return arrow_table(batches, columns), batches, records, []
    except DecodeError as error:
        if len(batches) == 1:
            return None, [], [], [dead_letter(records[0], str(error), message_header(records[0].value))]
    middle = len(batches) // 2
    halves = [_table(batches[part], records[part], columns) for part in (slice(None, middle), slice(middle, None))]
    tables = [half[0] for half in halves if half[0] is not None]
    return (
        pa.concat_tables(tables).unify_dictionaries().combine_chunks() if tables else None,
        [*halves[0][1], *halves[1][1]],
        [*halves[0][2], *halves[1][2]],
        halves[0][3] + halves[1][3],
    )
