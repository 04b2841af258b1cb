"""Folded partial aggregates equal what the raw rows give, however the rows were cut into batches and shuffled."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lake.aggregate import fold_sql, partials_from
from lake.schema import READINGS_1M, columns_of
from tests.kit.lake_rows import START_US, readings

# Of sizes whose sums and squares do not overflow, with the values that are special.
VALUES = st.one_of(
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, -0.0, math.nan, 1e15, 5e-324]),
    st.none(),
)
ROWS = st.lists(
    st.tuples(
        st.sampled_from([-90_000_000, -1, 0, 1, 59_999_999, 60_000_000, START_US, START_US + 1]),
        st.sampled_from(["pi4", "pi5"]),
        st.sampled_from(["a", "b"]),
        st.one_of(VALUES, st.sampled_from([math.inf, -math.inf])),
    ),
    min_size=1,
    max_size=60,
)
PARTIALS = columns_of(READINGS_1M, "readings_1m")


Row = tuple[int, str, str, float | None]


def _table(rows: list[Row]) -> pa.Table:
    table = readings(len(rows), values=[value for *_, value in rows])
    replaced = {
        "ts": pa.array([ts for ts, *_ in rows], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        "device": pa.array([device for _, device, _, _ in rows]),
        "name": pa.array([name for _, _, name, _ in rows]),
    }
    for name, column in replaced.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def _recomputed(rows: list[Row]) -> dict[tuple[int, str, str], dict[str, float | None]]:
    """The aggregates of raw rows, value by value; a row's index is its place in the batch, so orders equal times."""
    groups: dict[tuple[int, str, str], list[tuple[int, int, float]]] = {}
    for row, (ts, device, name, value) in enumerate(rows):
        if value is not None:
            groups.setdefault((ts // 60_000_000 * 60_000_000, device, name), []).append((ts, row, value))
    return {key: _aggregated(sorted(group, key=lambda item: item[:2])) for key, group in groups.items()}


def _aggregated(group: list[tuple[int, int, float]]) -> dict[str, float | None]:
    values = [value for *_, value in group if not math.isnan(value)]
    finite = all(map(math.isfinite, values))
    total = (math.fsum if finite else sum)(values)
    mean = total / len(values) if values else math.nan
    return {
        "count": len(values),
        "nan_count": len(group) - len(values),
        "sum": total if values else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
        "mean": mean if values else None,
        "m2": (math.fsum((value - mean) ** 2 for value in values) if finite else math.nan) if values else None,
        "first": group[0][2],
        "first_row": group[0][1],
        "last": group[-1][2],
        "last_row": group[-1][1],
    }


def _same(one: object, two: object) -> bool:
    if isinstance(one, float) and isinstance(two, float):
        if math.isnan(one) or math.isnan(two):
            return math.isnan(one) and math.isnan(two)
        # Sums of 60 values up to 1e15 in another order, and squares of them.
        return one == two or math.isclose(
            one, two, rel_tol=1e-9, abs_tol=1e-3 if max(abs(one), abs(two)) < 1e12 else 1e16
        )
    return one == two


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """One DuckDB for all examples."""
    with duckdb.connect() as opened:
        yield opened


def _folded(connection: duckdb.DuckDBPyConnection, partials: pa.Table) -> list[dict[str, Any]]:
    connection.register("partials", partials)
    answer = pa.table(connection.sql(fold_sql(PARTIALS, "partials")))
    index = answer.schema.get_field_index("minute")
    return answer.set_column(index, "minute", answer["minute"].cast(pa.int64())).to_pylist()  # type: ignore[no-any-return]


@given(rows=ROWS, cuts=st.lists(st.integers(0, 60), max_size=6), seed=st.integers(0, 1 << 32))
def test_folding_partials_equals_aggregating_raw_rows(
    connection: duckdb.DuckDBPyConnection, rows: list[Row], cuts: list[int], seed: int
) -> None:
    """Any values, NaN, infinities and nulls among them; any batches; any order of partial rows."""
    shuffled = _table(rows).take(random.Random(seed).sample(range(len(rows)), len(rows)))
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    parts = [partials_from(shuffled.slice(a, b - a)) for a, b in itertools.pairwise(edges)]
    folded = _folded(connection, pa.concat_tables(random.Random(seed + 1).sample(parts, len(parts))))
    wanted = _recomputed(rows)
    assert len(folded) == len(wanted)
    for found in folded:
        for name, value in wanted[found["minute"], found["device"], found["name"]].items():
            assert _same(found[name], value), (name, value, found)


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50), shift=st.sampled_from([0.0, 1e9]))
def test_variance_survives_a_large_mean(
    connection: duckdb.DuckDBPyConnection, values: list[float], shift: float
) -> None:
    """Values far from zero with a small spread: Chan's formula keeps the digits that sums of squares lose."""
    rows = readings(len(values), names=("a",), step_us=1, values=[value + shift for value in values])
    parts = pa.concat_tables([partials_from(rows.slice(i, 1)) for i in range(len(values))])
    folded = _folded(connection, parts)[0]["m2"]
    shifted = [value + shift for value in values]
    mean = math.fsum(shifted) / len(values)
    exact = math.fsum((value - mean) ** 2 for value in shifted)
    assert math.isclose(folded, exact, rel_tol=1e-6, abs_tol=1e-6 * (1 + shift / 1e4))
