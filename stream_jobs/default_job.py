"""Edgewater's own job, a job file like any other: raw readings, their aggregates a minute, what devices put aside.

It runs where no other job is named. Every stream without a step here lands in a table of the stream's name.

**Delivery**: see `jobs`. **Bounds**: those of a micro-batch.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from lake.aggregate import partials_from

from .jobs import DEFAULT_JOB, Job

__all__ = ["dead_letters", "job", "readings", "readings_1m"]

job = Job(DEFAULT_JOB)


@job.step(stream="readings", table="readings")
def readings(rows: Any) -> Any:
    """Every reading as it came."""
    return rows


@job.step(stream="readings", table="readings_1m")
def readings_1m(rows: Any) -> Any:
    """Partial aggregates for each device, name and minute."""
    return partials_from(rows)


@job.step(stream="dead_letters", table="dead_letters")
def dead_letters(rows: Any) -> Any:
    """What a device could not read: the text, why, and where it was there."""
    return pa.table(
        {
            "payload": rows["payload"].cast(pa.binary()),
            "reason": rows["reason"],
            "topic": rows["place"],
            **{name: rows[name] for name in ("device", "epoch", "seq", "received_at")},
        }
    )
