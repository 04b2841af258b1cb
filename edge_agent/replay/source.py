"""What a file gives to a replay: its columns, a sample, and its rows in order, each with its position.

A source knows a file by what is in it. Text files: a position is a number of bytes, its digest the SHA-256 of the bytes
before it, so a renamed file is the same and one that has grown goes on at its old end. Parquet: a position is a number
of rows, every digest that of the whole file.

**Delivery**: rows come in the order of the file; reading changes nothing. **Bounds**: a line of LINE_BYTES_MAX bytes;
a longer one is unreadable and passed over in pieces. SAMPLE_ROWS rows decide which columns are numbers.
"""

from __future__ import annotations

import difflib
import importlib
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from edge_agent.contract import limits
from edge_agent.contract.errors import StopError, quoted

__all__ = ["FORMATS", "LINE_BYTES_MAX", "SAMPLE_ROWS", "Row", "Source", "listed", "nearest", "open_source", "printable"]

LINE_BYTES_MAX = limits.MIB
SAMPLE_ROWS = 200
LATE_COLUMNS_MAX = 20
FORMATS = {
    "csv": ("edge_agent.replay.csv_source", "CsvSource"),
    "jsonl": ("edge_agent.replay.json_source", "JsonSource"),
    "parquet": ("lake.replay_source", "ParquetSource"),
}
"""Format -> where its source is, by name: Parquet needs a library that a device does not have."""
_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".txt": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_PACKED = {b"\x1f\x8b": "gzip (gunzip FILE)", b"PK\x03\x04": "ZIP or a spreadsheet (unzip it, or export it as CSV)",
           b"(\xb5/\xfd": "zstd (unzstd FILE)", b"BZh": "bzip2 (bunzip2 FILE)"}  # fmt: skip
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class Row(NamedTuple):
    """One row: `end` is the position behind it, `line` its first line (or row), from 1. `cells` are the selected
    columns in order (text, number, date, None), or None when it cannot be read: `reason` then says why. `text` is what
    it was."""

    end: int
    line: int
    cells: Sequence[object] | None
    text: str | bytes
    reason: str = ""


class Source(Protocol):
    """A file to replay."""

    size: int
    """In the unit of its positions, for the progress bar."""

    def columns(self) -> list[str]:
        """The names of its columns, in order."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a column; one that is found only now is among `columns` from then on."""
        ...

    def late_columns(self) -> list[str]:
        """Columns that `rows` met and that are not among `columns`, up to LATE_COLUMNS_MAX."""
        ...

    def sample(self) -> list[Sequence[object] | None]:
        """The cells of all columns of its first SAMPLE_ROWS rows; None for a row that cannot be read."""
        ...

    def digests(self, positions: Iterable[int]) -> dict[int, str]:
        """Position -> digest, for those that lie in the file."""
        ...

    def rows(self, selected: Sequence[str], after: int) -> Iterator[Row]:
        """The rows from position `after` on (0: the first)."""
        ...

    def end(self) -> tuple[int, str]:
        """The position behind everything that `rows` has given or passed over, and the digest there."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def printable(text: str) -> str:
    """`text` for a terminal: what a file has in its names moves no cursor."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def listed(names: Sequence[str]) -> str:
    """The first names, for a message."""
    return printable(", ".join(names[:20])) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint for a column that does not exist: the nearest ones, and which there are."""
    near = difflib.get_close_matches(name.lower(), [each.lower() for each in known], n=1)
    by_lower = {each.lower(): each for each in known}
    return (f"did you mean {by_lower[near[0]]}? " if near else "") + f"The columns are: {listed(known)}"


def format_of(path: Path, wanted: str) -> str:
    """The format given, or that of the suffix; StopError when neither says it."""
    if wanted:
        return wanted
    found = _SUFFIXES.get(path.suffix.lower())
    if found is None:
        raise StopError(
            f"{path} has the suffix {quoted(path.suffix)}, which says no format; give --format csv, jsonl or parquet"
        )
    return found


def _check_file(path: Path) -> None:
    """StopError for what is no file with something in it."""
    try:
        mode = path.stat()
    except FileNotFoundError:
        raise StopError(f"file {path} does not exist; check the path{_beside(path)}") from None
    except (OSError, ValueError) as error:
        raise StopError(f"file {path} cannot be read: {error}") from None
    if stat.S_ISDIR(mode.st_mode):
        raise StopError(f"{path} is a directory; name one file of it")
    if not stat.S_ISREG(mode.st_mode):
        raise StopError(f"{path} is no regular file; a replay reads its file again after a crash: save it first")
    if mode.st_size == 0:
        raise StopError(f"file {path} is empty; there is nothing to replay")


def _check_start(path: Path, kind: str) -> None:
    """StopError for a file that is of another kind by its first bytes."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise StopError(f"file {path} cannot be read: {error.strerror}; check its permissions") from None
    for magic, name in _PACKED.items():
        if start.startswith(magic):
            raise StopError(f"file {path} is packed as {name}; unpack it first")
    if start == b"PAR1" and kind != "parquet":
        raise StopError(f"file {path} is Parquet, not {kind}; give --format parquet")
    if kind != "parquet" and start.startswith(_UTF_16):
        raise StopError(f"file {path} is UTF-16; make it UTF-8 first: iconv -f UTF-16 -t UTF-8 {path.name} > utf8.csv")


def _beside(path: Path) -> str:
    try:
        known = [each.name for each in path.parent.iterdir()][:10_000]
    except OSError:
        return ""
    near = difflib.get_close_matches(path.name, known, n=1)
    return f" (did you mean {path.parent / near[0]}?)" if near else ""


def open_source(name: str, wanted_format: str = "", delimiter: str = "", hint: str = "") -> Source:
    """The source of the file `name`. StopError: not there, empty, packed, another format, nothing readable in it.

    `hint` is a column that the file is said to have (the time's): a CSV whose delimiter is not given has the one that
    makes a column of that name.
    """
    if name == "-":
        raise StopError(
            "standard input cannot be replayed: after a crash the same command reads its file again; save it to a "
            "file first"
        )
    path = Path(name)
    _check_file(path)
    kind = format_of(path, wanted_format)
    _check_start(path, kind)
    if delimiter and kind != "csv":
        raise StopError(f"--delimiter is for CSV files; {path} is read as {kind}")
    module, found = FORMATS[kind]
    source: Source = getattr(importlib.import_module(module), found)(path, delimiter, hint)
    return source
