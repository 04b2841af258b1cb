"""How old rows are when they can be queried: publish time less the device's `ts`, and less the log's append time.

**Delivery**: a measurement only; it starts anew with the process. **Bounds**: a sample of some 1,000 evenly spaced rows
of each transaction, of the last WINDOW_TRANSACTIONS transactions and WINDOW_S seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["Freshness"]

WINDOW_TRANSACTIONS = 64
WINDOW_S = 30.0


class Freshness:
    """Quantiles over a sliding window of transactions."""

    def __init__(self) -> None:
        self._window: deque[tuple[float, int, Any, Any]] = deque(maxlen=WINDOW_TRANSACTIONS)

    def published(self, at_us: int, now_s: float, samples: Sequence[tuple[Any, Any]]) -> None:
        """A transaction became visible at `at_us`; `samples` are (ts, received_at) columns of some of its rows."""
        for ts, received_at in samples:
            self._window.append((now_s, at_us, ts.cast(pa.int64()), received_at.cast(pa.int64())))

    def report(self, now_s: float) -> dict[str, float | None]:
        """p50 and p99 in seconds, None before the first rows: since `ts`, and since the log took them."""
        # A copy, since another thread publishes meanwhile.
        recent = [entry for entry in tuple(self._window) if entry[0] >= now_s - WINDOW_S]
        p50, p99 = _quantiles([(at_us, ts) for _, at_us, ts, _ in recent])
        log_p50, log_p99 = _quantiles([(at_us, received) for _, at_us, _, received in recent])
        return {"p50_s": p50, "p99_s": p99, "since_log_p50_s": log_p50, "since_log_p99_s": log_p99}


def _quantiles(parts: Sequence[tuple[int, Any]]) -> tuple[float | None, float | None]:
    if not parts:
        return None, None
    # A device's clock may say anything; unchecked arithmetic wraps instead of raising.
    ages = pa.chunked_array([chunk for at_us, part in parts for chunk in pc.subtract(at_us, part).chunks])
    found = pc.quantile(ages, q=[0.5, 0.99]).to_pylist()
    p50, p99 = (None if value is None else round(value / 1_000_000, 6) for value in found)
    return p50, p99
