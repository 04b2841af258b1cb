"""Times of files: what is understood, in which zone, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from edge_agent.contract.errors import SettingsError
from edge_agent.replay.times import time_reader, zone_of

NOON = 1_706_702_400_000_000
"""2024-01-31 12:00 UTC."""
SUMMER_NOON = 1_719_835_200_000_000
"""2024-07-01 12:00 UTC."""


@pytest.mark.parametrize(
    ("cell", "us"),
    [
        ("2024-01-31T12:00:00Z", NOON),
        ("2024-01-31T13:00:00+01:00", NOON),
        (" 2024-01-31 12:00:00.000001 ", NOON + 1),
        ("2024-01-31T12:00", NOON),
        ("2024-01-31", NOON - 43_200_000_000),
        ("2024-01-31T12:00:00.123456789Z", NOON + 123_456),
        ("1706702400", NOON),
        ("1706702400.25", NOON + 250_000),
        ("1.7067024e9", NOON),
        ("1706702400000", NOON),
        ("1706702400000001", NOON + 1),
        ("1706702400000001999", NOON + 1),
        ("-1", -1_000_000),
        (1706702400, NOON),
        (1706702400.5, NOON + 500_000),
        (datetime(2024, 1, 31, 12, tzinfo=UTC), NOON),
        (datetime(2024, 1, 31, 12), NOON),  # noqa: DTZ001 - a naive time is the case
        (datetime(2024, 1, 31, 14, tzinfo=timezone(timedelta(hours=2))), NOON),
        (date(2024, 1, 31), NOON - 43_200_000_000),
    ],
)
def test_times_are_understood(cell: object, us: int) -> None:
    """ISO 8601 with and without zone, numbers in four units by magnitude, dates and times of Parquet."""
    assert time_reader("auto", UTC)(cell) == us


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "  ",
        "yesterday",
        "2024-13-01",
        "2024-01-31T25:00",
        "12:00",
        "nan",
        "inf",
        "1_000",
        "--5",
        "9" * 70,
        "x" * 100,
        None,
        True,
        float("nan"),
        10**400,
        -(10**30),
        [],
        {},
        "9" * 22,
        "0001-01-01T00:00:00+14:00",
    ],
)
def test_what_is_no_time_is_refused_with_a_reason(cell: object) -> None:
    """Nothing but ValueError comes out of a cell that holds no time, and it says something."""
    with pytest.raises(ValueError, match="time"):
        time_reader("auto", UTC)(cell)


@pytest.mark.parametrize(("unit", "us"), [("s", 1_000_000), ("ms", 1000), ("us", 1), ("ns", 0)])
def test_a_unit_that_is_given_overrules_the_magnitude(unit: str, us: int) -> None:
    """With --time-unit 1 is one of that unit."""
    assert time_reader(unit, UTC)("1") == us


def test_naive_times_are_of_the_zone() -> None:
    """In Berlin noon is 11:00 UTC in winter and 10:00 in summer; a time with its own zone stays."""
    read = time_reader("auto", zone_of("Europe/Berlin"))
    assert read("2024-01-31T13:00:00") == NOON
    assert read("2024-07-01 14:00") == SUMMER_NOON
    assert read("2024-01-31T12:00:00Z") == NOON
    assert read("1706702400") == NOON


def test_times_that_a_zone_has_twice_or_not_at_all() -> None:
    """02:30 is the first of two when clocks go back, and 03:30 when they go forward (PEP 495, fold=0)."""
    read = time_reader("auto", zone_of("Europe/Berlin"))
    assert read("2024-10-27T02:30:00") == read("2024-10-27T00:30:00Z")
    assert read("2024-03-31T02:30:00") == read("2024-03-31T03:30:00") == read("2024-03-31T01:30:00Z")


@pytest.mark.parametrize(
    ("name", "hint"), [("Europe/Berlln", "Europe/Berlin"), ("berlin", "Europe/Berlin"), ("", "IANA")]
)
def test_an_unknown_zone_names_near_ones(name: str, hint: str) -> None:
    """A mistyped time zone is an error with what may have been meant; a path is no zone."""
    with pytest.raises(SettingsError, match=hint):
        zone_of(name)
    with pytest.raises(SettingsError, match="no timezone"):
        zone_of("../../etc/passwd")
