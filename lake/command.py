"""What the commands that read a lake have in common: `--dir`, output for people and for programs, ends of pipes.

**Delivery**: reads only; nothing is rolled forward. Exit status as `edgewater --help` has it; a reader of the output
that has seen enough is no error. **Bounds**: a terminal gets escaped text that fits into it; a pipe gets UTF-8.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

if TYPE_CHECKING:
    from lake.handle import Lake

__all__ = [
    "DIRECTORY",
    "EXIT_STATUSES",
    "add_command",
    "add_json_option",
    "binary_output",
    "ellipsis",
    "is_utf8",
    "opened",
    "print_json",
    "print_table",
    "terminal_width",
]

DIRECTORY = "edgewater-data"
EXIT_STATUSES = "exit status: 0 done, 1 it failed, 2 the command line cannot be understood, 130 ended by Ctrl-C\n"
_PIPE_CLOSED = 0


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], None],
    help: str,
    examples: str,
    more: str = "",
) -> argparse.ArgumentParser:
    """The parser of a verb that runs `run`; `more` explains, `examples` are shown as they are."""

    def guarded(arguments: argparse.Namespace) -> int:
        try:
            # A terminal that has no letter for something shows its number.
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
            run(arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            # Who reads our output has seen enough; nothing may be written any more, at exit either.
            sys.stdout = None
            return _PIPE_CLOSED
        return 0

    parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[:1].upper()}{help[1:]}." + (f"\n\n{more}" if more else ""),
        epilog=f"examples:\n{examples}\n{EXIT_STATUSES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dir", default=DIRECTORY, metavar="DIR",
        help="the lake, or the directory of `edgewater up` that has it; default: %(default)s",
    )  # fmt: skip
    parser.set_defaults(run=guarded)
    return parser


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object a line")


def opened(arguments: argparse.Namespace) -> Lake:
    """The lake of `--dir`. StopError: there is none."""
    import lake

    return lake.open(arguments.dir)


def is_utf8() -> bool:
    """Whether standard output takes every letter."""
    return (getattr(sys.stdout, "encoding", None) or "ascii").lower().replace("_", "-") in ("utf-8", "utf8")


def ellipsis() -> str:
    """What stands for text that was cut."""
    return "…" if is_utf8() else "~"


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None when it is none, so that nothing need fit."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def binary_output() -> BinaryIO:
    """Standard output for bytes."""
    sys.stdout.flush()
    return sys.stdout.buffer


def print_json(objects: Iterable[Mapping[str, Any]]) -> None:
    """One object a line, in UTF-8; what a terminal would obey is escaped by JSON itself."""
    output = binary_output()
    for each in objects:
        output.write(msgspec.json.encode(each) + b"\n")
    output.flush()


def print_table(
    rows: Iterable[Mapping[str, Any]],
    empty: str,
    *,
    rows_max: int = 10_000,
    hint: str = "--json gives all",
    whole: Collection[str] = (),
) -> None:
    """`rows` as a table for people, or the line `empty` when there are none; columns in `whole` are not cut to fit."""
    import pyarrow as pa

    from lake.result import Result

    found = list(rows)
    if not found:
        print(empty)
        return
    result = Result(pa.Table.from_pylist(found))
    print(result.render(rows_max, 200, width=terminal_width(), ellipsis=ellipsis(), hint=hint, whole=whole))
