"""A TOML file read with its places: which line a key stands in, for errors that a person can go to.

    document = TomlFile.read(Path("edgewater.toml"))
    document.tables["agent"]["device"]
    document.place("agent", "device")           # edgewater.toml:7

The parser of the standard library knows no places. So a line that may hold the key is found as text, and is taken
when the file up to there holds the key for the parser, too: text in a multi-line string is not mistaken for it.

**Delivery**: read once. **Bounds**: files of at most 1 MiB; a place is looked for in at most 200 lines that name the
key (after that, and where it cannot be told, the place is the file).
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import SettingsError

__all__ = ["TomlFile"]

FILE_BYTES_MAX = 1 << 20
_CANDIDATES_MAX = 200
_VALUE_LINES_MAX = 200
_AT_LINE = re.compile(r" \(at line (\d+), column (\d+)\)$")


@dataclass(frozen=True, slots=True)
class TomlFile:
    """What `path` holds."""

    path: Path
    text: str
    tables: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> TomlFile:
        """Read the file; SettingsError names the file, the line where there is one, and what to do."""
        raw = _read(path)
        try:
            # A byte order mark is what some editors of Windows begin with.
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            raise SettingsError(f"{path}:{line}: this is not UTF-8; save the file with that encoding") from None
        try:
            return cls(path, text, tomllib.loads(text))
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise SettingsError(_not_toml(path, text, error)) from None

    def place(self, *keys: str | int) -> str:
        """`file:line` of the key at this path (numbers count tables of an array); the file when that cannot be told."""
        line = _line(self.text, keys)
        return str(self.path) if line is None else f"{self.path}:{line}"


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise SettingsError(
                f"settings file {path} has {size} bytes, more than {FILE_BYTES_MAX}; is it the right file?"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise SettingsError(f"settings file {path} does not exist; check the path") from None
    except IsADirectoryError:
        raise SettingsError(f"settings file {path} is a directory; give the file in it") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsError(f"settings file {path} cannot be read: {reason}; check its owner and rights") from None


def _not_toml(path: Path, text: str, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return f"{path}: this is nested too deeply; is it the right file?"
    found = _AT_LINE.search(str(error))
    # What the parser misses at the end of the document is missing in its last line.
    number = int(found.group(1)) if found else max(1, len(text.splitlines()))
    what = _AT_LINE.sub("", str(error)).removesuffix(" (at end of document)")
    hint = "write name = value, text in quotes"
    if what.startswith("Cannot"):
        hint = "a name may stand once in a section, and a section once in a file"
    return f"{path}:{number}: this is not TOML: {what}; {hint}"


def _line(text: str, keys: tuple[str | int, ...]) -> int | None:
    names = [key for key in keys if isinstance(key, str)]
    if not names:
        return None
    key = re.escape(names[-1])
    pattern = re.compile(rf"""(?:^|[\s.{{,\["'])(?:{key})["']?\s*(?:[=.\]])""")
    lines = text.splitlines(keepends=True)
    tried = 0
    for number, line in enumerate(lines, 1):
        if tried < _CANDIDATES_MAX and pattern.search(line):
            tried += 1
            if _holds(_up_to_a_whole_value(lines, number), keys):
                return number
    return None


def _up_to_a_whole_value(lines: list[str], number: int) -> dict[str, Any]:
    """The shortest start of the file with these lines that is TOML: a value may go on over several lines."""
    for end in range(number, min(len(lines), number + _VALUE_LINES_MAX) + 1):
        try:
            return tomllib.loads("".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue
    return {}


def _holds(tables: dict[str, Any], keys: tuple[str | int, ...]) -> bool:
    found: Any = tables
    for key in keys:
        try:
            found = found[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True
