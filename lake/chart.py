"""A small chart for a terminal: numbers to lines of block characters.

**Delivery**: pure. **Bounds**: at most `width` columns (neighbouring values are averaged) and `height` lines.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

__all__ = ["chart_lines"]

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def _buckets(values: Sequence[float], width: int) -> list[float]:
    if len(values) <= width:
        return list(values)
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]


def chart_lines(values: Sequence[float], *, width: int = 60, height: int = 6, unit: str = "") -> list[str]:
    """Bars from the lowest to the highest of the finite `values`, oldest first, with both ends labelled.

    Returns `height` lines, or one that says there is nothing to draw.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ["(no values)"]
    bars = _buckets(finite, width)
    low, high = min(bars), max(bars)
    span = (high - low) or 1.0
    levels = [max(1, round((value - low) / span * height * 8)) for value in bars]
    top, bottom = f"{high:.6g}{unit}", f"{low:.6g}{unit}"
    margin = max(len(top), len(bottom))
    lines = []
    for line in range(height, 0, -1):
        label = top if line == height else bottom if line == 1 else ""
        cells = "".join(_EIGHTHS[min(8, max(0, level - (line - 1) * 8))] for level in levels)
        lines.append(f"{label:>{margin}} |{cells}")
    return lines
