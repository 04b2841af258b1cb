"""A device function for the benchmarks: BULK_RATE readings a second in batches of BULK_ROWS, 8 names, a random walk.

**Delivery**: none of its own. **Bounds**: as fast as the agent accepts; what the timer missed is not made up.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from array import array

from edge_agent import every, readings

RATE = int(os.environ.get("BULK_RATE", "100000"))
ROWS = int(os.environ.get("BULK_ROWS", "1000"))
# A call makes as many whole batches as keep the timer at no more than 50 calls a second.
CALL_ROWS = ROWS * max(1, round(RATE / ROWS / 50))
NAMES = [f"sensor_{n}" for n in range(8)]
_random = random.Random(1)
_walk = array("d", itertools.accumulate(round(_random.uniform(-1, 1), 3) for _ in range(CALL_ROWS * 8)))
_codes = array("B", (n % 8 for n in range(CALL_ROWS)))
_turn = itertools.cycle(range(8))


@every(CALL_ROWS / RATE)
def bulk() -> object:
    """CALL_ROWS readings stamped with the present, one microsecond apart."""
    now_us = time.time_ns() // 1000
    start = next(_turn) * CALL_ROWS
    return readings(
        ts=array("q", range(now_us, now_us + CALL_ROWS)),
        names=NAMES,
        codes=_codes,
        values=_walk[start : start + CALL_ROWS],
    )
