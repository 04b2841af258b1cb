"""Parquet files for `edgewater agent replay`, which loads this module by name: a device has no pyarrow.

It has the shape of `edge_agent/replay/source.py`'s Source; positions are numbers of rows, and every digest is the
SHA-256 of the whole file, since Parquet files are not appended to.

**Delivery**: rows come in the order of the file; reading changes nothing. **Bounds**: BATCH_ROWS rows in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from edge_agent.contract.errors import StopError

__all__ = ["ParquetSource"]

BATCH_ROWS = 8192
_SAMPLE_ROWS = 200


class _Row(NamedTuple):
    end: int
    line: int
    cells: Sequence[object] | None
    text: str | bytes
    reason: str = ""


class ParquetSource:
    """One Parquet file."""

    def __init__(self, path: Path, _delimiter: str, _hint: str) -> None:
        self._path = path
        try:
            self._file: Any = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise StopError(f"file {path} is not Parquet: {error}") from None
        self.size: int = self._file.metadata.num_rows
        self._columns: list[str] = list(self._file.schema_arrow.names)
        if self.size == 0:
            self._file.close()
            raise StopError(f"file {path} has no rows; there is nothing to replay")
        with path.open("rb") as file:
            self._digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._end = 0

    def columns(self) -> list[str]:
        """Its columns, in order."""
        return self._columns

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return name in self._columns

    def late_columns(self) -> list[str]:
        """None: every column is in the file's schema."""
        return []

    def sample(self) -> list[Sequence[object] | None]:
        """The cells of its first rows."""
        batch = next(self._file.iter_batches(batch_size=_SAMPLE_ROWS))
        return list(zip(*(_values(column) for column in batch.columns), strict=True))

    def digests(self, positions: Iterable[int]) -> dict[int, str]:
        """The whole file's digest for each position in it."""
        return {position: self._digest for position in positions if position <= self.size}

    def end(self) -> tuple[int, str]:
        """Behind the row given last, and the whole file's digest."""
        return self._end, self._digest

    def rows(self, selected: Sequence[str], after: int) -> Iterator[_Row]:
        """The selected cells of each row from `after` on."""
        end = self._end = 0
        try:
            for batch in self._file.iter_batches(batch_size=BATCH_ROWS, columns=list(dict.fromkeys(selected))):
                if end + batch.num_rows <= after:
                    end += batch.num_rows
                    continue
                skipped = max(0, after - end)
                values = [_values(batch.column(name).slice(skipped)) for name in selected]
                end += skipped
                for cells in zip(*values, strict=True):
                    end += 1
                    self._end = end
                    yield _Row(end, end, cells, "")
        except (pa.ArrowException, OSError) as error:
            raise StopError(f"file {self._path} is damaged behind row {end}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _values(column: Any) -> list[object]:
    """Python values; timestamps of nanoseconds are cut to microseconds, which Python's have."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
    elif pa.types.is_timestamp(kind) and kind.unit == "ns":
        column = column.cast(pa.timestamp("us", kind.tz), safe=False)
    elif pa.types.is_decimal(kind):
        column = column.cast(pa.float64(), safe=False)
    try:
        found: list[object] = column.to_pylist()
    except (ValueError, OverflowError):
        # A time outside Python's years: as text, which the reader of times refuses with its row.
        found = [_text_or_value(value) for value in column]
    return found


def _text_or_value(value: Any) -> object:
    try:
        return value.as_py()
    except (ValueError, OverflowError):
        return f"{value.value} {value.type}"
