"""Partial aggregates: what is in them, and how partial rows fold."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from edge_agent.contract.errors import RejectError
from lake.aggregate import fold_sql, partials_from
from lake.schema import READINGS_1M
from lake.transaction.records import Column
from tests.kit.lake_rows import START_US, readings


def _one(rows: pa.Table) -> dict[str, object]:
    (row,) = partials_from(rows).to_pylist()
    return dict(row)


def test_a_group_has_its_sums_and_ends() -> None:
    """One device, name and minute is one row, with all of its aggregates."""
    row = _one(readings(4, names=("a",), values=[2.0, 4.0, 4.0, 6.0]))
    assert (row["count"], row["nan_count"], row["sum"], row["min"], row["max"]) == (4, 0, 16.0, 2.0, 6.0)
    assert (row["mean"], row["m2"], row["first"], row["last"]) == (4.0, 8.0, 2.0, 6.0)
    assert (row["first_row"], row["last_row"], row["last_seq"]) == (0, 3, 1)


def test_the_schema_is_that_of_the_table() -> None:
    """Whatever comes in, also nothing."""
    assert partials_from(readings(10)).schema.equals(READINGS_1M, check_metadata=True)
    assert partials_from(readings(0)).equals(READINGS_1M.empty_table())


def test_nan_is_counted_apart() -> None:
    """NaN is in no sum, and may be the first or last value."""
    row = _one(readings(3, names=("a",), values=[1.0, 3.0, math.nan]))
    assert (row["count"], row["nan_count"], row["sum"], row["mean"], row["max"]) == (2, 1, 4.0, 2.0, 3.0)
    assert math.isnan(row["last"])  # type: ignore[arg-type]
    row = _one(readings(2, names=("a",), values=[math.nan, math.nan]))
    assert (row["count"], row["nan_count"], row["sum"], row["min"], row["mean"]) == (0, 2, None, None, None)


def test_nulls_are_not_there() -> None:
    """A group of nulls has no row, and a null is neither first nor last."""
    assert partials_from(readings(2, values=[None, None])).num_rows == 0
    row = _one(readings(3, names=("a",), values=[None, 5.0, None]))
    assert (row["count"], row["first"], row["last"], row["first_row"]) == (1, 5.0, 5.0, 1)


def test_infinities_follow_ieee_754() -> None:
    """They are values: sums and means are infinite, the deviations from an infinite mean are not a number."""
    row = _one(readings(2, names=("a",), values=[1.0, math.inf]))
    assert (row["sum"], row["mean"], row["max"], row["min"]) == (math.inf, math.inf, math.inf, 1.0)
    assert math.isnan(row["m2"])  # type: ignore[arg-type]
    row = _one(readings(2, names=("a",), values=[-math.inf, math.inf]))
    assert math.isnan(row["sum"])  # type: ignore[arg-type]


def test_order_is_that_of_ts_epoch_seq_row_and_not_of_arrival() -> None:
    """Rows come in any order; equal times are ordered by where they came from."""
    late, early = readings(2, names=("a",), step_us=0, seq=9), readings(2, names=("a",), step_us=0, seq=1)
    row = _one(pa.concat_tables([late, early]).combine_chunks())
    assert (row["first_seq"], row["first_row"], row["last_seq"], row["last_row"]) == (1, 0, 9, 1)


@pytest.mark.parametrize("moment_us", [START_US, START_US - 1, 0, -1, -60_000_000, -60_000_001])
def test_minutes_go_down_also_before_1970(moment_us: int) -> None:
    """A minute is the largest multiple of 60 s that is not after the reading."""
    rows = readings(1).set_column(0, "ts", pa.array([moment_us], pa.int64()).cast(pa.timestamp("us", "UTC")))
    minute = partials_from(rows)["minute"].cast(pa.int64())[0].as_py()
    assert minute % 60_000_000 == 0
    assert 0 <= moment_us - minute < 60_000_000


def test_an_unknown_fold_names_the_column_and_the_next_step() -> None:
    """A table of a newer Edgewater is refused, not read wrongly."""
    with pytest.raises(
        RejectError, match=r"column 'x' folds by 'hyperloglog'.*upgrade it, or read the table's _partials"
    ):
        fold_sql([Column("k", "string", "key"), Column("x", "binary", "hyperloglog")], "t")
    with pytest.raises(RejectError, match="column 'x' folds by None"):
        fold_sql([Column("k", "string", "key"), Column("x", "long")], "t")
