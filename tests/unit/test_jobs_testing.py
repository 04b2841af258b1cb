"""The test kit of jobs: it refuses what a lake would refuse, and runs what a worker runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from edge_agent.contract.errors import RejectError
from stream_jobs.default_job import job as default_job
from stream_jobs.jobs import Job
from stream_jobs.testing import FIRST_TS_US, JobKit


def _job() -> Job:
    job = Job("j", {"gas": {"ts": "timestamp", "level": "int64"}})
    job.step(stream="gas", table="high")(lambda rows: rows.filter(pc.greater(rows["level"], 5)))
    return job


def test_rows_are_completed_and_results_collected() -> None:
    """Columns that a test does not care about have values; a table without rows is empty."""
    kit = JobKit(_job())
    assert kit.tables["high"].num_rows == 0
    kit.feed("gas", [{"level": 6}, {"level": 7, "device": "pi"}, {"level": 1}])
    kit.feed("gas", pa.table({"level": [9], "ts": pa.array([datetime(2026, 1, 2, tzinfo=UTC)])}))
    kit.feed("gas", [])
    rows = kit.tables["high"].to_pylist()
    assert [(row["level"], row["device"], row["epoch"], row["seq"], row["row"]) for row in rows] == [
        (6, "device-1", 1, 1, 0), (7, "pi", 1, 1, 1), (9, "device-1", 1, 2, 0),
    ]  # fmt: skip
    assert rows[1]["ts"] == datetime.fromtimestamp(FIRST_TS_US / 1e6 + 1, UTC)
    assert rows[2]["ts"] == datetime(2026, 1, 2, tzinfo=UTC)
    assert kit.tables["high"].schema.field("device").type == pa.string()
    assert kit.dead_letters == []


def test_a_step_that_fails_is_a_dead_letter_of_its_batch() -> None:
    """The other batches go on, as in the worker; `seq` makes batches."""
    job = Job("j")

    @job.step(stream="doors", table="t")
    def never_b(rows: Any) -> Any:
        if "b" in rows["name"].to_pylist():
            raise LookupError("b")
        return rows

    kit = JobKit(job)
    kit.feed("doors", [{"name": name, "seq": seq} for name, seq in (("a", 1), ("a", 2), ("b", 2), ("c", 3))])
    assert kit.tables["t"]["name"].to_pylist() == ["a", "c"]
    (letter,) = kit.dead_letters
    assert letter.step == "never_b"
    assert letter.reason.endswith("LookupError: b\n")
    assert letter.rows["name"].to_pylist() == ["a", "b"]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (pa.table({"a": [[1]]}), "has type list<.*which a lake does not store"),
        (pa.table({"a": ["x"]}), "column 'a' of table t is long"),
        (pa.table({"A": [1]}), "has no column 'A' but 'a'"),
        (5, "it returned int; return a pyarrow.Table or None"),
        ({"u": pa.table({"a": [1]})}, "it returned rows for table 'u'; it declares t"),
    ],
)
def test_what_a_lake_would_refuse_is_a_dead_letter(result: object, reason: str) -> None:
    """The table is what the rows before made it."""
    results = iter([pa.table({"a": [1]}), result])
    job = Job("j")
    job.step(stream="s", table="t")(lambda rows: next(results))
    kit = JobKit(job)
    kit.feed("s", [{"x": 1}])
    kit.feed("s", [{"x": 1}])
    assert kit.tables["t"].to_pylist() == [{"a": 1}]
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(kit.dead_letters[0].reason)


@pytest.mark.parametrize(
    ("stream", "rows", "message"),
    [
        ("gas", [{"level": 1.5}], "column 'level' of stream gas: .*; give values of one type"),
        ("gas", [{"levle": 1}], r"rows of stream gas have columns \['levle'\]; it has \['ts', 'level'\]"),
        ("doors", [{"a": 1}, {"a": "x"}], "column 'a' of stream doors: .*; give values of one type"),
        ("doors", [{"a": [1]}], "has type list<.*which no device sends; use one of"),
        ("doors", pa.table({"a": pa.array([1], pa.int8())}), "has type int8, which no device sends"),
    ],
)
def test_rows_that_no_device_could_send_are_the_tests_mistake(stream: str, rows: Any, message: str) -> None:
    """It is said at once, with the column."""
    with pytest.raises(RejectError, match=message):
        JobKit(_job()).feed(stream, rows)


def test_a_step_that_depends_on_the_cut_is_found() -> None:
    """Counting the rows of a batch is not a result; filtering them is."""
    job = Job("j")
    job.step(stream="s", table="counts")(lambda rows: pa.table({"n": [rows.num_rows]}))
    rows = [{"x": number} for number in range(3)]
    with pytest.raises(AssertionError, match="cut before row 1"):
        JobKit(job).assert_any_cut("s", rows)
    JobKit(_job()).assert_any_cut("gas", [{"level": number} for number in range(12)])


def test_the_default_job_in_the_kit() -> None:
    """Readings with their partials, streams without a step, and what a device put aside."""
    kit = JobKit(default_job)
    kit.feed("readings", [{"name": "t", "value": 1}, {"name": "t", "value": 3.0}])
    assert kit.tables["readings"]["value"].to_pylist() == [1.0, 3.0]
    assert kit.tables["readings_1m"].select(["count", "sum"]).to_pylist() == [{"count": 2, "sum": 4.0}]
    kit.feed("Doors", [{"open": True, "code": 1 << 60}])
    assert kit.tables["doors"].select(["open", "code"]).to_pylist() == [{"open": True, "code": 1 << 60}]
    kit.feed("dead_letters", [{"payload": "1;x", "reason": "no number", "place": "a.csv:2"}])
    (letter,) = kit.tables["dead_letters"].to_pylist()
    assert (letter["payload"], letter["reason"], letter["topic"]) == (b"1;x", "no number", "a.csv:2")
    assert (letter["job"], letter["partition"]) == (None, None)
    kit.feed("READINGS", [{"open": True}])
    assert "would land in table readings, which is written by Edgewater's own job" in kit.dead_letters[0].reason
