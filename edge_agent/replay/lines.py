"""The lines of a text file, with the position behind each and the digest of all bytes before it.

**Delivery**: bytes are hashed in the order of the file, each once, when the line that they belong to is taken; so the
digest is always that of exactly what was taken. **Bounds**: LINE_BYTES_MAX; of a longer line the first are kept, the
rest is hashed in pieces and forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from edge_agent.contract import limits

from .source import LINE_BYTES_MAX

__all__ = ["BOM", "Line", "Lines", "shown"]

BOM = b"\xef\xbb\xbf"
_CHUNK_BYTES = limits.MIB


class Line(NamedTuple):
    """A line with its end; `whole` False: it was longer than LINE_BYTES_MAX, and this is its beginning."""

    data: bytes
    number: int
    end: int
    whole: bool


class Lines:
    """A file read line by line; `take` goes on from wherever `go_to` went."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=_CHUNK_BYTES)
        self.size = path.stat().st_size
        self.position = 0
        self.number = 0
        self._hash: Any = hashlib.sha256()
        self._marks: dict[int, tuple[Any, int]] = {}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def take(self) -> Line | None:
        """The next line; None at the end of the file."""
        data = self._file.readline(LINE_BYTES_MAX + 1)
        if not data:
            return None
        self._hash.update(data)
        self.position += len(data)
        self.number += 1
        if len(data) <= LINE_BYTES_MAX:
            return Line(data, self.number, self.position, True)
        rest = data
        while rest and not rest.endswith(b"\n"):
            rest = self._file.readline(_CHUNK_BYTES)
            self._hash.update(rest)
            self.position += len(rest)
        return Line(data[:LINE_BYTES_MAX], self.number, self.position, False)

    def take_more(self, data: bytes, lines: int) -> None:
        """Take what was only looked at so far: `data`, which is the next `lines` lines."""
        self._hash.update(data)
        self.position += len(data)
        self.number += lines
        self._file.seek(self.position)

    def ahead(self, bytes_max: int) -> Iterator[bytes]:
        """The next lines without taking them, as long as they are `bytes_max` bytes together."""
        try:
            while bytes_max > 0 and (data := self._file.readline(bytes_max)):
                bytes_max -= len(data)
                yield data
        finally:
            self._file.seek(self.position)

    def digest(self) -> str:
        """Of everything before the position."""
        found: str = self._hash.hexdigest()
        return found

    def digests(self, positions: Iterable[int]) -> dict[int, str]:
        """Position -> digest of all bytes before it, for those in the file; `go_to` reaches them without reading."""
        found: dict[int, str] = {}
        self._go_to_start()
        for position in sorted(set(positions)):
            if position > self.size or not self._skip_to(position):
                break
            found[position] = self.digest()
            self._marks[position] = (self._hash.copy(), self.number)
        self._go_to_start()
        return found

    def go_to(self, position: int) -> bool:
        """Go on from there; False when the file is shorter. True also inside a line (see `inside`)."""
        mark = self._marks.get(position)
        if mark is None:
            self._go_to_start()
            return self._skip_to(position)
        self._hash, self.number, self.position = mark[0].copy(), mark[1], position
        self._file.seek(position)
        return True

    def inside(self) -> bool:
        """Whether the position is inside a line: the byte before it ends none."""
        if self.position == 0:
            return False
        self._file.seek(self.position - 1)
        return self._file.read(1) != b"\n"

    def _go_to_start(self) -> None:
        self._hash, self.number, self.position = hashlib.sha256(), 0, 0
        self._file.seek(0)

    def _skip_to(self, position: int) -> bool:
        while self.position < position:
            data = self._file.read(min(_CHUNK_BYTES, position - self.position))
            if not data:
                return False
            self._hash.update(data)
            self.position += len(data)
            self.number += data.count(b"\n")
        return True


def shown(data: bytes) -> str:
    """A line as text, whatever is in it: without its end, with what is not UTF-8 and NUL as escapes."""
    return data.rstrip(b"\r\n").decode("utf-8", "backslashreplace").replace("\0", "\\x00")
