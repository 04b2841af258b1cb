"""The answer to a query, and the shapes it leaves in: Arrow, pandas, Polars, CSV, JSON, a table for the terminal.

**Delivery**: a value that lives in memory. **Bounds**: `render` shows `rows_max` rows and cells of
`cell_characters_max` characters; the other shapes are complete. Timestamps that Python cannot hold (before year 1,
after 9999) are text."""

from __future__ import annotations

import io
from collections.abc import Collection
from typing import Any, TextIO

import pyarrow as pa

from lake.shapes import cells, is_number, write_csv, write_json
from lake.terminal import escaped, table_lines

__all__ = ["Result"]

_ROWS_PRINTED = 40


class Result:
    """Rows and columns of an answer. Anything that takes an Arrow stream takes it: `polars.DataFrame(result)`."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"<Result of {len(self):,} rows: {', '.join(map(escaped, self.columns))}>"

    def __str__(self) -> str:
        return self.render(_ROWS_PRINTED, hint=".arrow(), .pandas(), .polars() give all")

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface."""
        return self._table.__arrow_c_stream__(requested_schema)

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._table.column_names)

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        return self._table.schema

    def arrow(self) -> pa.Table:
        """The answer as a pyarrow.Table."""
        return self._table

    def pandas(self) -> Any:
        """The answer as a pandas.DataFrame; needs pandas."""
        return self._table.to_pandas()

    def polars(self) -> Any:
        """The answer as a polars.DataFrame; needs polars."""
        import polars as pl

        return pl.from_arrow(self._table)

    def write_csv(self, output: TextIO) -> None:
        """See `shapes.write_csv`."""
        write_csv(self.schema, self._table.to_batches(), output)

    def csv(self) -> str:
        """`write_csv` as a string."""
        output = io.StringIO()
        self.write_csv(output)
        return output.getvalue()

    def write_json(self, output: TextIO) -> None:
        """See `shapes.write_json`."""
        write_json(self.schema, self._table.to_batches(), output)

    def json(self) -> str:
        """`write_json` as a string."""
        output = io.StringIO()
        self.write_json(output)
        return output.getvalue()

    def render(
        self,
        rows_max: int = 1000,
        cell_characters_max: int = 64,
        *,
        width: int | None = None,
        ellipsis: str = "…",
        total: str | None = None,
        hint: str = "--format csv or json gives all",
        whole: Collection[str] = (),
    ) -> str:
        """A table for people: aligned columns, floats to 10 digits, not wider than `width`, and last lines that tell
        what was left out and, with `hint`, how to see it. `total` is how many rows there are, where not all are here;
        columns of numbers and times, and those named in `whole`, are not cut to fit."""
        if not self.columns:
            return "(no columns)"
        shown = self._table.slice(0, rows_max)
        numeric = [is_number(field.type) for field in shown.schema]
        rows = [list(map(escaped, self.columns)), *cells(shown)]
        uncut = [
            right or pa.types.is_temporal(field.type) or field.name in whole
            for field, right in zip(shown.schema, numeric, strict=True)
        ]
        text = table_lines(
            rows, numeric, width=width, whole=uncut, cell_width_max=cell_characters_max, ellipsis=ellipsis
        )
        lines = list(text.lines)
        if not len(self):
            lines.append("(no rows)")
        if len(self) > rows_max or total:
            lines.append(f"({shown.num_rows:,} of {total or f'{len(self):,}'} rows; {hint}, LIMIT and WHERE choose)")
        if text.columns_left_out:
            names = ", ".join(map(escaped, self.columns[-text.columns_left_out :]))
            lines.append(f"(no place for {names}; {hint})")
        elif text.cells_cut:
            lines.append(f"({ellipsis} is cut; {hint})")
        return "\n".join(lines)
