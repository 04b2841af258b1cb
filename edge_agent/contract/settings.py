"""Settings, declared once: a frozen dataclass whose fields carry help, bounds and unit.

From that one declaration come the loader, the environment variables, the command-line options, the
sample file and the docs page. Later wins: default < file (TOML) < environment < command line.
A name or section that is not declared is an error that names its place (file:line) and the nearest declared one.

    @dataclass(frozen=True, kw_only=True)
    class BridgeSettings:
        mqtt_url: str = setting("mqtt://127.0.0.1:1883", help="broker to subscribe at")
        in_flight_max: int = setting(512, help="appends under way at once", minimum=1, maximum=5000)

    load(BridgeSettings, "bridge", file=Path("edgewater.toml"), flags={"in_flight_max": "100"})

The environment variable of a field is `EDGEWATER_<SECTION>__<FIELD>`, for instance EDGEWATER_BRIDGE__IN_FLIGHT_MAX.

Numbers may carry a unit where the field's name says what it counts (`setting_values.py`): "256MiB", "10s".

**Delivery**: read once at start; changing a file changes nothing until the process starts again.
**Bounds**: files of at most 1 MiB; each number has its minimum and maximum here.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .errors import SettingsError, quoted
from .sections import nearest, unknown_section
from .setting_values import checked, convert, with_unit
from .toml_file import TomlFile

__all__ = ["add_options", "declared", "flags_from", "load", "sample", "setting", "shown_default", "value_name"]

T = TypeVar("T")
_VARIABLE = re.compile(r"EDGEWATER_([A-Za-z0-9_]+?)__([A-Za-z0-9_]+)")


def setting(
    default: Any,
    *,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """One field of a settings dataclass: its default, what it means, and what it may be."""
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata)


def declared(cls: type[Any]) -> dict[str, tuple[type[Any], dataclasses.Field[Any]]]:
    """Field name -> (its type, its dataclass field), in order of declaration."""
    hints = typing.get_type_hints(cls)
    return {field.name: (hints[field.name], field) for field in dataclasses.fields(cls)}


def load(
    cls: type[T],
    section: str,
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> T:
    """Settings of `cls` from default < `file` < environment < `flags` (None in flags means: not given).

    Raises SettingsError with the place (file:line and section, variable or option) of the first wrong one.
    """
    fields = declared(cls)
    values: dict[str, Any] = {}

    def take(name: str, raw: object, where: str) -> None:
        kind, field = fields[name]
        values[name] = checked(convert(kind, name, raw, where), field, where)

    if file is not None:
        document = TomlFile.read(file)
        for name, raw in _section(document, section, fields).items():
            if name not in fields:
                raise _unknown(name, fields, f"{document.place(section, name)} [{section}]")
            try:
                take(name, raw, f"[{section}] {name}")
            except SettingsError as error:
                raise SettingsError(f"{document.place(section, name)} {error}") from None
    for variable, raw_text in (os.environ if environment is None else environment).items():
        set_here = _variable_field(variable, section, fields)
        if set_here is not None:
            take(set_here, raw_text, f"environment variable {variable}")
    for name, raw in (flags or {}).items():
        if raw is not None:
            take(name, raw, f"option --{name.replace('_', '-')}")
    return cls(**values)


def _unknown(name: str, fields: Mapping[str, object], where: str) -> SettingsError:
    return SettingsError(f"{where}: there is no setting {quoted(name)}; {nearest(name, fields)}")


def _section(document: TomlFile, section: str, fields: Mapping[str, object]) -> dict[str, Any]:
    """The table of `section`, empty when there is none; every table of the file has to be one that exists."""
    for name, value in document.tables.items():
        hint = unknown_section(name, section)
        if hint is not None:
            what = "section" if isinstance(value, (dict, list)) else "setting outside of sections"
            if name in fields:
                hint = f"write it below [{section}]"
            raise SettingsError(f"{document.place(name)}: there is no {what} {quoted(name)}; {hint}")
    found = document.tables.get(section, {})
    if not isinstance(found, dict):
        raise SettingsError(f"{document.place(section)}: {section} is {quoted(found)}; write a table [{section}]")
    return found


def _variable_field(variable: str, section: str, fields: Mapping[str, object]) -> str | None:
    """The field that an environment variable sets, None when it is not about this section."""
    where = f"environment variable {variable}"
    match = _VARIABLE.fullmatch(variable)
    if match is None:
        # One underscore where two belong.
        prefix = f"EDGEWATER_{section.upper()}_"
        name = variable[len(prefix) :].lower()
        if variable.startswith(prefix) and name in fields:
            raise SettingsError(f"{where} sets nothing; did you mean {prefix}_{name.upper()}?")
        return None
    found, name = match.group(1).lower(), match.group(2).lower()
    hint = unknown_section(found, section)
    if hint is not None:
        raise SettingsError(f"{where}: there is no section {quoted(found)}; {hint}")
    if found != section:
        return None
    if name not in fields:
        raise _unknown(name, fields, where)
    return name


def add_options(parser: argparse.ArgumentParser, cls: type[Any]) -> None:
    """Add one `--field-name` option for each declared setting; unset options stay None."""
    for name, (kind, field) in declared(cls).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=None,
            metavar=value_name(name, kind, field),
            help=f"{field.metadata['help']} (default: {shown_default(name, field.default)})".replace("%", "%%"),
        )


def value_name(name: str, kind: Any, field: dataclasses.Field[Any]) -> str:
    """What stands for the value in `--help`; completion reads it, too."""
    if field.metadata["choices"]:
        return "{" + ",".join(field.metadata["choices"]) + "}"
    if kind is bool:
        return "{true,false}"
    if name == "dir" or name.endswith("_dir"):
        return "DIR"
    return {int: "N", float: "N", Path: "PATH"}.get(kind, "TEXT")


def shown_default(name: str, default: Any) -> str:
    """A default as a person writes it."""
    if isinstance(default, bool):
        return str(default).lower()
    return "empty" if default == "" else with_unit(name, default)


def flags_from(arguments: argparse.Namespace, cls: type[Any]) -> dict[str, object]:
    """The options that `add_options` added, as `load(flags=...)` takes them."""
    return {name: getattr(arguments, name) for name in declared(cls)}


def sample(cls: type[Any], section: str) -> str:
    """A commented TOML section with every setting at its default."""
    lines = [f"[{section}]"]
    for name, (_, field) in declared(cls).items():
        default = field.default
        shown = with_unit(name, default)
        if isinstance(default, bool):
            shown = shown.lower()
        elif isinstance(default, (str, Path)) or not shown.replace(".", "").isdecimal():
            shown = '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
        lines += [f"# {field.metadata['help']}", f"# {name} = {shown}"]
    return "\n".join(lines) + "\n"
