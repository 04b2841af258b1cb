"""What `edgewater jobs new` writes: a job to begin with, and its test.

**Delivery**: text only; the tests of this project run both. **Bounds**: none needed.
"""

from __future__ import annotations

__all__ = ["JOB", "TEST"]

JOB = '''"""Job {name}: readings above a limit, in a table of their own."""

import pyarrow as pa
import pyarrow.compute as pc

from stream_jobs import Job

LIMIT = 90.0

# The name is the job's identity: under another name it begins again with the first record of the log.
job = Job("{name}")


# A step gets an Arrow table: the stream's columns (of readings: ts, name, value), then where each row came from:
# device, epoch, seq, row, function, function_version, received_at, trace. What it returns is appended to its table,
# in the same transaction as the position in the log: once, whatever crashes.
@job.step(stream="readings", table="{table}")
def above_limit(rows: pa.Table) -> pa.Table:
    """The rows above the limit, with the limit beside them."""
    found = rows.filter(pc.greater(rows["value"], LIMIT)).select(["ts", "device", "name", "value"])
    return found.append_column("limit", pa.array([LIMIT] * found.num_rows, pa.float64()))


# More: @job.step(stream="doors", tables=("a", "b")) returns {{"a": rows, "b": rows}}; a stream need not be declared.
# Rows come in batches of any size, so a step must not count on where one ends: see docs/jobs.md.
'''

TEST = '''"""Tests of job {name}; they need no service: python -m pytest test_{name}.py"""

from pathlib import Path

from stream_jobs.testing import JobKit

JOB = Path(__file__).with_name("{name}.py")


def test_rows_above_the_limit_are_kept():
    """One of two readings is above the limit."""
    kit = JobKit(JOB)
    kit.feed("readings", [{{"name": "temp", "value": 20.0}}, {{"name": "temp", "value": 95.5, "device": "pi-2"}}])
    assert kit.dead_letters == []
    (alert,) = kit.tables["{table}"].to_pylist()
    assert (alert["device"], alert["value"], alert["limit"]) == ("pi-2", 95.5, 90.0)


def test_it_does_not_matter_where_batches_are_cut():
    """After a crash the same rows may come in other batches."""
    JobKit(JOB).assert_any_cut("readings", [{{"name": "temp", "value": value}} for value in (89.0, 91.0, 95.0)])
'''
