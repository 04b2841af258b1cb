"""A process that fills a lake: run as `python -m tests.kit.lake_writer DIR TRANSACTIONS`, killed wherever a test says.

Each transaction appends ROWS readings and their aggregates and moves the chain of job `readings`, partition 0, by
one; its number in the chain is the rows' seq. From GROWS_AT on, readings have the column `unit`. Checkpoints come after
few records, so that a short run passes every crash point.

**Delivery**: started again, it goes on where the chain stands. **Bounds**: it ends after TRANSACTIONS in the chain.
"""

from __future__ import annotations

import sys

import pyarrow as pa

import lake
from lake import delta
from lake.aggregate import partials_from
from lake.transaction import checkpoint

from .lake_rows import readings

__all__ = ["GROWS_AT", "ROWS", "fill"]

ROWS = 20
GROWS_AT = 4
STATE_BYTES = 20_000


def fill(directory: str, transactions: int) -> None:
    """Bring the chain to `transactions`."""
    here = lake.open(directory, create=True)
    here.apply()
    head = here.chain("readings", 0)
    origin, offset = head.transaction, head.offset
    while offset < transactions:
        rows = readings(ROWS, seq=offset)
        if offset >= GROWS_AT:
            rows = rows.append_column("unit", pa.array(["V"] * ROWS))
        link = lake.Link(
            job="readings",
            partition=0,
            origin_transaction=origin,
            offset=offset + 1,
            topic_id="topic",
            last_record_crc=offset,
            state=bytes([offset % 256]) * STATE_BYTES,
        )
        prepared = here.prepare({"readings": rows, "readings_1m": partials_from(rows)}, [link])
        origin, offset = here.decide(prepared), offset + 1
        here.apply()


if __name__ == "__main__":
    checkpoint.RECORDS_BETWEEN_MIN = 4
    delta.COMMITS_BETWEEN_CHECKPOINTS = 3
    fill(sys.argv[1], int(sys.argv[2]))
