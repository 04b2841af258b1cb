"""One segment file: consecutive record batches from `base_offset` on, as they are on the wire.

**Delivery**: bytes are appended at the end only; what `synced_size` covers has been through fdatasync. After a crash
the file may end in a torn batch, which `recovery.py` cuts. **Bounds**: a reader gets at most the bytes it asks for, or
one whole batch; scanning holds SCAN_BYTES or one batch at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edge_agent.contract.errors import DecodeError

from .batches import HEADER_BYTES, Header, checksum, parse_header, record_at
from .index import SparseIndex
from .seal import Seal, load_seal

__all__ = ["Segment", "scan", "segment_path"]

SCAN_BYTES = 1 << 20
_WALK_BYTES = 32 * 1024


def segment_path(directory: Path, base_offset: int) -> Path:
    """`<directory>/<base offset, 20 digits>.log`, so that names sort as offsets do."""
    return directory / f"{base_offset:020d}.log"


def scan(descriptor: int, start: int, end: int, next_offset: int) -> Iterator[tuple[int, Header]]:
    """(position, header) of each intact batch from `start`; stops before the first byte that is not part of one.

    A batch is intact when it is whole, its checksum matches and it goes on where the one before it ended.
    """
    window, window_start = b"", start
    position = start
    while end - position >= HEADER_BYTES:
        offset = position - window_start
        if len(window) - offset < HEADER_BYTES:
            window, window_start, offset = os.pread(descriptor, min(SCAN_BYTES, end - position), position), position, 0
        try:
            header = parse_header(window, offset)
        except DecodeError:
            return
        if header.size > end - position or header.base_offset != next_offset:
            return
        if len(window) - offset < header.size:
            length = min(max(SCAN_BYTES, header.size), end - position)
            window, window_start, offset = os.pread(descriptor, length, position), position, 0
        if len(window) - offset < header.size or checksum(window, offset, header.size) != header.crc:
            return
        yield position, header
        position += header.size
        next_offset = header.next_offset


class Segment:
    """A segment with what is known about it; the last one of a partition holds its file open for appending."""

    def __init__(self, directory: Path, base_offset: int, index: SparseIndex | None = None) -> None:
        self.path = segment_path(directory, base_offset)
        self.seal_path = self.path.with_suffix(".seal")
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.size = 0
        self.synced_size = 0
        self.max_timestamp = -1
        self.descriptor = -1
        self._index = index

    def open(self, *, create: bool = False) -> None:
        """Open for reading and appending; with `create` the file must not exist yet, and no old seal stays."""
        if create:
            self.seal_path.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        self.descriptor = os.open(self.path, flags, 0o640)
        if create:
            self._index = SparseIndex()

    def close(self) -> None:
        """Close the file; reading opens it again for each read."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    @property
    def index(self) -> SparseIndex:
        """The index, from the seal or by a scan when it is not in memory."""
        if self._index is None:
            self._index = self._load_index()
        return self._index

    def seal(self, producers: bytes) -> Seal:
        """The seal of all bytes so far, to be stored once they are synced; `producers` as of their end."""
        return Seal(
            base_offset=self.base_offset,
            size=self.size,
            next_offset=self.next_offset,
            index=self.index.to_bytes(),
            producers=producers,
        )

    def drop_index(self) -> None:
        """Give the index's memory back; the next read loads it again."""
        if self.descriptor < 0:
            self._index = None

    def _load_index(self) -> SparseIndex:
        seal = load_seal(self.seal_path, self.base_offset, self.size)
        if seal is not None and seal.size == self.size:
            return SparseIndex.from_bytes(seal.index)
        index = SparseIndex()
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for position, header in scan(descriptor, 0, self.size, self.base_offset):
                index.add(header.base_offset, position, header.max_timestamp)
        finally:
            os.close(descriptor)
        return index

    def append(self, packed_header: bytes, header: Header, batch: memoryview) -> None:
        """Write one batch at the end. After an OSError the file is cut to its length before, where the disk lets it."""
        parts: list[bytes | memoryview] = [packed_header, batch[HEADER_BYTES:]]
        written, total = 0, header.size
        try:
            while written < total:
                written += os.pwritev(self.descriptor, parts, self.size + written)
                if written < total:
                    parts = [memoryview(packed_header + bytes(batch[HEADER_BYTES:]))[written:]]
        except OSError:
            os.ftruncate(self.descriptor, self.size)
            raise
        self.note(header)

    def note(self, header: Header) -> None:
        """Count a batch that is in the file at the present end."""
        self.index.add(header.base_offset, self.size, header.max_timestamp)
        self.max_timestamp = max(self.max_timestamp, header.max_timestamp)
        self.size += header.size
        self.next_offset = header.next_offset

    def read_at(self, position: int, length: int) -> bytes:
        """Up to `length` bytes from `position`, no more than were synced."""
        length = min(length, self.synced_size - position)
        if length <= 0:
            return b""
        if self.descriptor >= 0:
            return os.pread(self.descriptor, length, position)
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, length, position)
        finally:
            os.close(descriptor)

    def _walk(self, position: int) -> Iterator[tuple[int, Header]]:
        """(position, header) of the batches from `position` up to the synced end, without looking at checksums."""
        window, window_start = b"", position
        while position < self.synced_size:
            offset = position - window_start
            if len(window) - offset < HEADER_BYTES:
                window, window_start, offset = self.read_at(position, _WALK_BYTES), position, 0
            header = parse_header(window, offset)
            yield position, header
            position += header.size

    def locate(self, offset: int) -> int:
        """Position of the batch that holds `offset`; the synced end if it is behind it."""
        for position, header in self._walk(self.index.position_before(offset)):
            if header.next_offset > offset:
                return position
        return self.synced_size

    def read(self, position: int, bytes_max: int, *, whole_first: bool) -> bytes:
        """Whole batches from `position`, at most `bytes_max`; with `whole_first` the first one whatever its size."""
        limit = position + bytes_max
        if limit >= self.synced_size:
            return self.read_at(position, bytes_max)
        end = self.index.boundary_at_or_before(limit)
        if end <= position:
            end = position
            for start, header in self._walk(position):
                if start + header.size > limit and not (whole_first and start == position):
                    break
                end = start + header.size
                if end >= limit:
                    break
        return self.read_at(position, end - position)

    def first_at(self, timestamp_ms: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record not older than `timestamp_ms` among the synced ones."""
        for position, header in self._walk(self.index.position_before_time(timestamp_ms)):
            if header.max_timestamp >= timestamp_ms:
                return record_at(header, self.read_at(position, header.size), timestamp_ms)
        return None
