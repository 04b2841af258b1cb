"""Arrow batches to CSV, JSON lines, Parquet and cells of text, a batch at a time.

**Delivery**: what is written before an error is whole rows. **Bounds**: memory is that of one batch, of at most
`ROWS_A_CHUNK` rows; a value that has no form in Python (a timestamp outside the years 1 to 9999) is text.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from edge_agent.contract.errors import RejectError, quoted
from lake.terminal import escaped

__all__ = ["FORMULA_CHARACTERS", "ROWS_A_CHUNK", "cells", "is_number", "write_csv", "write_json", "write_parquet"]

ROWS_A_CHUNK = 10_000
FORMULA_CHARACTERS = "=+-@\t\r"
_DIGITS = 10


def is_number(type: pa.DataType) -> bool:
    """Whether values of `type` are integers, floats or decimals."""
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type))


def write_csv(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch], output: TextIO, *, spreadsheet: bool = False
) -> None:
    """CSV with a header line; text in quotes, nulls empty, timestamps in ISO 8601 UTC, bytes in hexadecimal.

    Values are as they are. With `spreadsheet`, text that begins with one of `FORMULA_CHARACTERS`, which a spreadsheet
    program would run as a formula, gets a `'` before it."""
    header = True
    for batch in _chunks(schema, batches, at_least_one=True):
        table = _texts(batch, for_csv=True)
        if spreadsheet:
            table = _harmless(table)
        buffer = io.BytesIO()
        pa_csv.write_csv(table, buffer, pa_csv.WriteOptions(include_header=header))
        output.write(buffer.getvalue().decode())
        header = False


def write_json(schema: pa.Schema, batches: Iterable[pa.RecordBatch], output: TextIO) -> None:
    """One JSON object a line. NaN and infinities are the strings "NaN", "Infinity", "-Infinity"; bytes hexadecimal."""
    for chunk in _chunks(schema, batches):
        output.writelines(
            json.dumps(dict(zip(schema.names, row, strict=True)), default=str, allow_nan=False) + "\n"
            for row in _rows(chunk)
        )


def write_parquet(schema: pa.Schema, batches: Iterable[pa.RecordBatch], output: BinaryIO) -> None:
    """A Parquet file, compressed with zstd; `output` need not be seekable. RejectError: a type it has no form for."""
    try:
        with pq.ParquetWriter(pa.PythonFile(_Counted(output), "w"), schema, compression="zstd") as writer:
            for batch in batches:
                writer.write_batch(batch)
    except pa.ArrowNotImplementedError as error:
        raise RejectError(f"Parquet has no form for a column of the answer ({error}); cast it to VARCHAR") from error


class _Counted(io.RawIOBase):
    """A pipe that knows how much was written to it, which Parquet's footer needs."""

    def __init__(self, output: BinaryIO) -> None:
        self._output = output
        self._written = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._output.write(content)
        self._written += len(content)
        return len(content)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        self._output.flush()


def cells(table: pa.Table) -> Iterator[list[str]]:
    """The rows of `table` as text for a terminal."""
    for row in _rows(table):
        yield [_cell(value) for value in row]


def _chunks(schema: pa.Schema, batches: Iterable[pa.RecordBatch], at_least_one: bool = False) -> Iterator[pa.Table]:
    some = False
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_A_CHUNK):
            some = True
            yield pa.Table.from_batches([batch.slice(start, ROWS_A_CHUNK)], schema)
    if at_least_one and not some:
        yield schema.empty_table()


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Rows of JSON values."""
    for batch in _texts(table, for_csv=False).to_batches(max_chunksize=ROWS_A_CHUNK):
        columns = [
            [_json_value(value) for value in _values(column, name)]
            for name, column in zip(table.column_names, batch.columns, strict=True)
        ]
        yield from zip(*columns, strict=True)


def _values(column: Any, name: str) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError) as error:
        raise RejectError(
            f"column {quoted(name)} holds, inside other values, times that have no form ({error}); "
            "cast them to VARCHAR in the query"
        ) from error


def _texts(table: pa.Table, *, for_csv: bool) -> pa.Table:
    """`table` with columns as text whose values Python's types cannot all hold, or CSV has no form for."""
    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)  # noqa: PLW2901
        if pa.types.is_timestamp(field.type):
            plain = column.cast(pa.timestamp(field.type.unit)) if field.type.tz else column
            column = pc.binary_join_element_wise(plain.cast(pa.string()), "Z" if field.type.tz else "", "")  # noqa: PLW2901
        elif pa.types.is_date(field.type):
            column = column.cast(pa.string())  # noqa: PLW2901
        elif pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            column = pa.chunked_array([[v if v is None else v.hex() for v in column.to_pylist()]], pa.string())  # noqa: PLW2901
        elif for_csv and _has_no_csv(field.type):
            column = pa.chunked_array(  # noqa: PLW2901
                [[v if v is None else _json_text(v) for v in _values(column, field.name)]], pa.string()
            )
        columns.append(column)
    return pa.table(columns, names=table.column_names) if columns else table


def _has_no_csv(type: pa.DataType) -> bool:
    return bool(pa.types.is_nested(type) or isinstance(type, pa.BaseExtensionType) or pa.types.is_interval(type))


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(_json_value(value), default=str)


def _harmless(table: pa.Table) -> pa.Table:
    """`table` with a `'` before text, names of columns too, that a spreadsheet program would take for a formula."""
    columns = []
    for column in table.columns:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            formula = pc.is_in(pc.utf8_slice_codeunits(column, 0, 1), pa.array(list(FORMULA_CHARACTERS), column.type))
            marked = pc.binary_join_element_wise("'", column, "")
            column = pc.if_else(formula, marked, column)  # noqa: PLW2901
        columns.append(column)
    names = [f"'{name}" if name[:1] and name[0] in FORMULA_CHARACTERS else name for name in table.column_names]
    return pa.table(columns, names=names) if columns else table


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    return value


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.{_DIGITS}g}"
    if isinstance(value, str):
        return escaped(value)
    return escaped(json.dumps(value, default=str) if isinstance(value, list | dict | bool) else str(value))
