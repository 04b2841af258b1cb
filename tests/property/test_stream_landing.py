"""Streams that nothing declares: whatever columns come, each batch lands exactly or is a dead letter."""

from __future__ import annotations

import itertools
import math
import tempfile
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

import lake
from edge_agent.contract import wire
from edge_agent.contract.columns import Column, booleans, floats, integers, strings, timestamps
from edge_agent.contract.fold import PartitionFold
from stream_jobs.default_job import job
from stream_jobs.worker.steps import Phases, run_step
from tests.kit.worker_world import ALL_MINE, epoch, records_of

MAKERS = {
    "float64": (floats, st.floats(allow_nan=False)),
    "int64": (integers, st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-9, 9)),
    "bool": (booleans, st.booleans()),
    "string": (strings, st.text(max_size=5).filter(lambda text: text.isprintable())),
    "timestamp": (timestamps, st.integers(-(1 << 60), 1 << 60)),
}
Rows = dict[str, list[Any]]


@st.composite
def batches(draw: Any) -> tuple[str, list[Column], Rows]:
    """A stream's name, the columns of a batch, and its values."""
    rows = draw(st.integers(1, 3))
    names = draw(st.lists(st.sampled_from(["a", "b", "B", "Device", "device", "x" * 128]), unique=True, max_size=3))
    values: Rows = {"ts": [0] * rows}
    columns = [timestamps("ts", values["ts"])]
    for name in names:
        make, kind = MAKERS[draw(st.sampled_from(sorted(MAKERS)))]
        values[name] = draw(st.lists(st.none() | kind, min_size=rows, max_size=rows))
        columns.append(make(name, values[name]))  # type: ignore[operator]
    return draw(st.sampled_from(["things", "Things", "_x", "a_partials"])), draw(st.permutations(columns)), values


@settings(max_examples=25)
@given(sent=st.lists(batches(), min_size=1, max_size=8), cuts=st.sets(st.integers(1, 7)))
def test_every_batch_lands_exactly_or_is_a_dead_letter(
    sent: list[tuple[str, list[Column], Rows]], cuts: set[int]
) -> None:
    """The lake takes whatever a step appends, in transactions cut anywhere; nothing is lost, doubled or changed."""
    messages = [
        wire.encode_batch(
            wire.encode_columns(columns), device="pi", epoch=epoch(), seq=seq, rows=columns[0].rows, stream=stream
        )
        for seq, (stream, columns, _) in enumerate(sent, 1)
    ]
    records = records_of(0, messages)
    fold = PartitionFold(0, ALL_MINE)
    with tempfile.TemporaryDirectory() as directory, lake.open(directory, create=True) as here:
        edges = [0, *sorted(cut for cut in cuts if cut < len(records)), len(records)]
        for first, after in itertools.pairwise(edges):
            result = run_step(job, {0: fold}, {0: records[first:after]}, Phases(), here.check)
            here.commit(result.appends)
        snapshot = here.snapshot()
        found = _rows(snapshot.query("SELECT * FROM things").arrow()) if "things" in snapshot.tables else []
        letters = snapshot.query("SELECT seq, reason, job FROM dead_letters").arrow().to_pylist()
    landed: dict[int, list[dict[str, Any]]] = {}
    for row in sorted(found, key=lambda row: (row["seq"], row["row"])):
        landed.setdefault(row["seq"], []).append(row)
    refused = [letter["seq"] for letter in letters]
    assert sorted([*landed, *refused]) == list(range(1, len(sent) + 1))
    assert all(letter["job"] == "readings" and letter["reason"] for letter in letters)
    for seq, rows in landed.items():
        stream, columns, values = sent[seq - 1]
        assert stream.lower() == "things"
        kinds = {column.name: column.type for column in columns}
        for index, row in enumerate(rows):
            for name, column in values.items():
                _equal(row[name], column[index], kinds[name])
            assert all(row[name] is None for name in ("a", "b", "B", "x" * 128) if name in row and name not in values)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """With times as microseconds: Python's own hold none before the year 1."""
    times = {field.name for field in table.schema if pa.types.is_timestamp(field.type)}
    return pa.table(
        {name: table[name].cast("int64") if name in times else table[name] for name in table.column_names}
    ).to_pylist()


def _equal(found: Any, sent: Any, kind: str) -> None:
    if kind == "float64" and sent is not None:
        assert found == sent
        assert math.copysign(1, found) == math.copysign(1, sent)
    else:
        assert found == sent
