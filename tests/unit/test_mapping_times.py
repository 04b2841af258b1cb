"""Times as foreign devices write them."""

from __future__ import annotations

import pytest

from stream_jobs.mapping.times import time_us

AT_US = 1_767_319_445_000_000


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-02T02:04:05Z", "2026-01-02T03:04:05+01:00", "2026-01-02 02:04:05", "20260102T020405Z",
        1767319445, 1767319445.0, 1767319445000, AT_US, AT_US * 1000, "1767319445", "1767319445000", "1767319445.000",
    ],
)  # fmt: skip
def test_one_moment_in_each_form(value: object) -> None:
    """ISO 8601 with and without zone, and seconds, ms, us and ns since 1970, as numbers and as text."""
    assert time_us(value, "UTC") == AT_US


def test_a_time_without_zone_is_in_the_mappings_zone() -> None:
    """Summer time counts; a zone in the text wins."""
    assert time_us("2026-01-02T03:04:05", "Europe/Vienna") == AT_US
    assert time_us("2026-07-02T04:04:05", "Europe/Vienna") == time_us("2026-07-02T02:04:05Z", "Europe/Vienna")


@pytest.mark.parametrize(
    "value",
    [None, True, "", "soon", "1970-01-01T00:33:28", 0, -1, 5, 1e300, float("nan"), float("inf"), 10**400, [], {},
     "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "x" * 100, "nan", "1e400", "²"],
)  # fmt: skip
def test_what_is_no_time_is_none(value: object) -> None:
    """Nothing raises, and a clock that was not set is no time."""
    assert time_us(value, "UTC") is None
    assert time_us(value, "Europe/Vienna") is None
