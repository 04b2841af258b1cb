"""The answer to a query, and the shapes it leaves in: Arrow, pandas, Polars, CSV, JSON, a table for the terminal.

Text for terminals has control characters escaped, since device ids and strings come from anybody.

**Delivery**: a value that lives in memory. **Bounds**: `render` shows `rows_max` rows and cells of
`cell_characters_max` characters; the other shapes are complete. Timestamps that Python cannot hold (before year 1,
after 9999) are text."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from edge_agent.contract.errors import RejectError, quoted

__all__ = ["Result", "escaped"]

_ROWS_A_CHUNK = 10_000
_DIGITS = 10


def escaped(text: str) -> str:
    """`text` with control and other unprintable characters as escapes, so that a terminal only shows it."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


class Result:
    """Rows and columns of an answer. Anything that takes an Arrow stream takes it: `polars.DataFrame(result)`."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface."""
        return self._table.__arrow_c_stream__(requested_schema)

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._table.column_names)

    def arrow(self) -> pa.Table:
        """The answer as a pyarrow.Table."""
        return self._table

    def pandas(self) -> Any:
        """The answer as a pandas.DataFrame; needs pandas."""
        return self._table.to_pandas()

    def write_csv(self, output: TextIO) -> None:
        """CSV with a header line; text in quotes, nulls empty, timestamps in ISO 8601 UTC, bytes in hexadecimal."""
        buffer = io.BytesIO()
        pa_csv.write_csv(_texts(self._table, timestamps_only=True), buffer)
        output.write(buffer.getvalue().decode())

    def csv(self) -> str:
        """`write_csv` as a string."""
        output = io.StringIO()
        self.write_csv(output)
        return output.getvalue()

    def write_json(self, output: TextIO) -> None:
        """One JSON object a line. NaN and infinities are the strings "NaN", "Infinity", "-Infinity"; bytes
        hexadecimal.
        """
        output.writelines(
            json.dumps(dict(zip(self.columns, row, strict=True)), default=str, allow_nan=False) + "\n"
            for row in _rows(self._table)
        )

    def json(self) -> str:
        """`write_json` as a string."""
        output = io.StringIO()
        self.write_json(output)
        return output.getvalue()

    def render(self, rows_max: int = 1000, cell_characters_max: int = 64) -> str:
        """A table for people: aligned columns, floats to 10 digits, and a last line when rows were left out."""
        shown = self._table.slice(0, rows_max)
        numeric = [pa.types.is_integer(field.type) or pa.types.is_floating(field.type) for field in shown.schema]
        rows = [[_cut(escaped(name), cell_characters_max) for name in self.columns]]
        rows += [[_cut(_cell(value), cell_characters_max) for value in row] for row in _rows(shown)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, numeric, strict=True)
            ).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        if len(self) > rows_max:
            lines.append(
                f"({rows_max:,} of {len(self):,} rows; --format csv or json gives all, LIMIT and WHERE choose)"
            )
        return "\n".join(lines)


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Rows of JSON values."""
    for batch in _texts(table, timestamps_only=False).to_batches(max_chunksize=_ROWS_A_CHUNK):
        columns = [
            [_json_value(value) for value in _values(column, name)]
            for name, column in zip(table.column_names, batch.columns, strict=True)
        ]
        yield from zip(*columns, strict=True)


def _values(column: pa.Array, name: str) -> list[Any]:
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError) as error:
        raise RejectError(
            f"column {quoted(name)} holds, inside other values, times that have no form ({error}); "
            "cast them to VARCHAR in the query"
        ) from error


def _texts(table: pa.Table, *, timestamps_only: bool) -> pa.Table:
    """`table` with columns as text whose values Python's types cannot all hold, or CSV has no form for."""
    columns = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if pa.types.is_timestamp(field.type):
            plain = column.cast(pa.timestamp(field.type.unit)) if field.type.tz else column
            column = pc.binary_join_element_wise(plain.cast(pa.string()), "Z" if field.type.tz else "", "")  # noqa: PLW2901
        elif pa.types.is_date(field.type):
            column = column.cast(pa.string())  # noqa: PLW2901
        elif pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            column = pa.chunked_array([[v if v is None else v.hex() for v in column.to_pylist()]], pa.string())  # noqa: PLW2901
        elif timestamps_only and pa.types.is_nested(field.type):
            column = pa.chunked_array(  # noqa: PLW2901
                [[v if v is None else json.dumps(_json_value(v), default=str) for v in _values(column, field.name)]],
                pa.string(),
            )
        columns.append(column)
    return pa.table(columns, names=table.column_names) if columns else table


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
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


def _cut(text: str, characters_max: int) -> str:
    return text if len(text) <= characters_max else text[: characters_max - 1] + "…"
