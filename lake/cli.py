"""`edgewater lake ...`: query a lake, list its tables and columns, say how complete it is, show its transactions.

**Delivery**: reads only; nothing is rolled forward. **Bounds**: see `lake.command` and `lake.result` for what a
terminal shows; `log` shows `RECORDS_SHOWN_MAX` records unless it is asked for more.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lake.command import add_command, add_json_option, opened, print_json, print_table
from lake.query_cli import add_query_command
from lake.status_cli import add_status_command

if TYPE_CHECKING:
    from lake.transaction.records import Body, Record

__all__ = ["add_commands"]

RECORDS_SHOWN_MAX = 1000
_PARTIALS = "_partials"


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add `query`, `tables`, `schema`, `status` and `log` below `edgewater lake`."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    add_query_command(commands)
    add_json_option(
        add_command(
            commands, "tables", _tables, "list the tables with their rows, files and versions",
            "  edgewater lake tables\n  edgewater lake tables --dir /data/edgewater/lake --json\n",
            "Rows of a table of partial aggregates are its partial rows; a query folds them.",
        )
    )  # fmt: skip
    schema = add_command(
        commands, "schema", _schema, "list the columns of a table with their types and what they mean",
        "  edgewater lake schema readings\n  edgewater lake schema readings_1m --json\n",
        "For a table of partial aggregates, `fold` says how a query makes one row of the partial rows of a group.",
    )  # fmt: skip
    schema.add_argument("table", metavar="TABLE", help="the name of a table, see `edgewater lake tables`")
    add_json_option(schema)
    add_status_command(commands)
    log = add_command(
        commands, "log", _log, "show the transactions and the other records that are still in the log",
        "  edgewater lake log --limit 20\n",
    )  # fmt: skip
    log.add_argument(
        "--limit", type=int, default=RECORDS_SHOWN_MAX, metavar="N", help="the last N records; default: %(default)s"
    )
    add_json_option(log)


def _tables(arguments: argparse.Namespace) -> None:
    snapshot = opened(arguments).snapshot()
    rows = [
        {
            "table": name,
            "rows": snapshot.rows(name),
            "files": len(snapshot.files(name)),
            "columns": len(snapshot.columns(name)),
            "version": snapshot.versions[name],
            "partials": any(column.fold for column in snapshot.columns(name)),
        }
        for name in snapshot.tables
    ]
    if arguments.json:
        print_json({**row, "transaction": snapshot.transaction} for row in rows)
        return
    if rows:
        print_table(rows, "")
    print(f"snapshot at transaction {snapshot.transaction}")


def _schema(arguments: argparse.Namespace) -> None:
    from lake.aggregate import is_mergeable
    from lake.meanings import meaning
    from lake.terminal import escaped

    snapshot = opened(arguments).snapshot()
    table = arguments.table.removesuffix(_PARTIALS)
    columns = snapshot.columns(table)
    mergeable = is_mergeable(columns)
    landed = {"device", "epoch", "seq", "row"} <= {column.name for column in columns}
    if arguments.table != table and not mergeable:
        snapshot.columns(arguments.table)  # says what there is
    rows: list[dict[str, Any]] = [
        {
            "column": column.name,
            "type": column.type,
            **({"fold": column.fold} if mergeable else {}),
            "meaning": meaning(table, column.name, landed),
        }
        for column in columns
    ]
    if arguments.json:
        print_json({"table": arguments.table, **row} for row in rows)
        return
    print_table(rows, "")
    if mergeable:
        keys = ", ".join(escaped(column.name) for column in columns if column.fold == "key")
        print(
            f"{table} is folded when it is read: one row for each {keys}; its partial rows are {table}{_PARTIALS}, "
            "which is also what plain Delta readers see"
        )
    if table not in snapshot.tables:
        print(f"{table} has no rows yet")


def _log(arguments: argparse.Namespace) -> None:
    rows = list(_records(opened(arguments).records()))
    shown = rows[max(0, len(rows) - max(0, arguments.limit)) :]
    if arguments.json:
        print_json(shown)
        return
    print_table(shown, "no records", whole=("record",))
    if len(shown) < len(rows):
        print(f"({len(shown):,} of {len(rows):,} records; --limit {len(rows)} shows all)")


def _records(records: list[tuple[Record, str | None]]) -> Iterator[dict[str, Any]]:
    for record, reason in records:
        yield {
            "number": record.number,
            "time": _time(record.at_us),
            "record": type(record.body).__name__.lower(),
            "what": _described(record.body),
            "writer": record.writer,
            "void": reason,
        }


def _time(at_us: int) -> str:
    try:
        return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    except (ValueError, OverflowError, OSError):
        return f"{at_us} us"


def _described(body: Body) -> str:
    from lake.transaction.records import Abort, Decision, Lease

    if isinstance(body, Lease):
        return "given back" if body.duration_ms == 0 else f"for {body.duration_ms / 1000:g} s, replaces {body.replaces}"
    if isinstance(body, Abort):
        return f"staging {body.staging}"
    if isinstance(body, Decision):
        parts = []
        for name, change in sorted(body.changes.items()):
            count = sum(int(file.stats.get("numRecords", 0)) for file in change.adds)
            parts.append(f"{name} +{count:,} rows" + (f" -{len(change.removes)} files" if change.removes else ""))
        parts += [f"{link.job}/{link.partition} to offset {link.offset}" for link in body.links]
        return ", ".join(parts) or "nothing"
    return f"snapshot through {body.through}"
