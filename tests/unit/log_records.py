"""Record batches for the tests of the embedded log, made without any client library.

**Delivery** and **Bounds**: test data.
"""

from __future__ import annotations

import struct
from pathlib import Path

import crc32c

from stream_jobs.log.partition import Partition, SyncJob, Usage

__all__ = ["make_batch", "make_partition", "sync", "zigzag"]


def zigzag(value: int) -> bytes:
    """A zigzag varint."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _record(delta: int, timestamp_delta: int, value: bytes) -> bytes:
    body = b"\0" + zigzag(timestamp_delta) + zigzag(delta) + zigzag(-1) + zigzag(len(value)) + value + zigzag(0)
    return zigzag(len(body)) + body


def make_batch(
    values: list[bytes],
    *,
    producer: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    timestamps: list[int] | None = None,
    attributes: int = 0,
    base_offset: int = 0,
) -> bytes:
    """One intact batch of format 2, one record per value."""
    times = timestamps or [1000] * max(1, len(values))
    records = b"".join(_record(i, times[i] - times[0], value) for i, value in enumerate(values))
    covered = struct.pack(
        ">hiqqqhii", attributes, len(values) - 1, times[0], max(times), producer, epoch, sequence, len(values)
    )
    covered += records
    head = struct.pack(">qiibI", base_offset, len(covered) + 9, 0, 2, crc32c.crc32c(covered))
    return head + covered


def make_partition(directory: Path, *, segment_bytes: int = 1 << 20, log_start_offset: int = 0) -> Partition:
    """A partition in `directory`, opened as the store would."""
    return Partition(directory, "t", 0, log_start_offset=log_start_offset, segment_bytes=segment_bytes, usage=Usage())


def sync(partition: Partition, error: OSError | None = None) -> SyncJob | None:
    """One round of syncs for the partition, without the disk."""
    job = partition.begin_sync()
    if job is not None:
        partition.finish_sync(job, error)
    return job
