"""One setting's value: from TOML, text or a number with a unit to the declared type, within its bounds.

    convert(int, "spool_bytes_max", "256MiB", "option --spool-bytes-max")       268435456
    convert(float, "stall_s", "1500ms", "...")                                  1.5

A number may carry a unit where the setting's name says what it counts: bytes (`_bytes` in the name) B, kB, MB, GB, TB,
KiB, MiB, GiB, TiB; times (`_s` or `_ms` at its end) ms, s, min, h, d.

**Delivery**: pure. **Bounds**: numbers are finite; a whole number has no fraction; text keeps to one line.
"""

from __future__ import annotations

import dataclasses
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from .errors import SettingsError, quoted

__all__ = ["checked", "convert", "units_of", "with_unit"]

_BYTES = {"B": 1} | {f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)}
_BYTES |= {f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)}
_SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "min": Fraction(60), "h": Fraction(3600), "d": Fraction(86_400)}
_NUMBER = re.compile(r"([+-]?[0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)\s*([A-Za-z]*)")
_DIGITS_MAX = 40


def units_of(name: str) -> dict[str, Fraction]:
    """The units that a value of the setting `name` may be written with, and what one is in the setting's own unit."""
    if name.endswith("_s"):
        return _SECONDS
    if name.endswith("_ms"):
        return {unit: factor * 1000 for unit, factor in _SECONDS.items()}
    return {unit: Fraction(factor) for unit, factor in _BYTES.items()} if "bytes" in name.split("_") else {}


def with_unit(name: str, value: Any) -> str:
    """A value as text; bytes with the largest binary unit that gives a whole number."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1024 and "KiB" in units_of(name):
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if value % _BYTES[unit] == 0:
                return f"{value // _BYTES[unit]}{unit}"
    return str(value)


def convert(kind: Any, name: str, raw: object, where: str) -> Any:
    """`raw` as a value of the type `kind`; SettingsError says `where` it stands, what it is and what to write."""
    if kind is bool:
        return _boolean(raw, where)
    if kind in (int, float):
        return _number(kind, name, raw, where)
    if not isinstance(raw, (str, Path)):
        raise SettingsError(f"{where} is {quoted(raw)}; use text in quotes")
    if "\0" in str(raw):
        raise SettingsError(f"{where} is {quoted(str(raw))}; a zero byte cannot be in it")
    if kind is Path:
        return Path(str(raw)).expanduser()
    return str(raw)


def _boolean(raw: object, where: str) -> bool:
    lowered = str(raw).lower()
    if isinstance(raw, bool) or lowered in ("true", "1", "yes", "on"):
        return bool(raw)
    if lowered in ("false", "0", "no", "off"):
        return False
    raise SettingsError(f"{where} is {quoted(raw)}; use true or false")


def _number(kind: type[int | float], name: str, raw: object, where: str) -> int | float:
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise SettingsError(f"{where} is {quoted(raw)}; use a number")
    units = units_of(name)
    exact = _fraction(raw, units)
    article = "a whole number" if kind is int else "a number"
    if exact is None:
        example = ", or one with a unit (" + ", ".join(units) + ")" if units else ""
        raise SettingsError(f"{where} is {quoted(raw)}; use {article}{example}")
    if kind is float:
        return float(exact)
    if exact.denominator != 1:
        raise SettingsError(f"{where} is {quoted(raw)}; use {article}")
    return int(exact)


def _fraction(raw: float | str, units: dict[str, Fraction]) -> Fraction | None:
    """The number exactly, in the setting's own unit; None when it is none."""
    if not isinstance(raw, str):
        return Fraction(raw) if math.isfinite(raw) and abs(raw) < 10**_DIGITS_MAX else None
    found = _NUMBER.fullmatch(raw.strip())
    if found is None or len(found.group(1)) > _DIGITS_MAX:
        return None
    number = Fraction(found.group(1).replace("_", ""))
    unit = found.group(2)
    if unit and unit not in units:
        return None
    return number * units[unit] if unit else number


def checked(value: Any, field: dataclasses.Field[Any], where: str) -> Any:
    """`value` when it is within what its declaration allows; SettingsError names what is allowed."""
    minimum, maximum, choices = (field.metadata.get(key) for key in ("minimum", "maximum", "choices"))
    if minimum is not None and value < minimum:
        raise SettingsError(f"{where} is {value}; the least allowed is {minimum}")
    if maximum is not None and value > maximum:
        raise SettingsError(f"{where} is {value}; the most allowed is {maximum}")
    if choices and value not in choices:
        raise SettingsError(f"{where} is {quoted(value)}; use one of {', '.join(choices)}")
    return value
