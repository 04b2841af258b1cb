"""The seal of a segment: what a scan of its first `size` bytes would tell, so that starting needs no scan.

Pure but for the two functions that read and write the file.

    offset  bytes
    0       8      "EWSEAL01"
    8       8      base offset of the segment (little-endian, as all numbers here)
    16      8      size: bytes of the segment that the seal speaks for
    24      8      next offset after those bytes
    32      4      bytes of the index
    36      4      bytes of the producer table
    40      ...    the index, the producer table
    end     4      CRC-32C of all of the above

**Delivery**: a seal is written only after the bytes it speaks for were synced, by rename, and is worth nothing without
its checksum; one that is missing, damaged or larger than its segment costs a scan, never a record.
**Bounds**: SEAL_BYTES_MAX; a larger file is taken for damaged.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import crc32c as _crc32c

from edge_agent.contract.errors import DecodeError

from .index import SparseIndex
from .producers import ProducerTable

__all__ = ["SEAL_BYTES_MAX", "Seal", "decode_seal", "encode_seal", "load_seal", "store_seal"]

SEAL_BYTES_MAX = 64 * 1024 * 1024
_MAGIC = b"EWSEAL01"
_HEAD = struct.Struct("<8sqqqII")
_CRC = struct.Struct("<I")


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What is known about the first `size` bytes of a segment."""

    base_offset: int
    size: int
    next_offset: int
    index: bytes
    producers: bytes


def encode_seal(seal: Seal) -> bytes:
    """The file's bytes, as drawn above."""
    lengths = len(seal.index), len(seal.producers)
    body = _HEAD.pack(_MAGIC, seal.base_offset, seal.size, seal.next_offset, *lengths) + seal.index + seal.producers
    return body + _CRC.pack(_crc32c.crc32c(body))


def decode_seal(data: bytes) -> Seal:
    """The seal in `data`; DecodeError unless every byte is as it was written."""
    if len(data) < _HEAD.size + _CRC.size:
        raise DecodeError(f"a seal of {len(data)} bytes is too short")
    body = data[: -_CRC.size]
    magic, base_offset, size, next_offset, index_bytes, producer_bytes = _HEAD.unpack_from(body)
    if magic != _MAGIC or len(body) != _HEAD.size + index_bytes + producer_bytes:
        raise DecodeError("not a seal of this version")
    if _CRC.unpack(data[-_CRC.size :])[0] != _crc32c.crc32c(body):
        raise DecodeError("the seal's CRC-32C does not match")
    index = body[_HEAD.size : _HEAD.size + index_bytes]
    producers = body[_HEAD.size + index_bytes :]
    SparseIndex.from_bytes(index)
    ProducerTable.from_bytes(producers)
    if size < 0 or next_offset < base_offset:
        raise DecodeError(f"a seal for {size} bytes, offsets {base_offset} to {next_offset}")
    return Seal(base_offset=base_offset, size=size, next_offset=next_offset, index=index, producers=producers)


def load_seal(path: Path, base_offset: int, segment_size: int) -> Seal | None:
    """The seal at `path` if it fits the segment; None if there is none to rely on."""
    try:
        if path.stat().st_size > SEAL_BYTES_MAX:
            return None
        seal = decode_seal(path.read_bytes())
    except (FileNotFoundError, DecodeError):
        return None
    return seal if seal.base_offset == base_offset and seal.size <= segment_size else None


def store_seal(path: Path, seal: Seal) -> None:
    """Replace the seal at `path`; not synced, for its checksum tells whether it can be relied on."""
    temporary = path.with_suffix(".seal.tmp")
    temporary.write_bytes(encode_seal(seal))
    os.replace(temporary, path)
