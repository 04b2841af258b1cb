"""Readings for tests of the lake.

**Delivery**: nothing is kept. **Bounds**: none but the test's.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from lake.schema import READINGS

__all__ = ["START_US", "readings"]

START_US = 1_790_000_000_000_000


def readings(
    count: int,
    *,
    seq: int = 1,
    device: str = "pi4",
    names: Sequence[str] = ("a", "b"),
    step_us: int = 1_000_000,
    values: Sequence[float | None] | None = None,
) -> pa.Table:
    """`count` readings of one batch, whose names take turns; value i is i unless `values` says otherwise."""
    return pa.table(
        {
            "ts": pa.array([START_US + i * step_us for i in range(count)], pa.timestamp("us", tz="UTC")),
            "name": pa.array([names[i % len(names)] for i in range(count)]).dictionary_encode(),
            "value": pa.array([float(i) for i in range(count)] if values is None else values, pa.float64()),
            "device": pa.array([device] * count, pa.string()).dictionary_encode(),
            "epoch": pa.array([1] * count, pa.int64()),
            "seq": pa.array([seq] * count, pa.int64()),
            "row": pa.array(range(count), pa.int32()),
            "function": pa.array(["host"] * count, pa.string()).dictionary_encode(),
            "function_version": pa.array(["0" * 16] * count, pa.string()).dictionary_encode(),
            "received_at": pa.array([START_US] * count, pa.timestamp("us", tz="UTC")),
            "trace": pa.nulls(count, pa.string()),
        }
    ).select(READINGS.names)
