"""The wire format: one message is one batch, skip record, close record or marker of the fold.

A message is a header that never changes between versions, then a body. The header carries its own checksum,
so that a message whose body nobody can decode still has its place: it enters the log opaque, counts for the
watermark and becomes a dead letter.

    offset size field (little-endian)
    0      2    magic ED 47
    2      2    header size in bytes, checksum included
    4      1    kind
    5      1    body version
    6      1    body coding: 0 none, 1 zlib, 2 zstd
    7      1    reason of a skip record, else 0
    8      8    epoch (a marker: table number)
    16     8    first seq (a marker: shard)
    24     8    last seq (a batch: = first; an IN marker: offset of its OUT)
    32     4    rows in the batch, or skipped
    36     4    body size as sent
    40     4    body size decompressed
    44     4    CRC-32 of the body as sent
    48     8    function version (first 8 bytes of its digest; zeros: none)
    56     4    sizes of device, stream, function, trace
    60     ...  device, stream, function (ASCII), trace (24 bytes or none)
    end-4  4    CRC-32 (zlib) of the header before it

Body version 1 of a batch is msgpack: [[name, type index, validity or nil, [buffer...], [names...], width]...],
see `columns.py`. Of a skip record: [[stream...], stream code a seq (uint8), rows a seq (uint32)], or empty when
nobody knows (reason `lost`, `damaged`). docs/formats/wire.md has the whole text and the golden bytes.

**Delivery**: pure; any bytes are decoded or rejected with DecodeError, nothing else.
**Bounds**: HEADER_BYTES_MAX, BATCH_BYTES_MAX, BODY_RAW_BYTES_MAX, BATCH_ROWS_MAX, BATCH_COLUMNS_MAX; sizes are
checked before memory is taken, and a body is never inflated beyond the size its header declares.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import msgspec

from . import limits
from .columns import TYPES, Column, check_column
from .errors import DecodeError, LimitError, RejectError
from .names import EPOCH_MAX, check_device, check_function, check_stream

__all__ = [
    "Coding",
    "Header",
    "Kind",
    "Reason",
    "Skipped",
    "declared_body_bytes",
    "decode_body",
    "decode_columns",
    "decode_header",
    "decode_skipped",
    "encode_batch",
    "encode_close",
    "encode_columns",
    "encode_marker",
    "encode_skip",
    "message_header",
]

_MAGIC = b"\xedG"
_FIXED = struct.Struct("<2sHBBBBQQQIIII8sBBBB")
_CRC = struct.Struct("<I")
_BODY_VERSION = 1
_NO_VERSION = bytes(limits.FUNCTION_VERSION_BYTES)
_SEQ_MAX = 1 << 62
_COMPRESS_FROM_BYTES = 512
assert _FIXED.size == 60


class Kind(IntEnum):
    """What a message is."""

    BATCH = 1
    SKIP = 2
    CLOSE = 3
    OUT = 4
    IN = 5


class Coding(IntEnum):
    """How the body is compressed."""

    NONE = 0
    ZLIB = 1
    ZSTD = 2


class Reason(IntEnum):
    """Why seqs will never come."""

    NONE = 0
    DROPPED = 1
    DAMAGED = 2
    LOST = 3


@dataclass(frozen=True, slots=True)
class Header:
    """The fixed part of a message. `function_version` is 8 bytes, `trace` 24 or none."""

    kind: Kind
    device: str
    epoch: int
    seq_first: int
    seq_last: int
    rows: int
    stream: str
    function: str
    function_version: bytes
    trace: bytes
    reason: Reason
    body_version: int
    coding: int
    body_bytes: int
    body_raw_bytes: int
    body_crc32: int
    header_bytes: int

    @property
    def table_number(self) -> int:
        """Of a marker: the number of the shard table it belongs to."""
        return self.epoch

    @property
    def shard(self) -> int:
        """Of a marker: the shard that moves."""
        return self.seq_first

    @property
    def out_offset(self) -> int:
        """Of an IN marker: the offset of its OUT in the old partition."""
        return self.seq_last


@dataclass(frozen=True, slots=True)
class Skipped:
    """What a skip record says of one seq."""

    seq: int
    stream: str
    rows: int


def _message(
    kind: Kind,
    body: bytes,
    *,
    device: str = "",
    epoch: int,
    seq_first: int,
    seq_last: int,
    rows: int = 0,
    stream: str = "",
    function: str = "",
    function_version: bytes = _NO_VERSION,
    trace: bytes = b"",
    reason: Reason = Reason.NONE,
    compress: bool = False,
) -> bytes:
    raw_bytes, coding = len(body), Coding.NONE
    if raw_bytes > limits.BODY_RAW_BYTES_MAX:
        raise LimitError("batch body bytes", raw_bytes, limits.BODY_RAW_BYTES_MAX, "return fewer rows at once")
    if compress and raw_bytes >= _COMPRESS_FROM_BYTES:
        smaller = zlib.compress(body, 1)
        if len(smaller) < raw_bytes * 0.9:
            body, coding = smaller, Coding.ZLIB
    names = device.encode() + stream.encode() + function.encode() + trace
    size = _FIXED.size + len(names) + _CRC.size
    if size + len(body) > limits.BATCH_BYTES_MAX:
        raise LimitError("batch bytes", size + len(body), limits.BATCH_BYTES_MAX, "return fewer rows at once")
    fixed = _FIXED.pack(
        _MAGIC, size, kind, _BODY_VERSION, coding, reason, epoch, seq_first, seq_last, rows, len(body), raw_bytes,
        zlib.crc32(body), function_version, len(device), len(stream), len(function), len(trace),
    )  # fmt: skip
    head = fixed + names
    return b"".join((head, _CRC.pack(zlib.crc32(head)), body))


def encode_columns(columns: Sequence[Column]) -> bytes:
    """The body of a batch. All columns have the same rows; raises RejectError or LimitError otherwise."""
    rows = columns[0].rows if columns else 0
    if not 1 <= rows <= limits.BATCH_ROWS_MAX:
        raise LimitError("batch rows", rows, limits.BATCH_ROWS_MAX, "a batch has at least 1 row and at most that many")
    if len(columns) > limits.BATCH_COLUMNS_MAX:
        raise LimitError("batch columns", len(columns), limits.BATCH_COLUMNS_MAX, "split them over several streams")
    if len({column.name for column in columns}) != len(columns):
        raise RejectError(f"two columns have the same name among {[column.name for column in columns]}")
    for column in columns:
        if column.rows != rows:
            raise RejectError(
                f"column {column.name} has {column.rows} rows, {columns[0].name} has {rows}; give equal lengths"
            )
        check_column(column)
    return msgspec.msgpack.encode(
        [[c.name, TYPES.index(c.type), c.validity, c.buffers, c.names, c.width] for c in columns]
    )


def encode_batch(
    body: bytes,
    *,
    device: str,
    epoch: int,
    seq: int,
    rows: int,
    stream: str,
    function: str = "",
    function_version: bytes = _NO_VERSION,
    trace: bytes = b"",
    compress: bool = True,
) -> bytes:
    """One batch around the `body` that `encode_columns` made; `rows` is their number of rows."""
    return _message(
        Kind.BATCH, body, device=check_device(device), epoch=epoch, seq_first=seq, seq_last=seq, rows=rows,
        stream=check_stream(stream), function=check_function(function) if function else "",
        function_version=function_version, trace=trace, compress=compress,
    )  # fmt: skip


def encode_skip(
    *, device: str, epoch: int, seq_first: int, seq_last: int, reason: Reason, skipped: Sequence[Skipped] = ()
) -> bytes:
    """A skip record for `seq_first` to `seq_last`. `skipped` has each of them, or is empty where nobody knows."""
    body = b""
    if skipped:
        span = seq_last - seq_first + 1
        if span > limits.SKIP_SPAN_MAX:
            raise LimitError("skip record seqs", span, limits.SKIP_SPAN_MAX, "write several records")
        if [item.seq for item in skipped] != list(range(seq_first, seq_last + 1)):
            raise RejectError(f"skip record of {seq_first} to {seq_last} does not list each of them in order")
        streams = list(dict.fromkeys(item.stream for item in skipped))
        if len(streams) > 256:
            raise LimitError("skip record streams", len(streams), 256, "write several records")
        codes = bytes(streams.index(item.stream) for item in skipped)
        rows = struct.pack(f"<{len(skipped)}I", *(item.rows for item in skipped))
        body = msgspec.msgpack.encode([streams, codes, rows])
    return _message(
        Kind.SKIP, body, device=check_device(device), epoch=epoch, seq_first=seq_first, seq_last=seq_last,
        rows=min(sum(item.rows for item in skipped), 0xFFFFFFFF), reason=reason,
    )  # fmt: skip


def encode_close(*, device: str, epoch: int, seq_last: int) -> bytes:
    """A hint that the epoch's maker sends no seq above `seq_last` any more."""
    return _message(Kind.CLOSE, b"", device=check_device(device), epoch=epoch, seq_first=seq_last, seq_last=seq_last)


def encode_marker(kind: Kind, *, shard: int, table_number: int, out_offset: int = 0, state: bytes = b"") -> bytes:
    """An OUT marker, or an IN marker with the fold's state of the shard at its OUT."""
    return _message(kind, state, epoch=table_number, seq_first=shard, seq_last=out_offset)


def message_header(data: bytes | memoryview) -> Header:
    """The header at the start of `data`; DecodeError when there is none that holds together."""
    if len(data) < _FIXED.size + _CRC.size:
        raise DecodeError(f"message of {len(data)} bytes; a header alone has at least {_FIXED.size + _CRC.size}")
    (
        magic, size, kind, body_version, coding, reason, epoch, seq_first, seq_last, rows,
        body_bytes, raw_bytes, body_crc32, function_version, device_bytes, stream_bytes, function_bytes, trace_bytes,
    ) = _FIXED.unpack_from(data)  # fmt: skip
    if magic != _MAGIC:
        raise DecodeError(f"message starts with {bytes(magic).hex()}, not with {_MAGIC.hex()}")
    names_end = _FIXED.size + device_bytes + stream_bytes + function_bytes + trace_bytes
    if size != names_end + _CRC.size or size > limits.HEADER_BYTES_MAX or size > len(data):
        raise DecodeError(
            f"header of {size} bytes fits neither its fields ({names_end + _CRC.size}) nor the message ({len(data)})"
        )
    if zlib.crc32(data[:names_end]) != _CRC.unpack_from(data, names_end)[0]:
        raise DecodeError("header checksum does not match; the message was damaged on the way")
    names = bytes(data[_FIXED.size : names_end])
    stream_at, function_at = device_bytes, device_bytes + stream_bytes
    try:
        header = Header(
            Kind(kind), names[:stream_at].decode("ascii"), epoch, seq_first, seq_last, rows,
            names[stream_at:function_at].decode("ascii"),
            names[function_at : function_at + function_bytes].decode("ascii"), function_version,
            names[function_at + function_bytes :], Reason(reason), body_version, coding,
            body_bytes, raw_bytes, body_crc32, size,
        )  # fmt: skip
        return _checked_header(header)
    except (ValueError, RejectError) as error:
        raise DecodeError(f"header: {error}") from None


def _checked_header(header: Header) -> Header:
    if header.trace and len(header.trace) != limits.TRACE_BYTES:
        raise DecodeError(f"trace of {len(header.trace)} bytes; it has {limits.TRACE_BYTES} or none")
    if header.kind in (Kind.OUT, Kind.IN):
        if header.device or not 0 <= header.shard < limits.SHARDS or header.table_number < 1:
            raise DecodeError(f"marker for shard {header.shard} of table {header.table_number}")
        return header
    check_device(header.device)
    if not 0 < header.epoch <= EPOCH_MAX or header.seq_last > _SEQ_MAX or header.seq_first > header.seq_last:
        raise DecodeError(f"epoch {header.epoch}, seqs {header.seq_first} to {header.seq_last}")
    if header.kind is not Kind.CLOSE and header.seq_first < 1:
        raise DecodeError("seq 0; the first is 1")
    if header.kind is Kind.BATCH:
        check_stream(header.stream)
        if header.seq_first != header.seq_last:
            raise DecodeError(f"batch with seqs {header.seq_first} to {header.seq_last}; it has one")
    if header.function:
        check_function(header.function)
    return header


def declared_body_bytes(data: bytes) -> int:
    """The decompressed size that a message's header declares, unchecked and without the cost of decoding it: for
    bounding memory before a message is worth its checks. 0 for what does not begin as a message."""
    return int.from_bytes(data[40:44], "little") if data[:2] == _MAGIC else 0


def decode_header(data: bytes | memoryview) -> tuple[Header, memoryview]:
    """Header and body (as sent) of one whole message; DecodeError when the header does not hold together.

    The body is not checked here: bridges pass it on opaque.
    """
    header = message_header(data)
    return header, memoryview(data)[header.header_bytes :]


def _raw_body(header: Header, body: memoryview) -> bytes:
    if header.body_version != _BODY_VERSION:
        raise DecodeError(
            f"body of version {header.body_version}; this program knows {_BODY_VERSION}: upgrade it, then replay"
        )
    if len(body) != header.body_bytes or zlib.crc32(body) != header.body_crc32:
        raise DecodeError(f"body of {len(body)} bytes is not the {header.body_bytes} bytes that the header describes")
    if header.body_raw_bytes > limits.BODY_RAW_BYTES_MAX:
        raise DecodeError(f"body of {header.body_raw_bytes} bytes decompressed; at most {limits.BODY_RAW_BYTES_MAX}")
    if header.coding == Coding.NONE:
        raw = bytes(body)
    elif header.coding == Coding.ZLIB:
        inflater = zlib.decompressobj()
        try:
            raw = inflater.decompress(body, header.body_raw_bytes + 1)
        except zlib.error as error:
            raise DecodeError(f"body does not inflate: {error}") from None
        if not inflater.eof or inflater.unused_data:
            raise DecodeError("body inflates to another size than its header says")
    else:
        raise DecodeError(f"body coding {header.coding}; this program knows 0 and 1: upgrade it, then replay")
    if len(raw) != header.body_raw_bytes:
        raise DecodeError(f"body has {len(raw)} bytes decompressed, its header says {header.body_raw_bytes}")
    return raw


_BodyColumn = tuple[str, int, bytes | None, tuple[bytes, ...], tuple[str, ...], int]
_columns_decoder = msgspec.msgpack.Decoder(list[_BodyColumn])
_skipped_decoder = msgspec.msgpack.Decoder(tuple[list[str], bytes, bytes])


def decode_columns(header: Header, body: memoryview) -> list[Column]:
    """The columns of a batch, shapes checked, values not; DecodeError when they are none."""
    return decode_body(_raw_body(header, body), header.rows)


def decode_body(raw: bytes, rows: int) -> list[Column]:
    """The columns of `rows` rows in a body that `encode_columns` made; as `decode_columns`."""
    try:
        found = _columns_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"body is not columns: {error}") from None
    if not 1 <= len(found) <= limits.BATCH_COLUMNS_MAX or not 1 <= rows <= limits.BATCH_ROWS_MAX:
        raise DecodeError(f"{len(found)} columns of {rows} rows; see limits BATCH_COLUMNS_MAX and BATCH_ROWS_MAX")
    if len({item[0] for item in found}) != len(found):
        raise DecodeError("two columns have the same name")
    columns = []
    for name, type_index, validity, buffers, names, width in found:
        if not 0 <= type_index < len(TYPES):
            raise DecodeError(f"column {name!r} has type number {type_index}; known are 0 to {len(TYPES) - 1}")
        columns.append(check_column(Column(name, TYPES[type_index], rows, validity, buffers, names, width)))
    return columns


def decode_skipped(header: Header, body: memoryview) -> list[Skipped]:
    """What a skip record lists, one entry a seq, or nothing where nobody knew; DecodeError when damaged."""
    raw = _raw_body(header, body)
    if not raw:
        return []
    try:
        streams, codes, row_bytes = _skipped_decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"body is not a skip list: {error}") from None
    span = header.seq_last - header.seq_first + 1
    if span > limits.SKIP_SPAN_MAX or len(codes) != span or len(row_bytes) != 4 * span:
        raise DecodeError(f"skip list of {len(codes)} streams and {len(row_bytes)} row bytes for {span} seqs")
    if codes and max(codes) >= len(streams):
        raise DecodeError(f"skip list names stream {max(codes)} of {len(streams)}")
    rows = struct.unpack(f"<{span}I", row_bytes)
    return [Skipped(header.seq_first + i, streams[codes[i]], rows[i]) for i in range(span)]
