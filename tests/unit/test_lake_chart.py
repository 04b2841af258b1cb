"""The terminal chart."""

from __future__ import annotations

from lake.chart import chart_lines


def test_a_ramp_rises_from_left_to_right() -> None:
    """The lowest value is at the left bottom, the highest fills the last column, and both are labelled."""
    lines = chart_lines([0, 1, 2, 3, 4, 5, 6, 7], height=2, unit=" %")
    assert lines == ["7 % |    ▁▃▆█", "0 % |▁▂▅▇████"]


def test_many_values_are_averaged_into_the_width() -> None:
    """A thousand values need no more than the asked columns."""
    lines = chart_lines(list(range(1000)), width=40, height=3)
    assert all(len(line.partition("|")[2]) == 40 for line in lines)


def test_nothing_finite_is_said_so() -> None:
    """No values, or only NaN and infinity, draw nothing and break nothing; equal values draw a flat line."""
    assert chart_lines([]) == chart_lines([float("nan"), float("inf")]) == ["(no values)"]
    assert chart_lines([3.0, 3.0], height=1) == ["3 |▁▁"]
