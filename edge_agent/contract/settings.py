"""Settings, declared once: a frozen dataclass whose fields carry help, bounds and unit.

From that one declaration come the loader, the environment variables, the command-line options, the
sample file and the docs page. Later wins: default < file (TOML) < environment < command line.
A name that is not declared is an error that names the nearest declared one.

    @dataclass(frozen=True, kw_only=True)
    class BridgeSettings:
        mqtt_url: str = setting("mqtt://127.0.0.1:1883", help="broker to subscribe at")
        in_flight_max: int = setting(512, help="appends under way at once", minimum=1, maximum=5000)

    load(BridgeSettings, "bridge", file=Path("edgewater.toml"), flags={"in_flight_max": "100"})

The environment variable of a field is `EDGEWATER_<SECTION>__<FIELD>`, for instance EDGEWATER_BRIDGE__IN_FLIGHT_MAX.

**Delivery**: read once at start; changing a file changes nothing until the process starts again.
**Bounds**: files of at most 1 MiB; each number has its minimum and maximum here.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from .errors import SettingsError, quoted

__all__ = ["add_options", "declared", "flags_from", "load", "sample", "setting"]

_FILE_BYTES_MAX = 1 << 20
T = TypeVar("T")


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


def _convert(kind: Any, text: object, where: str) -> Any:
    """A value from TOML (typed) or from text (environment, command line) as the declared type."""
    if kind is bool:
        if isinstance(text, bool):
            return text
        lowered = str(text).lower()
        if lowered in ("true", "1", "yes", "on"):
            return True
        if lowered in ("false", "0", "no", "off"):
            return False
        raise SettingsError(f"{where} is {quoted(text)}; use true or false")
    if kind in (int, float):
        if isinstance(text, bool) or not isinstance(text, (int, float, str)):
            raise SettingsError(f"{where} is {quoted(text)}; use a number")
        try:
            return kind(text.replace("_", "")) if isinstance(text, str) else kind(text)
        except ValueError:
            raise SettingsError(f"{where} is {quoted(text)}; use {'a whole' if kind is int else 'a'} number") from None
    if kind is Path:
        return Path(str(text)).expanduser()
    if not isinstance(text, str):
        raise SettingsError(f"{where} is {quoted(text)}; use text in quotes")
    return text


def _checked(value: Any, field: dataclasses.Field[Any], where: str) -> Any:
    minimum, maximum, choices = (field.metadata.get(key) for key in ("minimum", "maximum", "choices"))
    if minimum is not None and value < minimum:
        raise SettingsError(f"{where} is {value}; the least allowed is {minimum}")
    if maximum is not None and value > maximum:
        raise SettingsError(f"{where} is {value}; the most allowed is {maximum}")
    if choices and value not in choices:
        raise SettingsError(f"{where} is {quoted(value)}; use one of {', '.join(choices)}")
    return value


def _unknown(name: str, known: list[str], where: str) -> SettingsError:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return SettingsError(f"{where}: there is no setting {quoted(name)}; {hint}")


def load(
    cls: type[T],
    section: str,
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> T:
    """Settings of `cls` from default < `file` < environment < `flags` (None in flags means: not given).

    Raises SettingsError with the place (file and section, variable or option) of the first wrong one.
    """
    fields = declared(cls)
    values: dict[str, Any] = {}

    def take(name: str, raw: object, where: str) -> None:
        kind, field = fields[name]
        values[name] = _checked(_convert(kind, raw, where), field, where)

    if file is not None:
        for name, raw in _read_section(file, section).items():
            if name not in fields:
                raise _unknown(name, list(fields), f"{file} [{section}]")
            take(name, raw, f"{file} [{section}] {name}")
    prefix = f"EDGEWATER_{section.upper()}__"
    for variable, raw_text in (os.environ if environment is None else environment).items():
        if variable.startswith(prefix):
            name = variable[len(prefix) :].lower()
            if name not in fields:
                raise _unknown(name, list(fields), f"environment variable {variable}")
            take(name, raw_text, f"environment variable {variable}")
    for name, raw in (flags or {}).items():
        if raw is not None:
            take(name, raw, f"option --{name.replace('_', '-')}")
    return cls(**values)


def _read_section(file: Path, section: str) -> dict[str, Any]:
    try:
        size = file.stat().st_size
    except FileNotFoundError:
        raise SettingsError(f"settings file {file} does not exist; check the path") from None
    if size > _FILE_BYTES_MAX:
        raise SettingsError(
            f"settings file {file} has {size} bytes, more than {_FILE_BYTES_MAX}; is it the right file?"
        )
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {file} is not TOML: {error}") from None
    found = document.get(section, {})
    if not isinstance(found, dict):
        raise SettingsError(f"{file}: {section} is {quoted(found)}; write a table [{section}]")
    return found


def add_options(parser: argparse.ArgumentParser, cls: type[Any]) -> None:
    """Add one `--field-name` option for each declared setting; unset options stay None."""
    for name, (kind, field) in declared(cls).items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            default=None,
            metavar=getattr(kind, "__name__", "value").upper(),
            help=f"{field.metadata['help']} (default: {field.default})".replace("%", "%%"),
        )


def flags_from(arguments: argparse.Namespace, cls: type[Any]) -> dict[str, object]:
    """The options that `add_options` added, as `load(flags=...)` takes them."""
    return {name: getattr(arguments, name) for name in declared(cls)}


def sample(cls: type[Any], section: str) -> str:
    """A commented TOML section with every setting at its default."""
    lines = [f"[{section}]"]
    for name, (_, field) in declared(cls).items():
        default = field.default
        shown = str(default).lower() if isinstance(default, bool) else default
        if isinstance(default, (str, Path)):
            shown = '"' + str(default).replace("\\", "\\\\").replace('"', '\\"') + '"'
        lines += [f"# {field.metadata['help']}", f"# {name} = {shown}"]
    return "\n".join(lines) + "\n"
