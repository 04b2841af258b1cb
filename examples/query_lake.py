"""Ask a lake from Python: SQL, a scan of one device, pandas and Polars from the same answer.

python examples/query_lake.py [DIR]      DIR: a lake, or the directory of `edgewater up` (default: edgewater-data)
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pandas as pd
import polars as pl

import lake

BUSIEST = """
SELECT device, name, count(*) AS readings, avg(value) AS mean, max(ts) AS newest
FROM readings GROUP BY device, name ORDER BY readings DESC, device, name LIMIT 10
"""


def main(directory: str) -> None:
    """Print the busiest series of a lake, and the last hour of the first of them."""
    here = lake.open(directory)
    answer = here.query(BUSIEST)
    print(answer.render())
    if not len(answer):
        return
    device = answer.arrow()["device"][0].as_py()
    newest: datetime = here.query("SELECT max(ts) FROM readings WHERE device = ?", [device]).arrow()[0][0].as_py()
    # `end` is exclusive.
    end = newest + timedelta(microseconds=1)
    rows = here.table("readings").scan(
        device=device, start=end - timedelta(hours=1), end=end, columns=["ts", "name", "value"]
    )
    frame: pd.DataFrame = rows.pandas()
    print(f"\npandas: {len(frame):,} rows of {device} in its last hour")
    print(frame.groupby("name")["value"].describe()[["count", "mean", "min", "max"]].to_string())
    minutes = pl.DataFrame(rows).group_by_dynamic("ts", every="1m", group_by="name").agg(pl.col("value").mean())
    print(f"\nPolars: {minutes.height:,} means of a minute, as of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "edgewater-data")
