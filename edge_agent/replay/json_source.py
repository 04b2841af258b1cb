"""JSON lines: an object a line; its keys are the columns. Empty lines are passed over.

The columns are the keys of the first SAMPLE_ROWS rows, in the order of their first appearance; a key that an object
does not have is an empty cell.

**Delivery**: see `source.py`. **Bounds**: LINE_BYTES_MAX a line; COLUMNS_MAX keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.contract.errors import StopError

from .csv_source import unreadable, utf8
from .lines import BOM, Lines
from .source import LATE_COLUMNS_MAX, LINE_BYTES_MAX, SAMPLE_ROWS, Row

__all__ = ["JsonSource"]

COLUMNS_MAX = 4096


class JsonSource:
    """One file of JSON lines; see `source.Source`."""

    def __init__(self, path: Path, _delimiter: str, _hint: str) -> None:
        self._path = path
        self._lines = Lines(path)
        self._late: dict[str, None] = {}
        self.size = self._lines.size
        try:
            self._sample = self._read_sample()
        except BaseException:
            self._lines.close()
            raise
        self._columns = list({key: None for found in self._sample if found for key in found})
        if len(self._columns) > COLUMNS_MAX:
            self._lines.close()
            raise StopError(
                f"{path} has {len(self._columns)} keys in its first rows; at most {COLUMNS_MAX} are allowed"
            )

    def _read_sample(self) -> list[dict[str, Any] | None]:
        sample: list[dict[str, Any] | None] = []
        reasons = []
        for row, found in islice(self._objects(0), SAMPLE_ROWS):
            assert isinstance(row.text, bytes), "a text source"
            where = f"{self._path}:{row.line}"
            text = utf8(row.text, where)
            if not sample and text.lstrip("\ufeff \t").startswith("["):
                raise StopError(
                    f"{where}: the file is one JSON array; write an object a line first: jq -c '.[]' FILE > rows.jsonl"
                )
            sample.append(found)
            if found is None:
                reasons.append(f"{where}: {row.reason}")
        if not sample:
            raise StopError(f"file {self._path} has nothing but empty lines; there is nothing to replay")
        if len(reasons) == len(sample):
            raise StopError(f"{reasons[0]}; none of its first {len(sample)} lines is a JSON object")
        return sample

    def columns(self) -> list[str]:
        """The keys of the first rows."""
        return self._columns

    def has(self, name: str) -> bool:
        """Whether a row of the first ones has that key, or any other: then the file is searched for it."""
        if name not in self._columns and any(name in found for _, found in self._objects(0) if found is not None):
            self._columns.append(name)
        return name in self._columns

    def late_columns(self) -> list[str]:
        """Keys that none of the first rows had."""
        return list(self._late)

    def sample(self) -> list[Sequence[object] | None]:
        """The values of the first rows."""
        return [None if found is None else [found.get(name) for name in self._columns] for found in self._sample]

    def digests(self, positions: Iterable[int]) -> dict[int, str]:
        """See `Lines.digests`."""
        return self._lines.digests(positions)

    def end(self) -> tuple[int, str]:
        """Behind everything taken, and the digest of it."""
        return self._lines.position, self._lines.digest()

    def rows(self, selected: Sequence[str], after: int) -> Iterator[Row]:
        """The selected values of each row from `after` on."""
        known = frozenset(self._columns)
        for row, found in self._objects(after):
            if found is None:
                yield row
            else:
                if not known.issuperset(found) and len(self._late) < LATE_COLUMNS_MAX:
                    self._late.update(dict.fromkeys(name for name in found if name not in known))
                yield row._replace(cells=[found.get(name) for name in selected])

    def _objects(self, after: int) -> Iterator[tuple[Row, dict[str, Any] | None]]:
        self._lines.go_to(after)
        if self._lines.inside():
            rest = self._lines.take()
            if rest is not None and rest.data.strip():
                yield unreadable(rest, "the line goes on behind what was sent as its end before"), None
        while (line := self._lines.take()) is not None:
            data = line.data.removeprefix(BOM) if line.number == 1 else line.data
            if not data.strip():
                continue
            found: object = None
            reason = ""
            if not line.whole:
                reason = f"longer than {LINE_BYTES_MAX} bytes"
            else:
                try:
                    found = msgspec.json.decode(data)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    reason = f"not JSON: {error}"
            if isinstance(found, dict):
                yield Row(line.end, line.number, None, data), found
            else:
                yield unreadable(line, reason or f"a JSON {type(found).__name__}, not an object"), None

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
