"""`edgewater lake ...`: query a lake, list its tables, show its transactions.

**Delivery**: reads only; nothing is rolled forward. **Bounds**: see `lake.result` for what a terminal shows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edge_agent.contract.errors import EdgewaterError

if TYPE_CHECKING:
    from lake.result import Result
    from lake.transaction.records import Body

__all__ = ["add_commands"]

_PIPE_CLOSED = 0
_FAILED = 1


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add `query`, `tables` and `log` below `edgewater lake`."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    query = _command(commands, "query", _query, "answer one SELECT over all tables, as of one transaction")
    query.add_argument("sql", metavar="SQL", help="one SELECT statement in DuckDB's SQL")
    query.add_argument("--format", choices=("table", "csv", "json"), default="table", help="default: %(default)s")
    query.add_argument("--at", type=int, metavar="N", help="the first snapshot that holds transaction N; default: last")
    _command(commands, "tables", _tables, "list the tables with their versions, files and rows")
    _command(commands, "log", _log, "show the transactions and the other records that are still in the log")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], None],
    help: str,
) -> argparse.ArgumentParser:
    def guarded(arguments: argparse.Namespace) -> int:
        from lake.terminal import escaped

        try:
            run(arguments)
        except EdgewaterError as error:
            lines = str(error).splitlines() or [type(error).__name__]
            print("edgewater lake " + name + ": " + "\n".join(map(escaped, lines)), file=sys.stderr)
            return _FAILED
        except BrokenPipeError:
            # Who reads our output has seen enough; nothing may be written any more, at exit either.
            sys.stdout = None
            return _PIPE_CLOSED
        return 0

    parser = commands.add_parser(name, help=help, description=help)
    parser.add_argument("--dir", required=True, metavar="DIR", help="the lake's directory")
    parser.set_defaults(run=guarded)
    return parser


def _query(arguments: argparse.Namespace) -> None:
    import lake

    result = lake.open(arguments.dir).snapshot(arguments.at).query(arguments.sql)
    if arguments.format == "table":
        print(result.render())
    elif arguments.format == "json":
        result.write_json(sys.stdout)
    elif sys.stdout.isatty():
        from lake.terminal import escaped

        print("\n".join(escaped(line) for line in result.csv().splitlines()))
    else:
        result.write_csv(sys.stdout)
    sys.stdout.flush()


def _tables(arguments: argparse.Namespace) -> None:
    import lake

    snapshot = lake.open(arguments.dir).snapshot()
    rows = [
        {
            "table": name,
            "version": snapshot.versions[name],
            "files": len(snapshot.files(name)),
            "rows": snapshot.rows(name),
            "partial": any(column.fold for column in snapshot.columns(name)),
        }
        for name in snapshot.tables
    ]
    if rows:
        print(_result(rows).render())
    print(f"snapshot at transaction {snapshot.transaction}")


def _log(arguments: argparse.Namespace) -> None:
    import lake

    rows = [
        {
            "number": record.number,
            "time": _time(record.at_us),
            "record": _kind(record.body),
            "what": _described(record.body),
            "writer": record.writer,
            "void": reason,
        }
        for record, reason in lake.open(arguments.dir).records()
    ]
    if rows:
        print(_result(rows).render(rows_max=10_000))
    else:
        print("no records")


def _result(rows: Sequence[Mapping[str, object]]) -> Result:
    import pyarrow as pa

    from lake.result import Result

    return Result(pa.Table.from_pylist(list(rows)))


def _time(at_us: int) -> str:
    try:
        return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
    except (ValueError, OverflowError, OSError):
        return f"{at_us} us"


def _kind(body: Body) -> str:
    return type(body).__name__.lower()


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
