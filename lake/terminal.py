"""Text for terminals: what may be shown, how wide it is, and a table that fits.

Device ids and strings come from anybody, so control characters are shown as escapes and never sent. Letters of East
Asia take two columns.

**Delivery**: pure. **Bounds**: a cell has at most `cell_width_max` columns; a table that has to fit has text cut
down to `CELL_WIDTH_MIN`, then columns left out at the right; one stays. What was cut is told.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["CELL_WIDTH_MIN", "TableText", "cut", "escaped", "padded", "table_lines", "width_of"]

CELL_WIDTH_MIN = 8
_GAP = "  "


def escaped(text: str) -> str:
    """`text` with control and other unprintable characters as escapes, so that a terminal only shows it."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def width_of(text: str) -> int:
    """Columns that a terminal takes for `text`."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def cut(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` in at most `width` columns, with `ellipsis` in place of what is cut off."""
    if width_of(text) <= width:
        return text
    kept = text[: max(0, width - len(ellipsis))]
    while kept and width_of(kept) > width - len(ellipsis):
        kept = kept[:-1]
    return (kept + ellipsis)[:width]


def padded(text: str, width: int, right: bool = False) -> str:
    """`text` with spaces up to `width` columns, before it for `right`."""
    spaces = " " * max(0, width - width_of(text))
    return spaces + text if right else text + spaces


class TableText(NamedTuple):
    """A table as lines, how many columns were left out at the right, and whether a cell was cut."""

    lines: list[str]
    columns_left_out: int
    cells_cut: bool


def table_lines(
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
    *,
    width: int | None = None,
    whole: Sequence[bool] | None = None,
    cell_width_max: int = 64,
    ellipsis: str = "…",
) -> TableText:
    """`rows`, the first one the names, as aligned lines that fit into `width` (None: any).

    `right` says which columns stand to the right, `whole` whose cells are not cut to fit: half a number is another.
    """
    wanted = [max(map(width_of, column)) for column in zip(*rows, strict=True)]
    most = [min(wide, cell_width_max) for wide in wanted]
    widths = most
    if width is not None:
        least = [
            wide if uncut else min(wide, CELL_WIDTH_MIN)
            for wide, uncut in zip(most, whole or [False] * len(most), strict=True)
        ]
        shown = _fitting(least, width)
        widths = _widths(least[:shown], most[:shown], width)
    lines = []
    for row in rows:
        cells = (
            padded(cut(cell, wide, ellipsis), wide, to_right)
            for cell, wide, to_right in zip(row, widths, right, strict=False)  # as many as are shown
        )
        lines.append(_GAP.join(cells).rstrip())
    lines.insert(1, _GAP.join("-" * wide for wide in widths))
    cells_cut = any(a > b for a, b in zip(wanted, widths, strict=False))
    return TableText(lines, len(wanted) - len(widths), cells_cut)


def _fitting(least: Sequence[int], width: int) -> int:
    """How many columns go into `width` at their `least` widths; one at least."""
    total = 0
    for index, wide in enumerate(least):
        total += wide + (len(_GAP) if index else 0)
        if total > width:
            return max(1, index)
    return len(least)


def _widths(least: Sequence[int], most: Sequence[int], width: int) -> list[int]:
    """Between `least` and `most`, as wide as goes into `width`: the narrowest get their most first."""
    found = [min(wide, max(1, width)) for wide in least]
    free = width - sum(found) - len(_GAP) * (len(found) - 1)
    growing = [index for index in range(len(found)) if found[index] < most[index]]
    while free > 0 and growing:
        narrowest = min(found[index] for index in growing)
        for index in growing:
            if found[index] == narrowest and free > 0:
                found[index] += 1
                free -= 1
        growing = [index for index in growing if found[index] < most[index]]
    return found
