"""Times as files have them, as microseconds since 1970 UTC.

    2024-01-31T12:00:00+01:00, ...Z     ISO 8601 with its zone
    2024-01-31 12:00:00.250, 2024-01-31 ISO 8601 without: of the time zone given, UTC by default
    1706698800, 1706698800.25           a number: since 1970 UTC, in the unit given; without one by its magnitude:
                                        below 1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds, else
                                        nanoseconds (so each unit reaches from 1973 beyond the year 5000)

A time that a zone has twice, when its clocks go back, is the first of the two; one that it does not have, when they go
forward, counts by the offset before the change (02:30 becomes 03:30): PEP 495 with fold=0.

**Delivery**: pure. What is finer than a microsecond is cut off. **Bounds**: the years 1 to 9999; ValueError otherwise.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from edge_agent.contract.errors import SettingsError, quoted

__all__ = ["TIME_UNITS", "TimeReader", "time_reader", "zone_of"]

TIME_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0}
"""Unit -> microseconds; a nanosecond is 1/1000."""
TIME_CHARACTERS_MAX = 64
_NUMBER_MAX = 1 << 100
"""Beyond any time in nanoseconds, and still an exact float. NaN is not below it either."""
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - subtracted from naive times, which are UTC here
_EPOCH_AWARE = _EPOCH.replace(tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MIN_US, _MAX_US = -62_135_596_800_000_000, 253_402_300_799_999_999

TimeReader = Callable[[object], int]
"""A cell -> microseconds since 1970 UTC; ValueError says what is wrong with it."""


def zone_of(name: str) -> tzinfo:
    """The time zone of the IANA name; SettingsError names those that are spelled alike."""
    import zoneinfo

    if name.upper() == "UTC":
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        known = {zone.lower(): zone for zone in zoneinfo.available_timezones()}
    if not known:
        raise SettingsError(
            f"timezone {quoted(name)}: this machine has no time zones; install tzdata (apt-get install tzdata)"
        )
    # `Berlin` is meant as often as `Europe/Berlln`.
    ends = sorted(zone for lowered, zone in known.items() if lowered.rpartition("/")[2] == name.lower())
    near = [known[found] for found in difflib.get_close_matches(name.lower(), known, n=3)]
    hint = " or ".join((ends or near)[:3])
    raise SettingsError(
        f"there is no timezone {quoted(name)}; "
        + (f"did you mean {hint}?" if hint else "write an IANA name as Europe/Berlin, or UTC")
    )


def time_reader(unit: str, zone: tzinfo) -> TimeReader:
    """How cells become times. `unit` is `auto` or one of TIME_UNITS; naive times are of `zone`."""
    naive_is_utc = zone is UTC

    def of_datetime(found: datetime) -> int:
        if found.tzinfo is not None:
            return (found - _EPOCH_AWARE) // _MICROSECOND
        if naive_is_utc:
            return (found - _EPOCH) // _MICROSECOND
        return (found.replace(tzinfo=zone, fold=0) - _EPOCH_AWARE) // _MICROSECOND

    def read(cell: object) -> int:
        if isinstance(cell, str):
            return _in_range(_of_text(cell, unit, of_datetime), cell)
        if isinstance(cell, (int, float)) and not isinstance(cell, bool):
            return _in_range(_of_number(cell, unit), cell)
        if isinstance(cell, datetime):
            return _in_range(of_datetime(cell), cell)
        if isinstance(cell, date):
            return of_datetime(datetime.combine(cell, time()))
        if cell is None:
            raise ValueError("the time is missing")
        raise ValueError(f"time {quoted(cell)} is neither text nor a number")

    return read


def _in_range(us: int, cell: object) -> int:
    if not _MIN_US <= us <= _MAX_US:
        raise ValueError(f"time {quoted(cell)} is outside the years 1 to 9999")
    return us


def _of_text(cell: str, unit: str, of_datetime: Callable[[datetime], int]) -> int:
    text = cell.strip()
    if not text:
        raise ValueError("the time is empty")
    if len(text) > TIME_CHARACTERS_MAX:
        raise ValueError(f"time {quoted(cell)} has more than {TIME_CHARACTERS_MAX} characters")
    # Digits alone are a number, also where ISO 8601 would see a date in them.
    if text.removeprefix("-").isdecimal():
        return _of_number(int(text), unit)
    try:
        return of_datetime(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        pass
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"time {quoted(cell)} is neither ISO 8601 nor a number") from None
    if "_" in text:
        raise ValueError(f"time {quoted(cell)} is neither ISO 8601 nor a number")
    return _of_number(number, unit)


def unit_of(number: float) -> str:
    """The unit of a time given as a number, by its magnitude."""
    size = abs(number)
    return "s" if size < 1e11 else "ms" if size < 1e14 else "us" if size < 1e17 else "ns"


def _of_number(number: float, unit: str) -> int:
    if not abs(number) < _NUMBER_MAX:
        raise ValueError(f"time {quoted(number)} is not finite, or outside the years 1 to 9999")
    if unit == "auto":
        unit = unit_of(number)
    if unit == "ns":
        return int(number // 1000)
    return round(number * TIME_UNITS[unit])
