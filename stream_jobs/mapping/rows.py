"""Items collected into the columns of one batch.

**Delivery**: pure. **Bounds**: `full` says when a batch is large enough; one item more never exceeds what the wire
format takes, since an item has at most ITEM_BYTES_MAX.
"""

from __future__ import annotations

from array import array
from typing import Any

from edge_agent.contract import limits
from edge_agent.contract.columns import Column, booleans, dictionary, floats, integers, strings, timestamps
from edge_agent.contract.streams import READINGS
from edge_agent.contract.wire import encode_columns

from .decode import ITEM_BYTES_MAX, READINGS_MAX, Item
from .rules import Mapping

__all__ = ["Rows"]

_FULL_BYTES = 128 * 1024
assert _FULL_BYTES + ITEM_BYTES_MAX + READINGS_MAX * 8 + 64 * 1024 < limits.BATCH_BYTES_MAX
_MAKERS: dict[str, Any] = {
    "string": strings, "float64": floats, "int64": integers, "bool": booleans, "timestamp": timestamps
}  # fmt: skip


class Rows:
    """The rows of one device and mapping so far."""

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._times = array("q")
        self._names: dict[str, int] = {}
        self._codes: list[int] = []
        self._values = array("d")
        self._rows: list[tuple[Any, ...]] = []
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._times)

    def full(self, rows_max: int) -> bool:
        """Whether the batch should be sent now."""
        return len(self._times) >= rows_max or self.bytes >= _FULL_BYTES

    def add(self, item: Item) -> None:
        """One item more."""
        self.bytes += item.bytes
        if self._mapping.stream != READINGS:
            self._times.append(item.time_us)
            self._rows.append(item.row)
            return
        names = self._names
        for name, value in item.readings.items():
            self._times.append(item.time_us)
            self._codes.append(names.setdefault(name, len(names)))
            self._values.append(value)

    def body(self) -> bytes:
        """The body of the batch."""
        columns: list[Column] = [timestamps("ts", self._times)]
        if self._mapping.stream == READINGS:
            columns += [dictionary("name", self._codes, tuple(self._names)), floats("value", self._values)]
        else:
            rules = self._mapping.rules[0].columns
            for rule, values in zip(rules, zip(*self._rows, strict=True), strict=True):
                columns.append(_MAKERS[rule.type](rule.name, values))
        return encode_columns(columns)
