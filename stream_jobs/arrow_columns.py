"""Columns of the wire, many batches at once, as Arrow: one buffer a column, never a value touched in Python.

    table = arrow_table(batches, {"ts": "timestamp", "name": "dictionary", "value": "float64"})

The table has the stream's columns and then where each row came from:

    device, function, function_version   dictionary<int32, string>; the latter two null where the header has none
    epoch, seq                           int64
    row                                  int32, index in the batch
    received_at                          timestamp[us, UTC], the log's append time
    trace                                dictionary<int32, string> or null: trace id '-' span id, hexadecimal (W3C)

A stream declares its columns by the contract's type names; `string` and `dictionary` accept either on the wire and
become `string` and `dictionary<int32, string>`. Buffers come from outside, so everything that could point outside a
buffer (offsets, codes) or break a reader (UTF-8) is checked by Arrow before it is used.

**Delivery**: pure; the same batches give the same table. Bytes that are no columns raise DecodeError, nothing else.
**Bounds**: memory is about twice the decompressed bodies; Python runs per batch and per dictionary entry.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from edge_agent.contract import limits
from edge_agent.contract.columns import TYPES, Column
from edge_agent.contract.errors import DecodeError, RejectError, quoted
from edge_agent.contract.wire import Header

__all__ = ["PROVENANCE", "Batch", "StreamColumns", "arrow_table", "arrow_type", "check_stream_columns", "fitting"]

StreamColumns = Mapping[str, str]
"""Column name -> type name of the contract, in order."""

_TIMESTAMP = pa.timestamp("us", tz="UTC")
_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
_ARROW = {
    "timestamp": _TIMESTAMP,
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "dictionary": _DICTIONARY,
}
_CODES = {1: pa.uint8(), 2: pa.int16(), 4: pa.int32()}
_JOINABLE = ("timestamp", "float64", "int64")
_TEXT = ("string", "dictionary")
_NO_VERSION = bytes(limits.FUNCTION_VERSION_BYTES)
_INT64, _INT32 = struct.Struct("<q"), struct.Struct("<i")
_ROW_NUMBERS = b"".join(map(_INT32.pack, range(limits.BATCH_ROWS_MAX)))

PROVENANCE = ("device", "epoch", "seq", "row", "function", "function_version", "received_at", "trace")


class Batch(NamedTuple):
    """One accepted batch: its header, its columns in the stream's order, and when the log took it (us, UTC)."""

    header: Header
    columns: list[Column]
    received_at_us: int


def arrow_type(name: str) -> Any:
    """The Arrow type of a contract type; RejectError for an unknown name."""
    if name not in _ARROW:
        raise RejectError(f"column type {quoted(name)} is not known; use one of {', '.join(TYPES)}")
    return _ARROW[name]


def check_stream_columns(stream: str, columns: StreamColumns) -> None:
    """RejectError when `columns` cannot be the columns of a stream."""
    for name, type_name in columns.items():
        arrow_type(type_name)
        if name in PROVENANCE:
            raise RejectError(f"stream {stream} has a column {name}, which every table has by itself; rename it")
    if not columns:
        raise RejectError(f"stream {stream} has no columns")


def fitting(columns: Sequence[Column], wanted: StreamColumns) -> list[Column]:
    """`columns` in the order of `wanted`; DecodeError when names or types differ."""
    found = {column.name: column for column in columns}
    if found.keys() != wanted.keys():
        raise DecodeError(
            f"columns {quoted(sorted(found))} are not the columns {quoted(sorted(wanted))} of the stream; "
            "declare them in the job, or mend the function"
        )
    for name, type_name in wanted.items():
        sent = found[name].type
        if sent != type_name and not (sent in _TEXT and type_name in _TEXT):
            raise DecodeError(f"column {quoted(name)} has type {sent}, the stream's is {type_name}; mend the function")
    return [found[name] for name in wanted]


def arrow_table(batches: Sequence[Batch], columns: StreamColumns) -> Any:
    """One table of all rows of `batches`, in order. DecodeError when any buffer holds what it must not.

    Each batch has the stream's columns in order (see `fitting`); there is at least one.
    """
    arrays: dict[str, Any] = {}
    name = ""
    try:
        for position, (name, type_name) in enumerate(columns.items()):
            arrays[name] = _column([batch.columns[position] for batch in batches], type_name)
    except (pa.ArrowException, DecodeError, UnicodeDecodeError, OverflowError) as error:
        raise DecodeError(f"column {quoted(name)}: {str(error)[:200]}") from None
    arrays.update(_provenance(batches))
    return pa.table(arrays)


def _column(parts: list[Column], type_name: str) -> Any:
    if type_name in _JOINABLE and all(part.validity is None for part in parts):
        rows = sum(part.rows for part in parts)
        return _from_buffers(_ARROW[type_name], rows, [None, b"".join(part.buffers[0] for part in parts)])
    if type_name in _TEXT:
        return _text(parts, type_name)
    return _concatenated([_from_buffers(_ARROW[type_name], p.rows, [p.validity, p.buffers[0]]) for p in parts])


def _from_buffers(type_: Any, rows: int, buffers: list[bytes | None]) -> Any:
    return pa.Array.from_buffers(type_, rows, [None if data is None else pa.py_buffer(data) for data in buffers])


def _concatenated(arrays: list[Any]) -> Any:
    return arrays[0] if len(arrays) == 1 else pa.concat_arrays(arrays)


# Text: dictionaries of many batches become one, codes are renumbered by Arrow


class _Entries:
    """The entries of the dictionary being built, each with its code."""

    def __init__(self) -> None:
        self.codes: dict[str, int] = {}
        self._mappings: dict[tuple[str, ...], Any] = {}

    def mapping(self, names: tuple[str, ...]) -> Any:
        """Old code -> new code, as an int32 array; None where they are the same."""
        if names not in self._mappings:
            codes = self.codes
            numbers = [codes.setdefault(name, len(codes)) for name in names]
            same = numbers == list(range(len(names)))
            self._mappings[names] = None if same else pa.array(numbers, pa.int32())
        return self._mappings[names]

    def array(self, codes: Any) -> Any:
        return pa.DictionaryArray.from_arrays(codes, pa.array(list(self.codes), pa.string()), safe=False)


def _text(parts: list[Column], type_name: str) -> Any:
    if type_name == "string" and all(part.type == "string" for part in parts):
        return _concatenated([_strings(part) for part in parts])
    entries = _Entries()
    arrays: list[Any] = []
    # Neighbours with the same entries are most of the traffic (one function, many devices): their codes are one buffer.
    for (is_string, width, names, nullable), group in itertools.groupby(
        parts, lambda part: (part.type == "string", part.width, part.names, part.validity is not None)
    ):
        run = list(group)
        if is_string:
            arrays += [_renumbered_strings(part, entries) for part in run]
        elif nullable:
            arrays += [_renumbered(_codes([part], part.validity), names, entries) for part in run]
        else:
            assert width in _CODES
            arrays.append(_renumbered(_codes(run, None), names, entries))
    merged = entries.array(_concatenated(arrays))
    return merged if type_name == "dictionary" else merged.cast(pa.string())


def _strings(part: Column) -> Any:
    array = _from_buffers(pa.string(), part.rows, [part.validity, *part.buffers])
    array.validate(full=True)
    return array


def _renumbered_strings(part: Column, entries: _Entries) -> Any:
    encoded = _strings(part).dictionary_encode()
    mapping = entries.mapping(tuple(encoded.dictionary.to_pylist()))
    return encoded.indices if mapping is None else mapping.take(encoded.indices)


def _codes(run: list[Column], validity: bytes | None) -> Any:
    rows = sum(part.rows for part in run)
    data = run[0].buffers[0] if len(run) == 1 else b"".join(part.buffers[0] for part in run)
    return _from_buffers(_CODES[run[0].width], rows, [validity, data])


def _renumbered(codes: Any, names: tuple[str, ...], entries: _Entries) -> Any:
    mapping = entries.mapping(names)
    if mapping is not None:
        return pc.take(mapping, codes)  # checks bounds
    least, most = pc.min_max(codes).values()
    if most.is_valid and not 0 <= least.as_py() <= most.as_py() < len(names):
        raise DecodeError(f"a code from {least} to {most} of a dictionary with {len(names)} entries")
    return codes.cast(pa.int32(), safe=False)


# Where the rows came from: constants of each batch, repeated


def _provenance(batches: Sequence[Batch]) -> dict[str, Any]:
    headers = [batch.header for batch in batches]
    rows = sum(header.rows for header in headers)
    row_numbers = b"".join(_ROW_NUMBERS[: 4 * header.rows] for header in headers)
    return {
        "device": _repeated_text(headers, rows, lambda header: header.device),
        "epoch": _repeated(pa.int64(), rows, ((header.epoch, header.rows) for header in headers)),
        "seq": _repeated(pa.int64(), rows, ((header.seq_first, header.rows) for header in headers)),
        "row": _from_buffers(pa.int32(), rows, [None, row_numbers]),
        "function": _repeated_text(headers, rows, lambda header: header.function or None),
        "function_version": _repeated_text(headers, rows, _version),
        "received_at": _repeated(_TIMESTAMP, rows, ((batch.received_at_us, batch.header.rows) for batch in batches)),
        "trace": _repeated_text(headers, rows, _trace),
    }


def _version(header: Header) -> str | None:
    return None if header.function_version == _NO_VERSION else header.function_version.hex()


def _trace(header: Header) -> str | None:
    return f"{header.trace[:16].hex()}-{header.trace[16:].hex()}" if header.trace else None


def _repeated(type_: Any, rows: int, values: Iterable[tuple[int, int]]) -> Any:
    return _from_buffers(type_, rows, [None, b"".join(_INT64.pack(value) * count for value, count in values)])


def _repeated_text(headers: Sequence[Header], rows: int, text: Callable[[Header], str | None]) -> Any:
    codes: dict[str, int] = {}
    pieces = []
    nulls = False
    for header in headers:
        value = text(header)
        nulls = nulls or value is None
        pieces.append(_INT32.pack(-1 if value is None else codes.setdefault(value, len(codes))) * header.rows)
    numbers = _from_buffers(pa.int32(), rows, [None, b"".join(pieces)])
    if nulls:
        numbers = pc.if_else(pc.less(numbers, 0), pa.scalar(None, pa.int32()), numbers)
    return pa.DictionaryArray.from_arrays(numbers, pa.array(list(codes), pa.string()), safe=False)
