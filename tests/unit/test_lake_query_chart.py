"""The chart of an answer: what is drawn over what, and that it fits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from edge_agent.contract.errors import RejectError
from lake.query_chart import BARS_MAX, CHARTS_MAX, charts

START = datetime(2026, 1, 1, tzinfo=UTC)


def _times(count: int, step_s: float = 60) -> list[datetime]:
    return [START + timedelta(seconds=step_s * index) for index in range(count)]


def test_numbers_over_time_have_their_ends_below() -> None:
    """In the order of time, whatever the order of the rows."""
    table = pa.table({"ts": _times(4)[::-1], "value": [3.0, 2.0, 1.0, 0.0]})
    lines = charts(table, width=80)
    assert lines[0] == "value"
    assert lines[1] == "3 |   █"
    assert lines[-2] == "0 |▁███"
    assert lines[-1].split() == ["2026-01-01", "00:00:00", "2026-01-01", "00:03:00"]


def test_each_name_has_a_chart_of_its_own() -> None:
    """Text names series; a name that is null is one too."""
    table = pa.table({"ts": _times(6), "name": ["b", "a", None] * 2, "value": [1, 2, 3, 4, 5, 6]})
    titles = [line for line in charts(table, width=60) if line and line[0].isalpha()]
    assert titles == ["a", "b", "None"]
    table = pa.table({"device": ["x"] * 2, "ts": _times(2), "low": [1, 2], "high": [3, 4]})
    lines = charts(table.select(["ts", "device", "low", "high"]), width=60)
    assert [line for line in lines if line.startswith("x")] == ["x low", "x high"]


def test_gaps_in_time_are_gaps_in_the_chart() -> None:
    """A place without a value is blank, not a line from one side to the other."""
    times = _times(10)
    table = pa.table({"ts": times[:3] + times[7:], "value": [1.0] * 6})
    assert charts(table, width=80)[-2] == "1 |▁▁▁    ▁▁▁"


def test_names_and_one_number_are_bars() -> None:
    """From zero, with the number at the end; names of any width stand aligned."""
    table = pa.table({"device": ["pi4", "你好"], "n": [4, 2]})
    assert charts(table, width=21) == ["n by device", "pi4  |█████████████ 4", "你好 |██████▌ 2"]
    lines = charts(table, width=30, ascii_only=True)
    assert lines[1].startswith("pi4  |####")
    assert lines[1].count("#") == 2 * lines[2].count("#")


@pytest.mark.parametrize("width", [1, 20, 33, 80, 500])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_no_line_is_wider_than_the_terminal(width: int, ascii_only: bool) -> None:
    """Numbers of any size, long names, many rows."""
    count = 1000
    tables = [
        pa.table({"ts": _times(count), "value": [float(index) for index in range(count)]}),
        pa.table({"ts": _times(3), "value": [-1.7e308, 0.0, 1.7e308]}),
        pa.table({"n": [1e-300, 1e300]}),
        pa.table({"s": ["x" * 200, "y"], "n": [1, -2]}),
        pa.table({"ts": _times(2), "s": ["x" * 200, "y"], "n": [1, -2]}),
    ]
    for table in tables:
        lines = charts(table, width=width, ascii_only=ascii_only)
        # Bars keep their name and number on a terminal of a few columns.
        assert max(map(len, lines)) <= max(60 if "s" in table.column_names and width < 60 else 20, min(width, 200))
        assert not ascii_only or "".join(lines).isascii()


def test_what_cannot_be_drawn_is_left_out_or_said() -> None:
    """Nulls, NaN and infinities are gaps; without any number left there is one line."""
    table = pa.table({"ts": _times(4), "value": [1.0, None, float("nan"), 2.0]})
    assert charts(table, width=80)[-2] == "1 |▁  █"
    assert charts(pa.table({"ts": _times(1), "value": [float("inf")]}), width=80) == ["value", "(no values)"]
    assert charts(pa.table({"ts": _times(0), "value": pa.array([], pa.float64())}), width=80) == ["(no rows)"]
    assert charts(pa.table({"ts": [None, START], "value": [1, 2]}), width=80)[1] == "2 |"


@pytest.mark.parametrize(
    "table",
    [pa.table({"s": ["x"]}), pa.table({}), pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])],
)
def test_nothing_to_draw_is_an_error(table: pa.Table) -> None:
    """It says what a chart needs."""
    with pytest.raises(RejectError, match="a chart needs a numeric column"):
        charts(table, width=80)


def test_there_is_a_most_of_charts_and_bars() -> None:
    """And a last line that says so."""
    names = [f"n{index:03}" for index in range(100)]
    many = pa.table({"ts": _times(100), "name": names, "value": list(range(100))})
    assert charts(many, width=80)[-1] == f"({CHARTS_MAX} of 100 charts; WHERE chooses)"
    bars = charts(pa.table({"name": names, "n": list(range(100))}), width=80)
    assert len(bars) == BARS_MAX + 2
    assert bars[-1] == f"({BARS_MAX} of 100 bars; ORDER BY and LIMIT choose)"


def test_dates_numbers_and_row_numbers_are_axes_too() -> None:
    """A date, a number; without either, rows in their order."""
    table = pa.table({"day": pa.array([0, 1], pa.date32()), "n": [1, 2]})
    assert charts(table, width=80)[-1].split() == ["1970-01-01", "1970-01-02"]
    assert charts(pa.table({"x": [0.5, 1.5], "n": [1, 2]}), width=80)[-1].split() == ["0.5", "1.5"]
    assert charts(pa.table({"n": [1, 2]}), width=80)[-1] == "1 |▁█"
    fine = pa.table({"ts": _times(2, 0.25), "n": [1, 2]})
    assert "2026-01-01 00:00:00.250000" in charts(fine, width=80)[-1]


def test_means_with_more_digits_than_the_values_still_fit() -> None:
    """The newest values and the last time are there, although the labels of means are wider than those of values."""
    minutes = pa.array(range(0, 600 * 60_000_000, 60_000_000), pa.timestamp("us", tz="UTC"))
    values = pa.array([15.0 if i % 2 else 25.0 + (i % 7 == 0) for i in range(600)])
    lines = charts(pa.table({"minute": minutes, "mean": values}), width=80)
    assert lines[-1].endswith("1970-01-01 09:59:00")
    assert max(map(len, lines)) <= 80
