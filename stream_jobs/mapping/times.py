"""When something was measured, as foreign devices write it: ISO 8601, or seconds, ms, us or ns since 1970.

**Delivery**: pure. **Bounds**: times from 2000 to 2100; anything else (a clock that was not set yet says 1970) is no
time, and the row gets the time of receipt.
"""

from __future__ import annotations

import datetime as dt
from functools import lru_cache
from zoneinfo import ZoneInfo

__all__ = ["time_us"]

_FROM_US = 946_684_800_000_000
_UNTIL_US = 4_102_444_800_000_000
_TEXT_CHARACTERS_MAX = 64
_UNITS = ((100_000_000_000, 1_000_000, 1), (100_000_000_000_000, 1000, 1), (100_000_000_000_000_000, 1, 1))
"""(below this number, times, divided by): the magnitude tells seconds, ms and us apart from 1973 to 5138."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def _of_number(value: float) -> int | None:
    if not 0 < value < 10**20:
        return None
    for below, factor, divisor in _UNITS:
        if value < below:
            return round(value * factor) // divisor
    return int(value) // 1000


@lru_cache(maxsize=64)
def _zone(name: str) -> dt.tzinfo:
    return dt.UTC if name == "UTC" else ZoneInfo(name)


def _of_text(text: str, timezone: str) -> int | None:
    text = text.strip()
    if len(text) > _TEXT_CHARACTERS_MAX:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        try:
            return _of_number(float(text))
        except ValueError:
            return None
    if found.tzinfo is None:
        found = found.replace(tzinfo=_zone(timezone))
    try:
        return (found - _EPOCH) // _MICROSECOND
    except OverflowError:
        return None


def time_us(value: object, timezone: str) -> int | None:
    """Microseconds since 1970 UTC, or None for what is no time. Text without zone is in `timezone`."""
    found = None
    if isinstance(value, str):
        # Eight digits would be read as a date without separators: a number is meant.
        found = _of_number(float(value)) if value.isascii() and value.isdigit() else _of_text(value, timezone)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        found = _of_number(value)
    return found if found is not None and _FROM_US <= found < _UNTIL_US else None
