"""Opening a partition's directory after whatever happened to it: what is whole stays, the rest is cut.

For each segment in order: its seal, where there is one to rely on, speaks for the bytes it covers; what follows is
scanned with checksums up to the first batch that is torn, damaged or out of sequence. The file is cut there. Segments
behind a cut cannot have been acknowledged (a round of syncs goes in order of offsets) unless the disk lost what it had
synced, so they are not deleted but set aside as `.cut` files and reported; likewise segments that end below the
partition's log start, since an offset must never be given twice.

**Delivery**: every batch that was acknowledged with acks=all, or served to a reader, is found again. Batches that were
written but not yet synced may be found too; they are synced before anything is served.
**Bounds**: one seal and one window of a scan in memory at a time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .index import SparseIndex
from .producers import ProducerTable
from .seal import load_seal, store_seal
from .segment import Segment, scan

__all__ = ["Recovered", "recover", "sync_directory"]


@dataclass
class Recovered:
    """A partition's segments, the last one open; what was cut off, in bytes, and which files were set aside."""

    segments: list[Segment]
    producers: ProducerTable
    bytes_cut: int = 0
    set_aside: int = 0


def sync_directory(directory: Path) -> None:
    """fsync a directory, so that the names in it survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def recover(directory: Path, log_start_offset: int) -> Recovered:
    """Open what is in `directory` (created when absent); an empty partition starts at `log_start_offset`."""
    if not directory.is_dir():
        directory.mkdir(parents=True)
        sync_directory(directory.parent)
    bases = sorted(int(path.stem) for path in directory.glob("*.log") if path.stem.isdigit() and len(path.stem) == 20)
    found = Recovered([], ProducerTable())
    for number, base in enumerate(bases):
        if found.segments:
            _finish(found)
        whole = _recover_segment(found, directory, base)
        last = number + 1 == len(bases)
        if not last and not (whole and _next_offset(found) == bases[number + 1]):
            _set_aside(found, directory, bases[number + 1 :])
            break
    if found.segments and _next_offset(found) < log_start_offset:
        found.segments[-1].close()
        _set_aside(found, directory, [segment.base_offset for segment in found.segments])
        found.segments.clear()
    if not found.segments:
        segment = Segment(directory, log_start_offset)
        segment.open(create=True)
        sync_directory(directory)
        found.segments.append(segment)
    return found


def _finish(found: Recovered) -> None:
    """The segment before the next one is complete: seal it, unless it is, and close it."""
    segment = found.segments[-1]
    seal = load_seal(segment.seal_path, segment.base_offset, segment.size)
    if seal is None or seal.size < segment.size:
        store_seal(segment.seal_path, segment.seal(found.producers.to_bytes()))
    segment.close()
    segment.drop_index()


def _next_offset(found: Recovered) -> int:
    return found.segments[-1].next_offset


def _recover_segment(found: Recovered, directory: Path, base: int) -> bool:
    """Add the segment at `base`; False when bytes had to be cut off it."""
    segment = Segment(directory, base, SparseIndex())
    size = segment.path.stat().st_size
    seal = load_seal(segment.seal_path, base, size)
    if seal is not None:
        found.producers = ProducerTable.from_bytes(seal.producers)
        segment = Segment(directory, base, SparseIndex.from_bytes(seal.index))
        segment.size, segment.next_offset, segment.max_timestamp = (
            seal.size,
            seal.next_offset,
            segment.index.max_timestamp,
        )
    segment.open()
    found.segments.append(segment)
    if segment.size < size:
        # After a failed sync the page cache can hold what the disk does not: drop it, so that the scan reads the disk.
        os.posix_fadvise(segment.descriptor, segment.size, 0, os.POSIX_FADV_DONTNEED)
        for _, header in scan(segment.descriptor, segment.size, size, segment.next_offset):
            segment.note(header)
            found.producers.record(header)
        if segment.size < size:
            os.ftruncate(segment.descriptor, segment.size)
            found.bytes_cut += size - segment.size
        os.fsync(segment.descriptor)
    segment.synced_size = segment.size
    return segment.size == size


def _set_aside(found: Recovered, directory: Path, bases: list[int]) -> None:
    for base in bases:
        segment = Segment(directory, base)
        found.bytes_cut += segment.path.stat().st_size
        segment.seal_path.unlink(missing_ok=True)
        segment.path.rename(segment.path.with_suffix(".cut"))
        found.set_aside += 1
    sync_directory(directory)
