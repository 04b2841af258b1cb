"""Small charts for a terminal: numbers to lines of block characters.

**Delivery**: pure. **Bounds**: at most `width` columns (neighbouring values are averaged) and `height` lines.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from lake.terminal import width_of

__all__ = ["bar_lines", "chart_lines"]

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_ASCII = " ...::::#"
_PARTS = " ▏▎▍▌▋▊▉█"


def _buckets(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]


def chart_lines(
    values: Sequence[float | None],
    *,
    width: int = 60,
    height: int = 6,
    unit: str = "",
    ascii_only: bool = False,
) -> list[str]:
    """Bars from the lowest to the highest of the finite `values`, oldest first, with both ends labelled.

    None is a place without a value, left blank; with one, `values` has at most `width` entries, which are not averaged.
    Returns `height` lines, or one that says there is nothing to draw.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return ["(no values)"]
    bars: Sequence[float | None] = values if None in values else _buckets(finite, width)
    drawn = [value for value in bars if value is not None]
    low, high = min(drawn), max(drawn)
    # Halves: the distance between the ends of what a float holds is no float.
    span = (high / 2 - low / 2) or 1.0
    levels = [0 if value is None else max(1, round((value / 2 - low / 2) / span * height * 8)) for value in bars]
    top, bottom = f"{high:.6g}{unit}", f"{low:.6g}{unit}"
    margin = max(len(top), len(bottom))
    glyphs = _ASCII if ascii_only else _EIGHTHS
    lines = []
    for line in range(height, 0, -1):
        label = top if line == height else bottom if line == 1 else ""
        cells = "".join(glyphs[min(8, max(0, level - (line - 1) * 8))] for level in levels)
        lines.append(f"{label:>{margin}} |{cells}".rstrip())
    return lines


def bar_lines(labels: Sequence[str], values: Sequence[float], *, width: int, ascii_only: bool = False) -> list[str]:
    """One horizontal bar for each of `values`, all finite, from zero; `labels` have one width."""
    highest = max((abs(value) for value in values), default=0.0) or 1.0
    numbers = [f"{value:.6g}" for value in values]
    room = max(1, width - max(map(width_of, labels), default=0) - max(map(len, numbers), default=0) - 3)
    lines = []
    for label, value, number in zip(labels, values, numbers, strict=True):
        eighths = round(abs(value) / highest * room * 8)
        bar = "#" * round(eighths / 8) if ascii_only else "█" * (eighths // 8) + _PARTS[eighths % 8].strip()
        lines.append(f"{label} |{bar} {number}".rstrip())
    return lines
