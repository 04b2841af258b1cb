"""Arrow tables to Parquet files in a table's folder, with the per-file statistics that readers skip files by.

Encodings by measurement: zstd level 1, delta encoding for timestamps and integers, dictionaries for strings and for
floats that repeat (rounded readings: 1.5 bytes instead of 2.8; for floats that do not, a dictionary costs twice the
time).

**Delivery**: a file that is written but not synced may vanish or be cut short by power loss; `Storage.sync_files`
comes before the decision that names it. A file that no decision names is an orphan. **Bounds**: statistics leave out
strings over `STATISTIC_CHARACTERS_MAX`, times outside the years 1 to 9999, and floats where a NaN or an infinity is
among the values."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lake import layout
from lake.storage import Storage
from lake.transaction.records import File

__all__ = ["ROW_GROUP_ROWS", "STATISTIC_CHARACTERS_MAX", "write_file"]

ROW_GROUP_ROWS = 262_144
STATISTIC_CHARACTERS_MAX = 256

_SAMPLE_ROWS = 8192
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_1_US = -62_135_596_800_000_000
_YEAR_9999_US = 253_402_300_799_999_999


def _value_type(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) else type


def _counts(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _repeats(column: pa.ChunkedArray) -> bool:
    """Whether a dictionary pays: for strings it nearly always does, for floats where a sample repeats itself."""
    if pa.types.is_boolean(column.type):
        return False
    if not pa.types.is_floating(column.type):
        return True
    sample = column.slice(0, _SAMPLE_ROWS)
    return bool(pc.count_distinct(sample).as_py() * 2 <= len(sample))


def write_file(storage: Storage, rows: pa.Table, table: str, staging: str, index: int) -> File:
    """Write `rows` (fitted to the table's schema) as file `index` of `staging`; not synced. RetryError from storage."""
    path = layout.data_path(table, staging, index)
    types = {field.name: _value_type(field.type) for field in rows.schema}
    delta = {name: "DELTA_BINARY_PACKED" for name, kind in types.items() if _counts(kind)}
    dictionaries = [name for name in types if name not in delta and _repeats(rows.column(name))]
    collected: list[Any] = []
    with storage.open_output(path) as output:
        pq.write_table(
            rows,
            output,
            compression="zstd",
            compression_level=1,
            row_group_size=ROW_GROUP_ROWS,
            use_dictionary=dictionaries,
            column_encoding=delta,
            store_schema=False,
            metadata_collector=collected,
        )
        size = output.tell()
    return File(path.rpartition("/")[2], size, _statistics(collected[0], rows))


def _statistics(metadata: Any, rows: pa.Table) -> dict[str, Any]:
    """Per-file statistics in the shape of the Delta protocol, from the row groups' own."""
    lowest: dict[str, Any] = {}
    highest: dict[str, Any] = {}
    nulls: dict[str, int] = {}
    for index, field in enumerate(rows.schema):
        groups = [metadata.row_group(group).column(index).statistics for group in range(metadata.num_row_groups)]
        nulls[field.name] = rows.column(index).null_count
        ranged = [group for group in groups if group is not None and group.has_min_max]
        if not ranged or _unordered(rows.column(index)):
            continue
        kind = _value_type(field.type)
        low = _statistic(min(_raw(group.min_raw) for group in ranged), kind)
        high = _statistic(max(_raw(group.max_raw) for group in ranged), kind)
        if low is not None:
            lowest[field.name] = low
        if high is not None:
            highest[field.name] = high
    return {"numRecords": rows.num_rows, "minValues": lowest, "maxValues": highest, "nullCount": nulls}


def _raw(value: Any) -> Any:
    return value.encode() if isinstance(value, str) else value


def _unordered(column: pa.ChunkedArray) -> bool:
    """Whether a float column holds what has no place in an order that every reader shares."""
    if not pa.types.is_floating(_value_type(column.type)):
        return False
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return not pc.all(pc.is_finite(column), min_count=0).as_py()


def _statistic(value: Any, type: pa.DataType) -> Any:
    """A bound as JSON, None when it is better left out."""
    if pa.types.is_timestamp(type):
        if not _YEAR_1_US <= value <= _YEAR_9999_US:
            return None
        return (_EPOCH + timedelta(microseconds=value)).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    if pa.types.is_string(type):
        text = value.decode()
        return text if len(text) <= STATISTIC_CHARACTERS_MAX else None
    if pa.types.is_integer(type):
        return int(value)
    if pa.types.is_floating(type):
        return float(value) if math.isfinite(value) else None
    return None
