"""How old rows are when they can be queried."""

from __future__ import annotations

import pyarrow as pa

from stream_jobs.worker.freshness import WINDOW_S, Freshness

_TIMESTAMP = pa.timestamp("us", tz="UTC")


def column(*values: int) -> pa.ChunkedArray:
    """Microseconds as a timestamp column."""
    return pa.chunked_array([pa.array(values, pa.int64()).cast(_TIMESTAMP)])


def test_quantiles_of_recent_transactions() -> None:
    """p50 and p99 of publish time less ts, and less received_at, over the window; older transactions fall out."""
    freshness = Freshness()
    assert freshness.report(0)["p50_s"] is None
    freshness.published(10_000_000, 0.0, [(column(*range(9_000_000, 9_000_101)), column(*[9_500_000] * 101))])
    found = freshness.report(1.0)
    assert found["p50_s"] == 0.99995
    assert found["p99_s"] == 0.999999
    assert found["since_log_p50_s"] == 0.5
    freshness.published(20_000_000, WINDOW_S, [(column(18_000_000), column(19_000_000))])
    assert freshness.report(WINDOW_S + 1)["p50_s"] == 2.0


def test_wild_clocks_do_no_harm() -> None:
    """A device's time may be anything that fits 64 bits, or nothing at all."""
    freshness = Freshness()
    freshness.published(1, 0.0, [(column(-(2**63), 2**63 - 1), column(1, 1)), (column(), column())])
    assert freshness.report(0.0)["since_log_p50_s"] == 0.0
