"""Jobs: functions from tables to tables."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from edge_agent.contract.errors import RejectError
from stream_jobs.jobs import Job, run_steps

ROWS = pa.table({"value": [1.0, 2.0, 3.0, 4.0], "seq": [1, 1, 2, 3]})


def test_a_step_is_a_plain_function() -> None:
    """A decorated function stays callable and is tested by calling it with a table."""
    job = Job("j")

    @job.step(stream="readings", table="doubled")
    def doubled(rows: Any) -> Any:
        return pa.table({"value": pc.multiply(rows["value"], 2)})

    assert doubled(ROWS)["value"].to_pylist() == [2.0, 4.0, 6.0, 8.0]
    assert run_steps(job, "readings", ROWS, [2, 1, 1]).appends["doubled"][0]["value"].to_pylist() == [2, 4, 6, 8]
    assert job.tables == ["doubled"]
    assert job.reads("readings")


def test_a_step_may_feed_several_tables_or_none() -> None:
    """A mapping appends to each table it names; None, and a table of no rows, append nothing."""
    job = Job("j")
    job.step(stream="readings", tables=("a", "b"))(lambda rows: {"a": rows, "b": rows.slice(0, 0)})

    @job.step(stream="readings", table="c")
    def nothing(rows: Any) -> None:
        return None

    assert list(run_steps(job, "readings", ROWS, [4]).appends) == ["a"]


def test_a_step_that_raises_costs_only_its_batches() -> None:
    """The batches a step fails for are found, each with the traceback; the others and the other steps go on."""
    job = Job("j")

    @job.step(stream="readings", table="good")
    def good(rows: Any) -> Any:
        return rows

    @job.step(stream="readings", table="bad")
    def bad(rows: Any) -> Any:
        if 2 in rows["seq"].to_pylist():
            raise KeyError("no second batch, please")
        return rows

    output = run_steps(job, "readings", ROWS, [2, 1, 1])
    assert output.appends["good"][0].num_rows == 4
    assert sorted(row for part in output.appends["bad"] for row in part["seq"].to_pylist()) == [1, 1, 3]
    (failure,) = output.failures
    assert (failure.step, failure.batch) == ("bad", 1)
    assert "no second batch, please" in failure.reason
    assert "raise KeyError" in failure.reason


@pytest.mark.parametrize("result", [5, {"other": ROWS}, {"t": [1]}, [ROWS]])
def test_a_result_that_was_not_declared_is_a_failure(result: object) -> None:
    """Anything but the declared tables is refused with what to return."""
    job = Job("j")
    job.step(stream="readings", table="t")(lambda rows: result)
    output = run_steps(job, "readings", ROWS, [4])
    assert output.appends == {}
    assert "return" in output.failures[0].reason


def test_rows_a_table_does_not_take_are_a_failure() -> None:
    """What `check` refuses becomes a failure of the step with that text."""
    job = Job("j")
    job.step(stream="readings", table="t")(lambda rows: rows)

    def check(table: str, rows: Any) -> Any:
        raise RejectError(f"table {table} has no column value")

    assert run_steps(job, "readings", ROWS, [4], check).failures[0].reason.endswith("table t has no column value")


def test_what_a_job_refuses() -> None:
    """Steps without a table, two steps of one name, names no table can have, tables and streams of Edgewater's own,
    and functions that no step can be."""
    job = Job("j", {"events": {"what": "string"}})
    job.step(stream="events", table="t")(print)
    with pytest.raises(RejectError, match="no stream may be named skipped"):
        job.step(stream="skipped", table="t")
    for table in ("readings", "readings_1m", "dead_letters", "skipped"):
        with pytest.raises(RejectError, match=f"table {table} is written by Edgewater's own job; .* as j_{table}"):
            job.step(stream="readings", table=table)
    with pytest.raises(RejectError, match=r"step <lambda> takes \(rows, more\); a step takes one argument"):
        job.step(stream="events", table="t")(lambda rows, more: rows)
    with pytest.raises(
        RejectError, match="stream readings has the columns ts, name, value everywhere; do not declare it"
    ):
        Job("j", {"readings": {"ts": "timestamp"}})
    with pytest.raises(RejectError, match="has a column device, which every table has by itself"):
        Job("j", {"events": {"device": "string"}})
    with pytest.raises(RejectError, match="needs table"):
        job.step(stream="events")
    with pytest.raises(RejectError, match="two steps print"):
        job.step(stream="events", table="t")(print)
    with pytest.raises(RejectError, match="not allowed"):
        job.step(stream="events", table="a/b")
    with pytest.raises(RejectError, match="not allowed"):
        Job("../j")
