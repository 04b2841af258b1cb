"""The `[[mappings]]` tables of a settings file, read and checked.

    [[mappings]]
    name = "boilers"
    topic = "plant/+/state"
    device = "{1}"
    time = "at"
    values = { running = 1, stopped = 0 }

Each key is declared once, below, with its type and what it means; `edgewater mapping presets` prints them.

**Delivery**: read once at start. **Bounds**: MAPPINGS_MAX mappings, ENTRIES_MAX entries of each list or table.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import zoneinfo
from collections.abc import Mapping as Map
from pathlib import Path
from typing import Any, NoReturn

from edge_agent.contract.errors import RejectError, SettingsError, quoted
from edge_agent.contract.limits import BATCH_COLUMNS_MAX, COLUMN_NAME_CHARACTERS_MAX
from edge_agent.contract.names import check_stream
from edge_agent.contract.streams import READINGS

from .presets import PRESETS
from .rules import ColumnRule, Mapping, Rule
from .topics import Template, pattern

__all__ = ["COLUMN_TYPES", "KEYS", "load_mappings", "read_mappings"]

MAPPINGS_MAX = 64
ENTRIES_MAX = 1000
_FILE_BYTES_MAX = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_-]{1,48}\Z")
_HEADER = re.compile(r"^\s*\[\[\s*mappings\s*\]\]")

PROVENANCE = ("device", "epoch", "seq", "row", "function", "function_version", "received_at", "trace")
"""Columns that every table has by itself, as `arrow_columns.py` says; that module is not loaded for a check."""
COLUMN_TYPES = ("string", "float64", "int64", "bool", "timestamp")

KEYS: Map[str, tuple[str, str]] = {
    "name": ("text", "name of the mapping; its MQTT session and the rows' function are called after it"),
    "topic": ("text", "MQTT filter to subscribe to, such as plant/+/state"),
    "preset": ("text", f"a ready mapping: {', '.join(PRESETS)}"),
    "device": ("text", "the device: {1} is level 1 of the topic from 0, {1:} several levels, {field:a.b} a field"),
    "stream": ("text", "stream of the rows (default: readings)"),
    "time": ("text", "field with the time: ISO 8601, or seconds, ms, us or ns since 1970 (default: time of receipt)"),
    "timezone": ("text", "zone of times that name none, such as Europe/Vienna (default: UTC)"),
    "reading": ("text", "name of a plain value's reading (default: {-1}, the topic's last level)"),
    "fields": ("list", "fields that become readings (default: every number and boolean)"),
    "ignore": ("list", "fields left out, with all below them"),
    "ignore_topics": ("list", "topics passed over; # in front stands for any levels, as in #/set"),
    "names": ("table", "field = name of its reading"),
    "values": ("table", "text = the number it stands for, such as ON = 1"),
    "columns": ("table", 'column = type, or { type = "int64", field = "a.b" }; for streams other than readings'),
}
"""Key -> (its kind in TOML, what it means)."""


class _Place:
    """Where a table and its keys are, found by reading lines: the TOML reader does not say."""

    def __init__(self, file: Path, text: str, number: int) -> None:
        self._file = file
        lines = text.splitlines()
        headers = [line for line, content in enumerate(lines, 1) if _HEADER.match(content)]
        self.line = headers[number] if number < len(headers) else 1
        until = headers[number + 1] - 1 if number + 1 < len(headers) else len(lines)
        self._lines = list(enumerate(lines, 1))[self.line : until]

    def at(self, key: str = "", entry: str = "") -> str:
        """`file:line` of the key, of an entry in its table, or of the table's header."""
        found = self.line
        for name in (key, entry):
            search = re.compile(rf"^\s*(?:\[mappings\.)?[\"']?{re.escape(name)}[\"']?(?:\s*[=.\]])") if name else None
            found = next((line for line, text in self._lines if search and search.match(text)), found)
        return f"{self._file}:{found}"

    def wrong(self, text: str, key: str = "", entry: str = "") -> NoReturn:
        """Raise SettingsError with the place."""
        raise SettingsError(f"{self.at(key, entry)}: {text}")


def load_mappings(file: Path) -> tuple[Mapping, ...]:
    """The mappings in a TOML file; SettingsError with file, line and the next step for the first that is wrong."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise SettingsError(f"settings file {file} does not exist; check the path") from None
    except OSError as error:
        raise SettingsError(f"settings file {file} cannot be read: {error.strerror}") from None
    if len(data) > _FILE_BYTES_MAX:
        raise SettingsError(
            f"settings file {file} has {len(data)} bytes, more than {_FILE_BYTES_MAX}; is it the right file?"
        )
    try:
        return read_mappings(file, data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise SettingsError(f"settings file {file} is not UTF-8 text: {error}") from None


def read_mappings(file: Path, text: str) -> tuple[Mapping, ...]:
    """As `load_mappings`, of a text; `file` is named in errors."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"settings file {file} is not TOML: {error}") from None
    tables = document.get("mappings", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"{file}: mappings is {quoted(tables)}; write one [[mappings]] table for each")
    if not tables:
        near = difflib.get_close_matches("mappings", document, n=1)
        hint = f"; did you mean [[mappings]] by [[{near[0]}]]?" if near else "; add one, see docs/foreign-devices.md"
        raise SettingsError(f"{file} has no [[mappings]] table{hint}")
    if len(tables) > MAPPINGS_MAX:
        raise SettingsError(f"{file} has {len(tables)} mappings; at most {MAPPINGS_MAX} run in one process")
    found: dict[str, Mapping] = {}
    for number, table in enumerate(tables):
        place = _Place(file, text, number)
        mapping = _mapping(table, place)
        if mapping.name in found:
            place.wrong(f"the name {mapping.name} is taken by the mapping at {found[mapping.name].place}", "name")
        found[mapping.name] = mapping
    return tuple(found.values())


def _mapping(table: dict[str, Any], place: _Place) -> Mapping:
    _check_keys(table, place)
    name = table.get("name")
    if name is None:
        place.wrong('this mapping has no name; write name = "..."')
    if _NAME.match(name) is None:
        place.wrong(f"name is {quoted(name)}; use 1 to 48 letters, digits, '_', '-'", "name")
    preset = PRESETS.get(table["preset"]) if "preset" in table else None
    if "preset" in table and preset is None:
        place.wrong(_unknown("preset", table["preset"], list(PRESETS)), "preset")
    topic = table.get("topic") or (preset.topic if preset else "")
    if not topic:
        place.wrong('this mapping has no topic; write topic = "..." (an MQTT filter) or preset = "..."')
    _checked(place, "topic", _subscribable, topic)
    if preset is None and "device" not in table:
        place.wrong('this mapping has no device; write device = "{1}" for level 1 of the topic, counted from 0')
    stream = _checked(place, "stream", check_stream, table.get("stream", READINGS))
    columns = _columns(table, stream, place)
    ignored = tuple(table.get("ignore_topics", ()))
    for text in ignored:
        _checked(place, "ignore_topics", pattern, text)
    device = table.get("device", "")
    if preset is None:
        rules: tuple[Rule, ...] = (Rule(topic="#", device=_checked(place, "device", Template, device)),)
    else:
        rules = _checked(place, "device", preset.rules, device)
    rules = tuple(_overlaid(rule, table, columns, place) for rule in rules)
    return Mapping(
        name=name,
        topic=topic,
        stream=stream,
        preset=table.get("preset", ""),
        ignore_topics=(*(preset.ignore_topics if preset else ()), *ignored),
        rules=rules,
        place=place.at(),
    )


def _unknown(what: str, name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return f"there is no {what} {quoted(name)}; {hint}"


_KINDS: Map[str, tuple[type[Any], str]] = {
    "text": (str, 'text in quotes, as in key = "..."'),
    "list": (list, 'a list of texts, as in ["a", "b"]'),
    "table": (dict, "a table, as in { a = 1 }"),
}


def _check_keys(table: dict[str, Any], place: _Place) -> None:
    for key, value in table.items():
        if key not in KEYS:
            place.wrong(_unknown("key", key, list(KEYS)), key)
        kind, words = _KINDS[KEYS[key][0]]
        if not isinstance(value, kind) or (isinstance(value, list) and not all(isinstance(one, str) for one in value)):
            place.wrong(f"{key} is {quoted(value)}; write {words}", key)
        if isinstance(value, (list, dict)) and len(value) > ENTRIES_MAX:
            place.wrong(f"{key} has {len(value)} entries; at most {ENTRIES_MAX} are allowed", key)


def _checked(place: _Place, key: str, check: Any, value: Any) -> Any:
    try:
        return check(value)
    except RejectError as error:
        place.wrong(str(error), key)


def _subscribable(topic: str) -> str:
    pattern(topic)
    if "#" in topic[:-1] or "\0" in topic:
        raise RejectError(f"topic {quoted(topic)}: an MQTT broker takes # only as the last level")
    return topic


def _columns(table: dict[str, Any], stream: str, place: _Place) -> tuple[ColumnRule, ...]:
    columns = table.get("columns", {})
    if stream == READINGS and columns:
        place.wrong(f"columns belong to a stream of your own; write stream = ... (it is {READINGS})", "columns")
    if stream != READINGS and not columns:
        place.wrong(f'stream {stream} needs columns, as in columns = {{ action = "string" }}', "stream")
    for key in ("fields", "names", "reading"):
        if columns and key in table:
            place.wrong(f"{key} is for readings; stream {stream} has columns", key)
    if len(columns) >= BATCH_COLUMNS_MAX:
        place.wrong(f"{len(columns)} columns; at most {BATCH_COLUMNS_MAX - 1} are allowed", "columns")
    return tuple(_column(name, declared, place) for name, declared in columns.items())


def _column(name: str, declared: Any, place: _Place) -> ColumnRule:
    if name == "ts":
        place.wrong("column ts is there by itself; its value is the mapping's `time`", "columns", name)
    if name in PROVENANCE:
        place.wrong(f"column {name} is there by itself, as in every table; give it another name", "columns", name)
    if not 1 <= len(name) <= COLUMN_NAME_CHARACTERS_MAX:
        place.wrong(f"column name {quoted(name)}: use 1 to {COLUMN_NAME_CHARACTERS_MAX} characters", "columns", name)
    if isinstance(declared, str):
        declared = {"type": declared}
    if not isinstance(declared, dict) or set(declared) - {"type", "field"} or "type" not in declared:
        place.wrong(f'column {name} is {quoted(declared)}; write {name} = "int64"', "columns", name)
    if declared["type"] not in COLUMN_TYPES:
        place.wrong(_unknown("type", str(declared["type"]), list(COLUMN_TYPES)), "columns", name)
    path = declared.get("field", name)
    if not isinstance(path, str) or not path:
        place.wrong(f'column {name}: field is {quoted(path)}; write field = "a.b"', "columns", name)
    return ColumnRule(name, declared["type"], path)


def _overlaid(rule: Rule, table: dict[str, Any], columns: tuple[ColumnRule, ...], place: _Place) -> Rule:
    """The rule with what the user's table says of it; lists and tables add to a preset's own."""
    changes: dict[str, Any] = {"columns": columns}
    if "time" in table and (rule.time or not table.get("preset")):
        changes["time"] = table["time"]
    if "timezone" in table:
        changes["timezone"] = _zone(table["timezone"], place)
    if "reading" in table:
        changes["reading"] = _checked(place, "reading", Template, table["reading"])
    changes["fields"] = (*rule.fields, *table.get("fields", ()))
    changes["ignore"] = (*rule.ignore, *table.get("ignore", ()))
    names = table.get("names", {})
    for field, name in names.items():
        if not isinstance(name, str) or not name:
            place.wrong(f'names: {field} is {quoted(name)}; write {field} = "name"', "names", field)
    changes["names"] = {**rule.names, **names}
    values: dict[str, float] = {}
    for text, number in table.get("values", {}).items():
        if not isinstance(number, (int, float)) or not -1e300 < number < 1e300:
            place.wrong(f"values: {text} is {quoted(number)}; write a number, as in {text} = 1", "values", text)
        values[text] = float(number)
    changes["values"] = {**rule.values, **values}
    return dataclasses.replace(rule, **changes)


def _zone(name: str, place: _Place) -> str:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        hint = f"did you mean {near[0]}?" if near else "use one such as Europe/Vienna or UTC"
        place.wrong(f"there is no timezone {quoted(name)}; {hint}", "timezone")
    return name
