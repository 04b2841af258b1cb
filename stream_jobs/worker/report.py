"""What the worker's status file says of its landing: offsets, counts, freshness, seconds by phase, memory.

**Delivery**: a hint, counted since this process started. **Bounds**: one entry a partition.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .landing import Landing

__all__ = ["status_fields"]

_PAGE_BYTES = 4096


def status_fields(
    landing: Landing, landed: Mapping[int, int], ends: Mapping[int, int | None], now_s: float
) -> dict[str, Any]:
    """JSON values. `landed` is the lake's offset of each partition, `ends` the offset after its last record."""
    counts = landing.counts
    waiting_for = landing.waiting_for or landing.applying_waits_for
    return {
        "state": "waiting" if waiting_for else "running",
        "waiting_for": waiting_for,
        "job": landing.job_name,
        "partitions": {str(number): _partition(landed[number], ends[number]) for number in sorted(landed)},
        "rows_landed": counts.rows,
        "batches_landed": counts.batches,
        "transactions": counts.transactions,
        "last_transaction": landing.last_transaction,
        "applied_transaction": landing.applied_transaction,
        "dead_letters": counts.dead_letters,
        "skipped_rows": counts.skipped_rows,
        "outcomes": dict(counts.outcomes),
        "freshness": landing.freshness.report(now_s),
        "cpu_s": _rounded(landing.phases.cpu_s),
        "elapsed_s": _rounded(landing.phases.elapsed_s),
        "process_cpu_s": round(time.process_time(), 3),
        "rss_bytes": _resident_bytes(),
    }


def _partition(offset: int, end: int | None) -> dict[str, int | None]:
    return {"offset": offset, "end": end, "lag": None if end is None else max(0, end - offset)}


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    # A copy, since the threads that measure may add a phase meanwhile.
    return {phase: round(value, 4) for phase, value in sorted(dict(seconds).items())}


def _resident_bytes() -> int | None:
    """Resident memory of this process; None where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return None
