"""Record batches of the Kafka protocol, format version 2: the 61-byte header, and as little else as possible.

Records stay opaque. On append only the base offset and the leader epoch change, which the checksum does not cover;
for topics with LogAppendTime also the timestamp type and the largest timestamp, and then the checksum is computed anew.
Source: "Record Batch" in the Apache Kafka documentation (https://kafka.apache.org/documentation/#recordbatch).

**Delivery**: a batch whose checksum does not match is never taken for a whole one, neither from a client nor from disk.
**Bounds**: a batch is at least 61 bytes, its length field a positive 31-bit number; whoever reads caps it further.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import crc32c as _crc32c

from edge_agent.contract.errors import DecodeError

from .codes import Code, ProtocolError

__all__ = ["HEADER_BYTES", "Buffer", "Header", "append_header", "checksum", "parse_header", "record_at", "validate"]

HEADER_BYTES = 61
_HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC_FROM = 21
_LENGTH_FROM = 12
_MAGIC = 2
_COMPRESSION = 0x07
_LOG_APPEND_TIME = 0x08
_TRANSACTIONAL = 0x10
_CONTROL = 0x20
_CODECS_MAX = 4
_SEQUENCE_MODULUS = 1 << 31

Buffer = bytes | bytearray | memoryview


class Header(NamedTuple):
    """The fields of a batch header in their order on the wire; times in ms since 1970, -1 where there is none."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch, header included."""
        return self.length + _LENGTH_FROM

    @property
    def next_offset(self) -> int:
        """The offset after the batch's last one."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record; they wrap from 2**31 - 1 to 0."""
        return (self.base_sequence + self.last_offset_delta) % _SEQUENCE_MODULUS

    @property
    def log_append_time(self) -> bool:
        """Whether `max_timestamp` is the time of append and counts for every record."""
        return bool(self.attributes & _LOG_APPEND_TIME)

    @property
    def compression(self) -> int:
        """0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."""
        return self.attributes & _COMPRESSION


def parse_header(data: Buffer, position: int = 0) -> Header:
    """The header at `position` of `data`; DecodeError unless its own fields make sense. Looks at no byte behind it."""
    if len(data) - position < HEADER_BYTES:
        raise DecodeError(f"a record batch needs {HEADER_BYTES} bytes of header; there are {len(data) - position}")
    header = Header._make(_HEADER.unpack_from(data, position))
    if header.magic != _MAGIC:
        raise DecodeError(f"record batch has format {header.magic}; this log keeps format {_MAGIC} only")
    if header.size < HEADER_BYTES:
        raise DecodeError(f"record batch says it has {header.size} bytes; the header alone has {HEADER_BYTES}")
    if header.base_offset < 0 or header.last_offset_delta < 0:
        raise DecodeError(f"record batch has offsets {header.base_offset} + {header.last_offset_delta}")
    return header


def checksum(data: Buffer, position: int, size: int) -> int:
    """CRC-32C over what the header's `crc` covers: everything after that field."""
    return _crc32c.crc32c(memoryview(data)[position + _CRC_FROM : position + size])


def validate(data: Buffer) -> Header:
    """The header of exactly one whole, intact batch as a producer may send it; ProtocolError with its code if not."""
    if len(data) > _LENGTH_FROM + 4 and data[_LENGTH_FROM + 4] != _MAGIC:
        message = f"record format {data[_LENGTH_FROM + 4]} is not supported; use a client that writes format {_MAGIC}"
        raise ProtocolError(Code.UNSUPPORTED_FOR_MESSAGE_FORMAT, message)
    try:
        header = parse_header(data)
    except DecodeError as error:
        raise ProtocolError(Code.CORRUPT_MESSAGE, str(error)) from None
    if header.size > len(data):
        raise ProtocolError(
            Code.CORRUPT_MESSAGE, f"batch of {header.size} bytes arrived with {len(data)}; send it again"
        )
    if header.size < len(data):
        raise ProtocolError(Code.INVALID_RECORD, "a produce request carries exactly one record batch per partition")
    if checksum(data, 0, header.size) != header.crc:
        raise ProtocolError(Code.CORRUPT_MESSAGE, "the batch's CRC-32C does not match its bytes; send it again")
    if header.attributes & (_TRANSACTIONAL | _CONTROL):
        raise ProtocolError(Code.INVALID_RECORD, "transactional and control batches are not supported by this log")
    if header.compression > _CODECS_MAX:
        raise ProtocolError(Code.UNSUPPORTED_COMPRESSION_TYPE, f"there is no compression type {header.compression}")
    if header.records != header.last_offset_delta + 1:
        message = f"batch says {header.records} records with offsets up to {header.last_offset_delta}"
        raise ProtocolError(Code.INVALID_RECORD, message)
    if header.producer_id >= 0 and (header.producer_epoch < 0 or header.base_sequence < 0):
        message = f"producer {header.producer_id} sent epoch {header.producer_epoch}, sequence {header.base_sequence}"
        raise ProtocolError(Code.INVALID_RECORD, message)
    return header


def append_header(header: Header, batch: Buffer, base_offset: int, append_time_ms: int | None) -> tuple[Header, bytes]:
    """The header, and its 61 bytes, with which `batch` enters the log; with a time for topics with LogAppendTime."""
    attributes, largest, crc = header.attributes & ~_LOG_APPEND_TIME, header.max_timestamp, header.crc
    if append_time_ms is not None:
        attributes, largest = attributes | _LOG_APPEND_TIME, append_time_ms
    stamped = header._replace(base_offset=base_offset, leader_epoch=0, attributes=attributes, max_timestamp=largest)
    packed = _HEADER.pack(*stamped)
    if attributes != header.attributes or largest != header.max_timestamp:
        crc = _crc32c.crc32c(memoryview(batch)[HEADER_BYTES:], _crc32c.crc32c(packed[_CRC_FROM:]))
        stamped = stamped._replace(crc=crc)
        packed = _HEADER.pack(*stamped)
    return stamped, packed


def _varint(data: Buffer, position: int) -> tuple[int, int]:
    """A zigzag varint (at most 10 bytes) and the position after it."""
    value = 0
    for count in range(10):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
    raise DecodeError("record batch ends within a number")


def record_at(header: Header, batch: Buffer, timestamp_ms: int) -> tuple[int, int]:
    """(offset, timestamp) of the first record not older than `timestamp_ms` in a batch that has one.

    Compressed batches stay closed: for them it is the first offset with the batch's largest timestamp,
    so a reader starts at most one batch early.
    """
    if header.log_append_time or header.compression:
        return header.base_offset, header.max_timestamp
    position = HEADER_BYTES
    for _ in range(header.records):
        length, body = _varint(batch, position)
        if length <= 0:
            raise DecodeError(f"record of {length} bytes")
        delta_ms, after = _varint(batch, body + 1)
        if header.base_timestamp + delta_ms >= timestamp_ms:
            offset_delta, _ = _varint(batch, after)
            return header.base_offset + offset_delta, header.base_timestamp + delta_ms
        position = body + length
    return header.base_offset, header.max_timestamp
