"""The chart of a query's answer: which columns are drawn over what, and one small chart for each series.

The first column is what the others are drawn over when it holds times, dates or numbers; else rows are drawn in their
order. Each other numeric column is a series; columns of text name series (`SELECT ts, name, value` draws one chart for
each name). Text and one number in each row (`SELECT device, count(*)`) are horizontal bars. Rows come in any order:
they are drawn in the order of the first column.

**Delivery**: pure. **Bounds**: `CHARTS_MAX` charts, `BARS_MAX` bars; the last line tells how many there would be.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from edge_agent.contract.errors import RejectError
from lake.chart import bar_lines, chart_lines
from lake.shapes import cells, is_number
from lake.terminal import cut, escaped, padded, width_of

__all__ = ["BARS_MAX", "CHARTS_MAX", "charts"]

CHARTS_MAX = 12
BARS_MAX = 50
_WIDTH_MIN = 20
_WIDTH_MAX = 200
_LABEL_MAX = 32
_FRACTIONS_BELOW_US = 10_000_000


@dataclass(frozen=True, slots=True)
class _Series:
    title: str
    over: pa.Array | None
    values: pa.Array


def charts(table: pa.Table, *, width: int, ascii_only: bool = False) -> list[str]:
    """Lines of at most `width` columns that draw `table`. RejectError: it has nothing to draw."""
    width = min(_WIDTH_MAX, max(_WIDTH_MIN, width))
    table = table.combine_chunks()
    names = [field.name for field in table.schema if _is_text(field.type)]
    numbers = [field.name for field in table.schema if is_number(field.type)]
    first = table.schema.field(0) if table.num_columns else None
    over = first.name if first is not None and (_is_time(first.type) or is_number(first.type)) else None
    if over in numbers and len(numbers) > 1:
        numbers.remove(over)
    elif over in numbers:
        over = None
    if not numbers or len(set(table.column_names)) < table.num_columns:
        raise RejectError(
            "a chart needs a numeric column, and columns of different names; for instance "
            "SELECT ts, value FROM readings WHERE name = 'temperature'"
        )
    if table.num_rows == 0:
        return ["(no rows)"]
    if over is None and len(numbers) == 1 and names and _one_row_each(table, names):
        return _bars(table, names, numbers[0], width, ascii_only)
    return _series_lines(table, over, names, numbers, width, ascii_only)


def _is_text(type: pa.DataType) -> bool:
    kind = type.value_type if pa.types.is_dictionary(type) else type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind))


def _is_time(type: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(type) or pa.types.is_date(type))


def _one_row_each(table: pa.Table, names: list[str]) -> bool:
    return bool(table.group_by(names).aggregate([]).num_rows == table.num_rows)


def _bars(table: pa.Table, names: list[str], number: str, width: int, ascii_only: bool) -> list[str]:
    column = table[number].cast(pa.float64())
    shown = table.filter(pc.fill_null(pc.is_finite(column), False))
    rows = shown.slice(0, BARS_MAX)
    dots = "~" if ascii_only else "…"
    labels = [cut(" ".join(row), _LABEL_MAX, dots) for row in cells(rows.select(names))]
    widest = max(map(width_of, labels), default=0)
    lines = [f"{escaped(number)} by {', '.join(map(escaped, names))}"]
    lines += bar_lines(
        [padded(label, widest) for label in labels],
        rows[number].cast(pa.float64()).to_pylist(),
        width=width,
        ascii_only=ascii_only,
    )
    return lines + _left_out(len(rows), len(table), "bars", "ORDER BY and LIMIT choose")


def _series_lines(
    table: pa.Table, over: str | None, names: list[str], numbers: list[str], width: int, ascii_only: bool
) -> list[str]:
    groups = table.group_by(names, use_threads=False).aggregate([]).num_rows if names else 1
    total = groups * len(numbers)
    lines: list[str] = []
    for series in _series(table, over, names, numbers):
        lines += [*([""] if lines else []), cut(series.title, width, "~" if ascii_only else "…")]
        lines += _drawn(series, width, ascii_only)
    return lines + _left_out(min(total, CHARTS_MAX), total, "charts", "WHERE chooses")


def _left_out(shown: int, total: int, what: str, how: str) -> list[str]:
    return [f"({shown:,} of {total:,} {what}; {how})"] if shown < total else []


def _series(table: pa.Table, over: str | None, names: list[str], numbers: list[str]) -> Iterator[_Series]:
    """At most `CHARTS_MAX`, by name."""
    if over is not None:
        table = table.filter(pc.is_valid(table[over])).sort_by(over)
    groups: list[dict[str, Any]] = [{}]
    if names:
        found = table.group_by(names, use_threads=False).aggregate([])
        groups = found.sort_by([(name, "ascending") for name in names]).slice(0, CHARTS_MAX).to_pylist()
    made = 0
    for group in groups:
        rows = table
        for name, value in group.items():
            column = rows[name]
            rows = rows.filter(pc.is_null(column) if value is None else pc.equal(column, value))
        for number in numbers:
            if made == CHARTS_MAX:
                return
            made += 1
            parts = [str(value) for value in group.values()]
            # `SELECT ts, name, value`: the name says it all.
            parts += [] if parts and numbers == ["value"] else [number]
            title = " ".join(map(escaped, parts))
            yield _Series(title, None if over is None else rows[over], rows[number].cast(pa.float64(), safe=False))


def _drawn(series: _Series, width: int, ascii_only: bool) -> list[str]:
    """The chart, and below it the ends of what it is drawn over."""
    good = pc.fill_null(pc.is_finite(series.values), False)
    values = series.values.filter(good).to_pylist()
    if not values:
        return ["(no values)"]
    ends = [f"{value:.6g}" for value in (min(values), max(values))]
    room = max(1, width - max(map(len, ends)) - 2)
    if series.over is None:
        return chart_lines(values, width=room, ascii_only=ascii_only)
    over = series.over
    known = pc.if_else(good, series.values, None).to_pylist()
    positions = _positions(over)
    placed = _placed(positions, known, room)
    lines = chart_lines(placed, width=room, ascii_only=ascii_only)
    if (over_wide := max(map(width_of, lines)) - width) > 0:
        # Means have more digits than the ends of the values: less room is left beside them.
        placed = _placed(positions, known, max(1, room - over_wide))
        lines = chart_lines(placed, width=room, ascii_only=ascii_only)
    margin = lines[0].index("|")
    left, right = _ends(over)
    # Its lowest line is drawn over the whole width.
    drawn = max(map(width_of, lines)) - margin - 1
    space = max(1, drawn - width_of(left) - width_of(right))
    axis = left if left == right else f"{left}{' ' * space}{right}"
    return [line[:width] for line in [*lines, f"{' ' * margin} {axis}"]]


def _positions(over: Any) -> list[float]:
    """Where in order the values stand, as floats (times as microseconds or days)."""
    if pa.types.is_timestamp(over.type) or pa.types.is_date64(over.type):
        over = over.cast(pa.int64())
    elif pa.types.is_date32(over.type):
        over = over.cast(pa.int32())
    found: list[float] = over.cast(pa.float64(), safe=False).to_pylist()
    return found


def _placed(positions: list[float], values: list[float | None], room: int) -> list[float | None]:
    """`values` at their places on a line of at most `room`: averages where several fall together, None in gaps."""
    low, high = positions[0], positions[-1]
    steps = sorted(b - a for a, b in itertools.pairwise(positions) if b > a)
    if not steps:
        return [_mean([value for value in values if value is not None])]
    # As many places as the usual step fits, so that what comes regularly has no gaps between.
    places = int(min(room, max(2, round((high - low) / steps[len(steps) // 2]) + 1)))
    sums: list[list[float]] = [[] for _ in range(places)]
    for position, value in zip(positions, values, strict=True):
        if value is not None:
            sums[round((position - low) / (high - low) * (places - 1))].append(value)
    return [_mean(found) for found in sums]


def _mean(values: list[float]) -> float | None:
    # Divided first: a sum of what floats can hold may be more than they can.
    return sum(value / len(values) for value in values) if values else None


def _ends(over: Any) -> tuple[str, str]:
    """The first and the last value of the first column as labels."""
    if not pa.types.is_timestamp(over.type):
        first, last = over[0].as_py(), over[-1].as_py()
        return _number(first), _number(last)
    plain = over.cast(pa.timestamp("us"))
    left, right = (str(value.cast(pa.string()).as_py()) for value in (plain[0], plain[-1]))
    if plain[-1].value - plain[0].value >= _FRACTIONS_BELOW_US:
        left, right = (text.partition(".")[0] for text in (left, right))
    return left, right


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
