"""From a source's rows to readings: which columns are numbers, what a cell is, and when a row cannot be read.

**Delivery**: a row is read whole or not at all: with one cell that is no number none of its readings counts.
**Bounds**: NAMES_BYTES_MAX over the names of all readings, NAME_BYTES_MAX each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.contract import limits
from edge_agent.contract.errors import RejectError, StopError, quoted
from edge_agent.contract.names import check_device
from edge_agent.contract.streams import DEAD_LETTER_CHARACTERS_MAX

from .lines import shown
from .source import Row, Source, listed, nearest
from .times import TimeReader

__all__ = ["Choice", "RowReader", "choose_columns", "number", "row_text"]

NAME_BYTES_MAX = 1024
NAMES_BYTES_MAX = 128 * limits.KIB
_EXACT_MAX = float(1 << 53)


def number(cell: object) -> float | None:
    """A cell as float64; None for an empty one (NaN too). ValueError for what is no number, and for an integer that
    float64 cannot hold exactly."""
    if isinstance(cell, str):
        try:
            value = float(cell)
        except ValueError:
            if not cell.strip():
                return None
            raise ValueError(f"{quoted(cell)} is no number") from None
        if "_" in cell or (math.isinf(value) and "inf" not in cell.lower()):
            raise ValueError(f"{quoted(cell)} is no number that float64 can hold")
    elif cell is None:
        return None
    elif isinstance(cell, (int, float)) and not isinstance(cell, bool):
        try:
            value = float(cell)
        except OverflowError:
            raise ValueError(f"{quoted(cell)} has no exact float64") from None
    else:
        raise ValueError(f"{quoted(cell)} is no number")
    if not -_EXACT_MAX < value < _EXACT_MAX:
        if math.isnan(value):
            return None
        _check_exact(cell, value)
    return value


def _check_exact(cell: object, value: float) -> None:
    try:
        whole = int(cell) if isinstance(cell, (str, int)) else None
    except ValueError:
        return
    if whole is not None and whole != value:
        raise ValueError(f"{quoted(cell)} has no exact float64")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which columns become readings, and which of the others look like what."""

    columns: tuple[str, ...]
    left_out: tuple[str, ...]


def choose_columns(
    source: Source, others: Sequence[str], wanted: Sequence[str], read_time: TimeReader, where: str
) -> Choice:
    """The columns that become readings: `wanted`, or each in whose sample at least half of the cells that are not empty
    are numbers. `others` (time, device) must be there and never are. StopError names the columns there are; so it does
    for a column of which no cell of the sample is what it should be, since then all rows would be dead letters."""
    known = source.columns()
    for name in (*others, *wanted):
        if not source.has(name):
            option = ("--time", "--device-column")[others.index(name)] if name in others else "--columns"
            raise StopError(f"{option}: {where} has no column {quoted(name)}; {nearest(name, known)}")
        if known.count(name) > 1:
            raise StopError(
                f"{where} has {known.count(name)} columns named {quoted(name)}; give each a name of its own"
            )
    doubled = set(wanted) & set(others)
    if doubled:
        raise StopError(f"--columns: {quoted(min(doubled))} is already the time or the device")
    rest = [name for name in known if name not in others]
    sample = [cells for cells in source.sample() if cells is not None]
    if not sample:
        raise StopError(
            f"{where} has a header but no row that can be read; are delimiter and format right? "
            f"The columns are: {listed(known)}"
        )
    _check_times([cells[known.index(others[0])] for cells in sample], read_time, others[0], where)
    if wanted:
        columns = tuple(dict.fromkeys(wanted))
        for name in columns:
            _check_has_numbers([cells[known.index(name)] for cells in sample], name, where)
    else:
        numeric = {name for at, name in enumerate(known) if name and _is_numeric([cells[at] for cells in sample])}
        columns = tuple(name for name in rest if name in numeric)
    if not columns:
        raise StopError(
            f"{where} has no numeric column beside {', '.join(others)}, so there is nothing to send; name some with "
            f"--columns a,b. The columns are: {listed(known)}"
        )
    _check_names(columns, known, where)
    return Choice(columns, tuple(name for name in rest if name not in columns))


def _check_times(cells: Sequence[object], read_time: TimeReader, name: str, where: str) -> None:
    reason = ""
    for cell in cells:
        try:
            read_time(cell)
        except ValueError as error:
            reason = reason or str(error)
        else:
            return
    raise StopError(
        f"--time: column {quoted(name)} of {where} has no time in its first {len(cells)} rows: {reason}; name the "
        "column of the times, as ISO 8601 or as numbers since 1970"
    )


def _check_has_numbers(cells: Sequence[object], name: str, where: str) -> None:
    reason = ""
    for cell in cells:
        try:
            if number(cell) is not None:
                return
        except ValueError as error:
            reason = reason or str(error)
    if reason:
        raise StopError(f"--columns: {quoted(name)} of {where} has no number in its first {len(cells)} rows: {reason}")


def _check_single(name: str, known: Sequence[str], where: str) -> None:
    if known.count(name) > 1:
        raise StopError(f"{where} has {known.count(name)} columns named {quoted(name)}; give each a name of its own")


def _check_names(columns: Sequence[str], known: Sequence[str], where: str) -> None:
    for name in columns:
        if known.count(name) > 1:
            raise StopError(
                f"{where} has {known.count(name)} columns named {quoted(name)}; give each a name of its own"
            )
        if len(name.encode("utf-8", "replace")) > NAME_BYTES_MAX:
            raise StopError(f"column name {quoted(name)} is longer than {NAME_BYTES_MAX} bytes; shorten it")
    total = sum(len(name.encode("utf-8", "replace")) for name in columns)
    if total > NAMES_BYTES_MAX:
        raise StopError(
            f"{where}: the names of {len(columns)} numeric columns have {total} bytes, more than {NAMES_BYTES_MAX}; "
            "choose some with --columns a,b"
        )


def _is_numeric(cells: Sequence[object]) -> bool:
    numbers = filled = 0
    for cell in cells:
        try:
            found = number(cell)
        except ValueError:
            filled += 1
        else:
            filled += found is not None
            numbers += found is not None
    return filled > 0 and 2 * numbers >= filled


class RowReader:
    """Reads rows whose cells are: time, then the device where there is such a column, then the readings."""

    def __init__(self, read_time: TimeReader, columns: Sequence[str], *, with_device: bool) -> None:
        self._read_time = read_time
        self._columns = columns
        self._first = 2 if with_device else 1

    def read(self, row: Row) -> tuple[int, str, list[float | None]]:
        """(microseconds since 1970, device or "", values or None); ValueError says why the row cannot be read."""
        cells = row.cells
        if cells is None:
            raise ValueError(row.reason)
        ts = self._read_time(cells[0])
        device = self.device(row) if self._first == 2 else ""
        try:
            return ts, device, [number(cell) for cell in cells[self._first :]]
        except ValueError as error:
            raise ValueError(f"{self._column_of(cells)}: {error}") from None

    def device(self, row: Row) -> str:
        """The row's device; ValueError when it names none."""
        assert row.cells is not None, "a row that was read"
        cell = row.cells[1]
        try:
            return check_device(cell if isinstance(cell, str) else "" if cell is None else str(cell))
        except RejectError as error:
            raise ValueError(str(error)) from None

    def _column_of(self, cells: Sequence[object]) -> str:
        for name, cell in zip(self._columns, cells[self._first :], strict=True):
            try:
                number(cell)
            except ValueError:
                return name
        return "row"


def row_text(row: Row) -> str:
    """What a row was, for a dead letter, cut to what one may hold."""
    text = row.text
    if isinstance(text, bytes):
        text = shown(text[: 4 * DEAD_LETTER_CHARACTERS_MAX])
    elif not text:
        text = json.dumps(row.cells, default=str, ensure_ascii=True)
    return text[:DEAD_LETTER_CHARACTERS_MAX]
