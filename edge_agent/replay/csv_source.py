"""CSV: a header line, then a row a line; a quoted cell may hold delimiters, quotes (doubled) and line ends.

UTF-8, with or without a byte order mark; lines end with LF or CRLF; empty lines are passed over. Without --delimiter it
is the one of `, ; TAB |` that makes the header have the time's column, a comma otherwise.

A quote that opens and finds no end in RECORD_BYTES_MAX, or an end that makes no row, spoils only the line that it is
in: reading goes on with the next line, instead of swallowing what follows.

**Delivery**: see `source.py`. **Bounds**: LINE_BYTES_MAX a line, RECORD_BYTES_MAX a row over several lines.
"""

from __future__ import annotations

import csv
import io
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from edge_agent.contract import limits
from edge_agent.contract.errors import SettingsError, StopError, quoted

from .lines import BOM, Line, Lines, shown
from .source import LINE_BYTES_MAX, SAMPLE_ROWS, Row

__all__ = ["CsvSource"]

RECORD_BYTES_MAX = 64 * limits.KIB
_DELIMITERS = (",", ";", "\t", "|")
_NAMED = {"tab": "\t", "\\t": "\t"}


class CsvSource:
    """One CSV file; see `source.Source`."""

    def __init__(self, path: Path, delimiter: str, hint: str) -> None:
        self._path = path
        delimiter = _NAMED.get(delimiter, delimiter)
        if delimiter and (len(delimiter) != 1 or delimiter in '"\r\n'):
            raise SettingsError(f"--delimiter is {quoted(delimiter)}; give one character, or tab")
        self._lines = Lines(path)
        self.size = self._lines.size
        try:
            self._columns = self._read_header(delimiter, hint)
        except BaseException:
            self._lines.close()
            raise
        self._begin = self._lines.position

    def _read_header(self, delimiter: str, hint: str) -> list[str]:
        line = self._lines.take()
        while line is not None and not line.data.removeprefix(BOM).strip():
            line = self._lines.take()
        if line is None:
            raise StopError(f"file {self._path} has nothing but empty lines; there is nothing to replay")
        where = f"{self._path}:{line.number}"
        if not line.whole:
            raise StopError(f"{where}: the first line is longer than {LINE_BYTES_MAX} bytes; is this a CSV file?")
        data = line.data.removeprefix(BOM)
        text = utf8(data, where)
        if "\0" in text:
            raise StopError(f"{where}: the first line has NUL bytes; this is no CSV file")
        if "\r" in text.rstrip("\r\n"):
            raise StopError(f"{where}: lines end with CR alone; make it LF first: tr '\\r' '\\n' < FILE > unix.csv")
        candidates = (delimiter,) if delimiter else (*_DELIMITERS, _DELIMITERS[0])
        names: list[str] = []
        for candidate in candidates:
            self._delimiter = candidate
            try:
                cells = self._parsed(text)
            except csv.Error as error:
                raise StopError(f"{where}: the header {quoted(text)} is not CSV: {error}") from None
            if cells is None:
                raise StopError(f"{where}: the header {quoted(text)} has a quote without an end; mend the line")
            names = [cell.strip() for cell in cells]
            if hint in names:
                break
        return names

    def _parsed(self, text: str) -> list[str] | None:
        """The cells of a record; None while a quoted cell has no end. csv.Error: it is no record."""
        try:
            lines = io.StringIO(text, newline="")
            return next(csv.reader(lines, delimiter=self._delimiter, strict=True), [])
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                return None
            raise

    def columns(self) -> list[str]:
        """The header's names, in order."""
        return self._columns

    def has(self, name: str) -> bool:
        """Whether the header has it."""
        return name in self._columns

    def late_columns(self) -> list[str]:
        """None: every column is in the header."""
        return []

    def sample(self) -> list[Sequence[object] | None]:
        """The cells of its first rows; StopError when they are not UTF-8."""
        rows = list(islice(self._rows(list, 0), SAMPLE_ROWS))
        for row in rows:
            assert isinstance(row.text, bytes), "a text source"
            utf8(row.text, f"{self._path}:{row.line}")
        return [row.cells for row in rows]

    def digests(self, positions: Iterable[int]) -> dict[int, str]:
        """See `Lines.digests`."""
        return self._lines.digests(positions)

    def end(self) -> tuple[int, str]:
        """Behind everything taken, and the digest of it."""
        return self._lines.position, self._lines.digest()

    def rows(self, selected: Sequence[str], after: int) -> Iterator[Row]:
        """The selected cells of each row from `after` on."""
        indexes = [self._columns.index(name) for name in selected]
        if len(indexes) == 1:
            return self._rows(lambda cells: (cells[indexes[0]],), after)
        return self._rows(operator.itemgetter(*indexes), after)

    def _rows(self, select: Callable[[list[str]], Sequence[object]], after: int) -> Iterator[Row]:
        self._lines.go_to(max(after, self._begin))
        if self._lines.inside():
            rest = self._lines.take()
            if rest is not None and rest.data.strip():
                yield unreadable(rest, "the line goes on behind what was sent as its end before")
        width, delimiter = len(self._columns), self._delimiter
        while (line := self._lines.take()) is not None:
            data = line.data
            if not line.whole or b"\0" in data:
                yield unreadable(line, "it has NUL bytes" if line.whole else f"longer than {LINE_BYTES_MAX} bytes")
                continue
            try:
                if b'"' in data:
                    cells, data = self._quoted(line)
                else:
                    text = data.decode().rstrip("\r\n")
                    if not text.strip() and delimiter not in text:
                        continue
                    cells = text.split(delimiter)
            except UnicodeDecodeError as error:
                yield unreadable(line, f"not UTF-8 (byte {data[error.start]:#x} at {error.start + 1})")
                continue
            except csv.Error as error:
                yield unreadable(line, f"not CSV: {error}")
                continue
            if len(cells) == width:
                yield Row(self._lines.position, line.number, select(cells), data)
            else:
                yield unreadable(line, f"{len(cells)} cells; the header has {width}")

    def _quoted(self, line: Line) -> tuple[list[str], bytes]:
        """The cells of a record that begins in `line`, and its bytes; the lines that it goes on in are taken."""
        cells = self._parsed(line.data.decode())
        if cells is not None:
            return cells, line.data
        data, count, odd = line.data, 0, True
        for more in self._lines.ahead(RECORD_BYTES_MAX):
            data, count = data + more, count + 1
            odd ^= bool(more.count(b'"') & 1)
            if odd or b'"' not in more:
                continue
            cells = self._parsed(data.decode())
            if cells is None or len(cells) != len(self._columns):
                break
            self._lines.take_more(data[len(line.data) :], count)
            return cells, data
        raise csv.Error("a quoted cell has no end")

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def unreadable(line: Line, reason: str) -> Row:
    """The row of a line that cannot be read."""
    return Row(line.end, line.number, None, line.data, reason)


def utf8(data: bytes, where: str) -> str:
    """`data` as text; StopError says where it is not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise StopError(
            f"{where}: not UTF-8 (byte {data[error.start]:#x} at {error.start + 1} of {quoted(shown(data)[:60])}); "
            "convert the file first, for instance: iconv -f LATIN1 -t UTF-8 FILE > utf8.csv"
        ) from None
