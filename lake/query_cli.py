"""`edgewater lake query`: one SELECT, and its answer as a table, CSV, JSON, Parquet or charts.

**Delivery**: reads only. `--output` replaces its file when all of the answer is in it, or leaves it alone. **Bounds**:
CSV, JSON and Parquet are written as the answer comes, whatever its size; a table reads `ROWS_COUNTED_MAX` rows and
shows `ROWS_SHOWN_MAX`; charts hold `ROWS_CHARTED_MAX` rows.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from edge_agent.contract.errors import RejectError, StopError, quoted
from lake.command import add_command, binary_output, ellipsis, is_utf8, opened, terminal_width

if TYPE_CHECKING:
    from lake.query import Answer

__all__ = ["add_query_command"]

ROWS_SHOWN_MAX = 1000
ROWS_COUNTED_MAX = 1_000_000
ROWS_CHARTED_MAX = 1_000_000

_FORMATS = ("table", "csv", "json", "parquet")
_SUFFIXES = {
    ".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".txt": "table",
}  # fmt: skip
_WIDTH = 80
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)

_EXAMPLES = """\
  edgewater lake query "SELECT device, count(*) FROM readings GROUP BY device"
  edgewater lake query "FROM readings WHERE device = 'pi4' ORDER BY ts DESC LIMIT 10"
  edgewater lake query "SELECT minute, mean FROM readings_1m WHERE name = 'temperature'" --chart
  edgewater lake query "FROM readings" --output readings.parquet
"""
_MORE = """\
The SQL is DuckDB's. It sees all tables as of one transaction: no half of a transaction is ever in an answer.
`edgewater lake tables` lists them, `edgewater lake schema TABLE` their columns; readings_1m is folded to one row
a device, name and minute. The SQL can read the lake's tables and nothing else: no file, no network, no change.

CSV is exact: text, quoted, as it was measured. For a spreadsheet program, which runs text that begins with
= + - or @ as a formula, add --spreadsheet. JSON is one object a line."""


def add_query_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `query`."""
    parser = add_command(commands, "query", _query, "answer one SELECT over all tables", _EXAMPLES, _MORE)
    parser.add_argument("sql", metavar="SQL", help="one SELECT statement in DuckDB's SQL")
    parser.add_argument(
        "--format", choices=_FORMATS, help="default: by the name of --output's file, or a table for people"
    )
    parser.add_argument("--output", metavar="FILE", help="write to FILE, whole or not at all; default: standard output")
    parser.add_argument("--chart", action="store_true", help="draw the numbers over the first column")
    parser.add_argument(
        "--at", type=int, metavar="N", help="the first snapshot that holds transaction N; default: last"
    )
    parser.add_argument("--spreadsheet", action="store_true", help="CSV in which no text can be a formula")
    parser.add_argument("--timeout-s", type=float, metavar="N", help="give up after N seconds; default: never")
    parser.add_argument(
        "--memory", metavar="SIZE", help="the most memory it may take, as 500MB or 2GB; default: 80 %% of the machine's"
    )


def _query(arguments: argparse.Namespace) -> None:
    target = None if arguments.output is None else Path(arguments.output)
    form = _format(arguments, target)
    snapshot = opened(arguments).snapshot(arguments.at)
    memory_bytes = None if arguments.memory is None else _bytes(arguments.memory)
    with snapshot.stream(_sql(arguments.sql), timeout_s=arguments.timeout_s, memory_bytes=memory_bytes) as answer:
        writing = _Writing(answer, spreadsheet=arguments.spreadsheet)
        if target is not None:
            with _replacing(target) as output:
                writing.to_file(form, output)
        elif form == "table":
            print(writing.table())
        elif form == "chart":
            print(writing.chart())
        elif sys.stdout.isatty():
            writing.to_terminal(form)
        else:
            writing.to_file(form, binary_output())


def _sql(text: str) -> str:
    """What was typed, also where the locale has no letters but ASCII. RejectError: it is no UTF-8."""
    if text.isprintable() or not any(0xDC80 <= ord(letter) <= 0xDCFF for letter in text):
        return text
    try:
        return os.fsencode(text).decode()
    except UnicodeDecodeError:
        raise RejectError(
            "the SQL has bytes that are no UTF-8; set a locale that has its letters, as C.UTF-8"
        ) from None


def _format(arguments: argparse.Namespace, target: Path | None) -> str:
    """What to write. RejectError: options that do not go together."""
    if arguments.chart:
        if arguments.format or target is not None:
            raise RejectError("--chart draws on the terminal; leave out --format and --output, or --chart")
        return "chart"
    form: str | None = arguments.format
    if form is None:
        form = "table" if target is None else _SUFFIXES.get(target.suffix.lower())
    if form is None:
        raise RejectError(
            f"the name {quoted(str(target))} does not tell a format; give --format {', '.join(_FORMATS[:-1])} or "
            "parquet"
        )
    if arguments.spreadsheet and form != "csv":
        raise RejectError(f"--spreadsheet is about CSV, this is {form}; add --format csv")
    if form == "parquet" and target is None and sys.stdout.isatty():
        raise RejectError("Parquet is not for a terminal; add --output FILE, or send it into a pipe")
    return form


def _bytes(text: str) -> int:
    match = _BYTES.fullmatch(text.strip())
    if match is None:
        raise RejectError(f"--memory {quoted(text)} is no size; write it like 500MB or 2GB")
    return int(float(match[1]) * 1000 ** " KMGT".index(match[2].upper() or " "))


class _Writing:
    """An answer on its way out."""

    def __init__(self, answer: Answer, *, spreadsheet: bool) -> None:
        self._answer = answer
        self._spreadsheet = spreadsheet

    def to_file(self, form: str, output: BinaryIO) -> None:
        """All of the answer as CSV, JSON, Parquet or a table, in UTF-8."""
        if form == "parquet":
            self._parquet(output)
            return
        text = io.TextIOWrapper(output, "utf-8", newline="", write_through=True)
        try:
            if form == "csv":
                self._csv(text)
            elif form == "json":
                self._json(text)
            else:
                text.write(self.table(None, "…") + "\n")
        finally:
            text.detach()

    def to_terminal(self, form: str) -> None:
        """CSV or JSON for eyes: what a terminal would obey is escaped."""
        from lake.terminal import escaped

        class Escaping(io.TextIOBase):
            def write(self, text: str) -> int:
                sys.stdout.write("\n".join(map(escaped, text.split("\n"))))
                return len(text)

        write = self._csv if form == "csv" else self._json
        write(Escaping())

    def _csv(self, output: io.TextIOBase) -> None:
        from lake.shapes import write_csv

        write_csv(self._answer.schema, self._answer, output, spreadsheet=self._spreadsheet)  # type: ignore[arg-type]

    def _json(self, output: io.TextIOBase) -> None:
        from lake.shapes import write_json

        write_json(self._answer.schema, self._answer, output)  # type: ignore[arg-type]

    def _parquet(self, output: BinaryIO) -> None:
        from lake.shapes import write_parquet

        write_parquet(self._answer.schema, self._answer, output)

    def table(self, width: int | None = -1, mark: str | None = None) -> str:
        """The first rows as a table; a `width` of -1 is the terminal's."""
        import pyarrow as pa

        from lake.result import Result

        kept, kept_rows, rows = [], 0, 0
        for batch in self._answer:
            if kept_rows < ROWS_SHOWN_MAX:
                kept.append(batch.slice(0, ROWS_SHOWN_MAX - kept_rows))
                kept_rows += kept[-1].num_rows
            rows += batch.num_rows
            if rows > ROWS_COUNTED_MAX:
                break
        total = f"more than {ROWS_COUNTED_MAX:,}" if rows > ROWS_COUNTED_MAX else f"{rows:,}"
        return Result(pa.Table.from_batches(kept, self._answer.schema)).render(
            ROWS_SHOWN_MAX,
            width=terminal_width() if width == -1 else width,
            ellipsis=mark or ellipsis(),
            total=total if rows > kept_rows else None,
        )

    def chart(self) -> str:
        """Charts of the answer. RejectError: nothing in it can be drawn, or there are too many rows."""
        import pyarrow as pa

        from lake.query_chart import charts

        batches, rows = [], 0
        for batch in self._answer:
            batches.append(batch)
            rows += batch.num_rows
            if rows > ROWS_CHARTED_MAX:
                raise RejectError(
                    f"more than {ROWS_CHARTED_MAX:,} rows are too many for a chart; aggregate in the query, for "
                    "instance time_bucket(INTERVAL 1 MINUTE, ts) with avg(value)"
                )
        table = pa.Table.from_batches(batches, self._answer.schema)
        return "\n".join(charts(table, width=terminal_width() or _WIDTH, ascii_only=not is_utf8()))


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """A file that becomes `target` when the block ends well. StopError: it cannot be written."""
    real = Path(os.path.realpath(target))
    if real.is_dir():
        raise StopError(f"{target} is a directory; give --output the name of a file")
    # A device or a pipe is written to, never replaced.
    special = real.exists() and not real.is_file()
    staged = real if special else real.with_name(f".{real.name}.{os.getpid()}.part")
    try:
        with staged.open("wb") as output:
            yield output
            output.flush()
            if not special:
                os.fsync(output.fileno())
        if not special:
            os.replace(staged, real)
    except BaseException as error:
        if not special:
            with suppress(OSError):
                staged.unlink()
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise StopError(
                f"cannot write {target}: {error.strerror or error}; give --output another place, or make room there"
            ) from error
        raise
