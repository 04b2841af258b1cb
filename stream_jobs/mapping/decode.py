"""From one MQTT message to rows, or to the reason why it becomes none. Pure.

JSON is read exactly: whole numbers keep all their digits, a name twice in one object, NaN, Infinity and numbers beyond
float64 are refused. What is not JSON may be one of the mapping's `values` (`ON`), else it is refused. A message is
taken whole or refused whole; one in which nothing is mapped becomes no rows, which is not an error.

**Delivery**: any bytes give rows or a DecodeError, nothing else; the same message gives the same rows.
**Bounds**: the payload's size (an argument), DEPTH_MAX levels, READINGS_MAX readings and ITEMS_MAX objects a message,
NAME_BYTES_MAX of a reading's name, ITEM_BYTES_MAX of one item's values.
"""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from edge_agent.contract import limits
from edge_agent.contract.errors import DecodeError, RejectError, quoted
from edge_agent.contract.streams import READINGS

from .rules import ColumnRule, Mapping, Rule
from .times import time_us
from .topics import device_name

__all__ = ["Decoder", "Item"]

DEPTH_MAX = 16
READINGS_MAX = 1000
ITEMS_MAX = 1000
NAME_BYTES_MAX = 128
ITEM_BYTES_MAX = 256 * 1024
TOPICS_REMEMBERED = 10_000
_INT64_MAX = (1 << 63) - 1
_CELL_BYTES = 9
_READING_BYTES = 20

Value = float | int | str | bool | None


class Item(NamedTuple):
    """What one object (or plain value) of a message became: readings, or one row of the mapping's columns."""

    device: str
    time_us: int
    time_received: bool
    """The time is that of receipt: the payload has none, or one that cannot be read."""
    readings: dict[str, float]
    row: tuple[Value, ...]
    bytes: int
    """About what it takes in a batch."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise DecodeError(f"field {quoted(next(n for n in names if names.count(n) > 1))} is there twice")
    return found


def _constant(text: str) -> float:
    raise DecodeError(f"{text} is not a number that JSON knows")


_json = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _parse(payload: bytes, rule: Rule) -> Any:
    try:
        text = payload.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DecodeError(f"payload is not UTF-8 text (byte {error.start})") from None
    if not text:
        raise DecodeError("payload is empty")
    try:
        return _json.decode(text)
    except RecursionError:
        raise DecodeError(f"payload is nested deeper than {DEPTH_MAX} levels") from None
    except (ValueError, DecodeError) as error:
        if text in rule.values:
            return rule.values[text]
        if isinstance(error, DecodeError):
            raise
        where = f" ({error.msg} at character {error.pos})" if isinstance(error, json.JSONDecodeError) else ""
        known = ", ".join(list(rule.values)[:10]) or "it has none"
        raise DecodeError(f"payload is neither JSON{where} nor one of the mapping's values ({known})") from None


def _find(value: Any, path: str) -> Any:
    """The field at `a.b.0`, or None."""
    while path:
        if isinstance(value, dict):
            if path in value:
                return value[path]
            first, _, path = path.partition(".")
            value = value.get(first)
        elif isinstance(value, list):
            first, _, path = path.partition(".")
            value = value[int(first)] if first.isdecimal() and len(first) < 6 and int(first) < len(value) else None
        else:
            return None
    return value


def _number(value: bool | float, path: str) -> float:
    """The value as a reading; DecodeError where float64 cannot hold it exactly."""
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DecodeError(f"field {quoted(path)} is beyond what float64 can hold")
        return value
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if found != value:
        raise DecodeError(
            f"field {quoted(path)} is {quoted(value)}, which a reading (float64) cannot hold exactly; "
            "map it to an int64 or string column of a stream of its own"
        )
    return found


class _Readings:
    """Collects the readings of one item."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._ignore = {*rule.ignore, rule.time} - {""}
        self.found: dict[str, float] = {}
        self.bytes = 0

    def _add(self, path: str, value: float) -> None:
        name = self._rule.names.get(path, path)
        if name in self.found:
            raise DecodeError(f"two fields become the reading {quoted(name)}; rename one with `names`")
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise DecodeError(f"field {quoted(path)} has a name that is not UTF-8 text") from None
        if not 1 <= size <= NAME_BYTES_MAX:
            raise DecodeError(f"field {quoted(path)} has a name of {size} bytes; 1 to {NAME_BYTES_MAX} are allowed")
        if len(self.found) == READINGS_MAX:
            raise DecodeError(f"more than {READINGS_MAX} readings in one message; name those wanted in `fields`")
        self.found[name] = value
        self.bytes += _READING_BYTES + size

    def flatten(self, value: Any, path: str, depth: int = 0) -> None:
        """Every number and boolean in `value`, named by its path."""
        if path in self._ignore:
            return
        if isinstance(value, (bool, int, float)):
            self._add(path, _number(value, path))
        elif isinstance(value, str):
            if value in self._rule.values:
                self._add(path, self._rule.values[value])
        elif isinstance(value, (dict, list)):
            if depth == DEPTH_MAX:
                raise DecodeError(f"field {quoted(path)} is nested deeper than {DEPTH_MAX} levels")
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            prefix = f"{path}." if path else ""
            for name, item in inside:
                self.flatten(item, f"{prefix}{name}", depth + 1)

    def listed(self, value: Any, path: str) -> None:
        """A field that the mapping names: here text must be a number or one of `values`."""
        if not isinstance(value, str) or value in self._rule.values:
            self.flatten(value, path)
            return
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise DecodeError(f"field {quoted(path)} is {quoted(value)}; no number, and not among the mapping's values")
        self._add(path, number)


def _cell(column: ColumnRule, value: Any, rule: Rule) -> Value:
    if isinstance(value, str) and column.type in ("float64", "int64", "bool") and value in rule.values:
        value = rule.values[value]
        value = int(value) if value.is_integer() else value
    found: Value = None
    if column.type == "string":
        found = value if isinstance(value, str) else _as_json(value, column)
        if len(_utf8(found, column)) > limits.STRING_BYTES_MAX:
            raise DecodeError(f"column {column.name} gets more than {limits.STRING_BYTES_MAX} bytes of text")
    elif column.type == "timestamp":
        found = time_us(value, rule.timezone)
    elif column.type == "float64" and isinstance(value, (bool, int, float)):
        found = _number(value, column.path)
    elif column.type == "int64" and isinstance(value, (bool, int)) and -_INT64_MAX - 1 <= value <= _INT64_MAX:
        found = int(value)
    elif column.type == "bool" and isinstance(value, (bool, int)) and value in (0, 1):
        found = bool(value)
    if found is None:
        raise DecodeError(f"field {quoted(column.path)} is {quoted(value)}, which is no {column.type} for its column")
    return found


def _as_json(value: Any, column: ColumnRule) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        raise DecodeError(f"field {quoted(column.path)} cannot be written as JSON again") from None


def _utf8(text: str, column: ColumnRule) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise DecodeError(f"field {quoted(column.path)} has a lone surrogate, which is not UTF-8 text") from None


def _row(value: Any, rule: Rule) -> tuple[tuple[Value, ...], int]:
    cells: list[Value] = []
    size = 8
    for column in rule.columns:
        found = _find(value, column.path)
        cell = None if found is None else _cell(column, found, rule)
        cells.append(cell)
        size += _CELL_BYTES + (len(cell.encode()) if isinstance(cell, str) else 0)
    return tuple(cells), size


class _Route(NamedTuple):
    """What a topic says before its payload is looked at; "" where fields of the payload are needed."""

    rule: Rule
    device: str
    reading: str


def _no_fields(path: str) -> object:
    raise AssertionError(f"field {path} of a template without fields")


class Decoder:
    """Decodes the messages of one mapping; what it says of a topic is remembered, for TOPICS_REMEMBERED of them."""

    def __init__(self, mapping: Mapping, payload_bytes_max: int) -> None:
        self.mapping = mapping
        self._payload_bytes_max = payload_bytes_max
        self._routes: dict[str, _Route | None] = {}

    def decode(self, topic: str, payload: bytes, received_us: int) -> list[Item]:
        """The items of one message, none where nothing in it is mapped; DecodeError with the reason where it cannot
        be read. `received_us` is the time of receipt, microseconds since 1970 UTC."""
        try:
            route = self._route(topic)
            if route is None:
                return []
            if len(payload) > self._payload_bytes_max:
                raise DecodeError(f"payload of {len(payload)} bytes; payload_bytes_max is {self._payload_bytes_max}")
            value = _parse(payload, route.rule)
            if not (isinstance(value, list) and value and all(isinstance(one, dict) for one in value)):
                item = self._item(route, topic, value, received_us)
                return [] if item is None else [item]
            if len(value) > ITEMS_MAX:
                raise DecodeError(f"array of {len(value)} objects; at most {ITEMS_MAX} are taken")
            found = [item for one in value if (item := self._item(route, topic, one, received_us)) is not None]
        except DecodeError:
            raise
        except RejectError as error:
            raise DecodeError(str(error)) from None
        if sum(len(item.readings) for item in found) > READINGS_MAX:
            raise DecodeError(f"more than {READINGS_MAX} readings in one message; name those wanted in `fields`")
        return found

    def _route(self, topic: str) -> _Route | None:
        found = self._routes.get(topic, ...)
        if found is not ...:
            return found
        rule = self.mapping.rule_for(topic)
        route = None
        if rule is not None:
            device = "" if rule.device.fields else device_name(rule.device.fill(topic, _no_fields))
            route = _Route(rule, device, "" if rule.reading.fields else rule.reading.fill(topic, _no_fields))
        if len(self._routes) >= TOPICS_REMEMBERED:
            self._routes.clear()
        self._routes[topic] = route
        return route

    def _item(self, route: _Route, topic: str, value: Any, received_us: int) -> Item | None:
        """What one object or plain value becomes; None: nothing in it is mapped."""
        rule = route.rule

        def field(path: str) -> object:
            return _find(value, path)

        device = route.device or device_name(rule.device.fill(topic, field))
        inside = isinstance(value, (dict, list))
        measured_us = time_us(_find(value, rule.time), rule.timezone) if rule.time and inside else None
        at_us = received_us if measured_us is None else measured_us
        if self.mapping.stream != READINGS:
            row, size = _row(value if isinstance(value, dict) else {"value": value}, rule)
            if size > ITEM_BYTES_MAX:
                raise DecodeError(f"row of {size} bytes, more than {ITEM_BYTES_MAX}; map fewer fields")
            if all(cell is None for cell in row):
                return None
            return Item(device, at_us, measured_us is None, {}, row, size)
        collected = _Readings(rule)
        if not isinstance(value, dict):
            reading = route.reading or rule.reading.fill(topic, field)
            if inside:
                collected.flatten(value, reading)
            elif value is not None:
                collected.listed(value, reading)
        elif rule.fields:
            for path in rule.fields:
                collected.listed(_find(value, path), path)
        else:
            collected.flatten(value, "")
        if not collected.found:
            return None
        return Item(device, at_us, measured_us is None, collected.found, (), collected.bytes)
