"""A job with two steps: readings above their limit, and of door events the openings and what each door did last.

    edgewater up --jobs examples/alerts_job.py
    edgewater lake query "SELECT * FROM alerts"

Its test, which needs no service, is tests/unit/test_examples_alerts_job.py.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from stream_jobs import Job

LIMITS = {"temperature": 90.0, "pressure": 2.5}

job = Job("alerts")


@job.step(stream="readings", table="alerts")
def above_limit(rows: pa.Table) -> pa.Table:
    """Readings above the limit of their name, each with the limit. Names without a limit are passed over."""
    names = pa.array(list(LIMITS), pa.string())
    limits = pa.array(list(LIMITS.values()), pa.float64())
    limit = limits.take(pc.index_in(rows["name"].cast(pa.string()), names))
    rows = rows.select(["ts", "device", "name", "value"]).append_column("limit", limit)
    # What is null or NaN is above nothing.
    return rows.filter(pc.greater(rows["value"], rows["limit"]))


@job.step(stream="doors", tables=("door_openings", "door_battery"))
def doors(rows: pa.Table) -> dict[str, pa.Table]:
    """Openings, and the battery where a door tells it: older doors do not, so the column may be missing."""
    found = {"door_openings": rows.filter(rows["open"]).select(["ts", "device", "door"])}
    if "battery" in rows.column_names:
        told = rows.filter(pc.is_valid(rows["battery"]))
        found["door_battery"] = told.select(["ts", "device", "door", "battery"])
    return found
