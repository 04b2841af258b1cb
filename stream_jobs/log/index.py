"""The sparse index of a segment: where in the file a batch is, by offset or by time. Pure.

One entry for about every INDEX_INTERVAL_BYTES of batches, always at the start of a batch: its offset, its position,
and the largest timestamp of all batches before it (so that the column only grows and can be bisected).

**Delivery**: a function of the segment's batches; whoever loses it scans the headers again.
**Bounds**: 24 bytes for each INDEX_INTERVAL_BYTES, so 48 KiB for a segment of 64 MiB.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right

from edge_agent.contract.errors import DecodeError

__all__ = ["INDEX_INTERVAL_BYTES", "SparseIndex"]

INDEX_INTERVAL_BYTES = 32 * 1024
_NO_TIME = -1


class SparseIndex:
    """Entries in the order of the file."""

    def __init__(self) -> None:
        self._offsets = array("q")
        self._positions = array("q")
        self._largest_before = array("q")
        self.max_timestamp = _NO_TIME
        """The largest timestamp of all batches so far, -1 without any."""

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, offset: int, position: int, max_timestamp: int) -> None:
        """Note the next batch; positions and offsets only grow."""
        if not self._positions or position - self._positions[-1] >= INDEX_INTERVAL_BYTES:
            self._offsets.append(offset)
            self._positions.append(position)
            self._largest_before.append(self.max_timestamp)
        self.max_timestamp = max(self.max_timestamp, max_timestamp)

    def position_before(self, offset: int) -> int:
        """Position of a batch at or before the one that holds `offset`."""
        entry = bisect_right(self._offsets, offset) - 1
        return self._positions[entry] if entry >= 0 else 0

    def position_before_time(self, timestamp_ms: int) -> int:
        """Position of a batch such that all batches before it are older than `timestamp_ms`."""
        entry = bisect_left(self._largest_before, timestamp_ms) - 1
        return self._positions[entry] if entry >= 0 else 0

    def boundary_at_or_before(self, position: int) -> int:
        """The last position of an entry that is not above `position`."""
        entry = bisect_right(self._positions, position) - 1
        return self._positions[entry] if entry >= 0 else 0

    def to_bytes(self) -> bytes:
        """Little-endian columns, then the largest timestamp."""
        columns = [array("q", column) for column in (self._offsets, self._positions, self._largest_before)]
        columns.append(array("q", [self.max_timestamp]))
        if sys.byteorder == "big":
            for column in columns:
                column.byteswap()
        return b"".join(column.tobytes() for column in columns)

    @classmethod
    def from_bytes(cls, data: bytes) -> SparseIndex:
        """What `to_bytes` gave; DecodeError for anything else."""
        if len(data) % 24 != 8:
            raise DecodeError(f"an index of {len(data)} bytes is not three columns and a timestamp")
        values = array("q", data)
        if sys.byteorder == "big":
            values.byteswap()
        entries = len(values) // 3
        index = cls()
        index._offsets, index._positions = values[:entries], values[entries : 2 * entries]
        index._largest_before, index.max_timestamp = values[2 * entries : 3 * entries], values[-1]
        return index
