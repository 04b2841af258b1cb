"""The command `edgewater <noun> <verb>`: looks up the noun, imports its module and no other, runs the verb.

**Delivery**: the exit status is one of EXIT_STATUSES below; an error is one message on standard error that says what to
do next, and with `--debug` (before or after the noun) where it came from.
**Bounds**: nothing but the wanted noun's module is imported, so that a device needs no cloud library.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .cli_errors import EXIT_FAULT, explained, printable
from .cli_output import STANDARD_OUTPUT, give_up_output, name_output
from .cli_parser import EXIT_USAGE, Parser, nearest

__all__ = ["GROUPS", "NOUNS", "main", "noun_parser", "top_parser"]


@dataclass(frozen=True, slots=True)
class Noun:
    """Where a noun's commands are: `function(parser)` in `module` adds them."""

    module: str
    function: str
    help: str


NOUNS = {
    "agent": Noun("edge_agent.agent_cli", "add_commands", "measure on this device and send"),
    "bridge": Noun("stream_jobs.cli", "add_bridge_commands", "from MQTT into the log"),
    "completion": Noun("edge_agent.completion", "add_completion_command", "completion for bash, zsh or fish"),
    "dead-letters": Noun("lake.dead_letters_cli", "add_dead_letter_commands", "what could not land, and why"),
    "demo": Noun("deploy.demo_cli", "add_demo_command", "the whole chain on this machine, in a minute"),
    "functions": Noun("edge_agent.functions_cli", "add_commands", "write and check function files"),
    "jobs": Noun("stream_jobs.jobs_cli", "add_jobs_commands", "write, check and run steps from rows to rows"),
    "kafka": Noun("deploy.cli", "add_kafka_commands", "Apache Kafka for a cluster"),
    "lake": Noun("lake.cli", "add_commands", "query and keep the tables"),
    "log": Noun("stream_jobs.cli", "add_log_commands", "the embedded log"),
    "mapping": Noun("stream_jobs.mapping.command", "add_commands", "foreign devices: their MQTT messages as rows"),
    "mqtt": Noun("deploy.cli", "add_mqtt_commands", "the embedded MQTT broker"),
    "settings": Noun("edge_agent.settings_cli", "add_settings_command", "every setting, as a commented file"),
    "status": Noun("deploy.status_cli", "add_status_command", "how a running stack is"),
    "up": Noun("deploy.up_cli", "add_up_command", "the whole stack on this machine, until Ctrl-C"),
    "worker": Noun("stream_jobs.cli", "add_worker_commands", "from the log into the lake"),
}

GROUPS = {
    "start here": ("demo", "up", "status"),
    "on devices": ("agent", "functions"),
    "streams": ("jobs", "mapping", "mappings"),
    "queries": ("lake", "dead-letters"),
    "parts for clusters": ("mqtt", "log", "bridge", "worker", "kafka"),
}
"""What `edgewater --help` shows together, in the order in which a newcomer needs it; the rest comes last."""

EXIT_STATUSES = """exit status:
  0    done
  1    it failed; the message says what to do
  2    the command line cannot be understood
  3    agent run: batches wait in the spool for the next start
  70   a fault of Edgewater; please report it
  130  ended by Ctrl-C
"""

_PURPOSE = "Carries what functions on edge devices measure, exactly once, to tables that people query."
_EXAMPLES = """examples:
  edgewater demo                                        see everything at work, in a minute
  edgewater agent run boiler.py --mqtt mqtt://10.0.0.5  run a function on this device and send its rows
  edgewater lake query "SELECT count(*) FROM readings" --dir lake
  edgewater help agent run                              the same as edgewater agent run --help
"""
_EXIT_INTERRUPTED = 130


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("edgewater")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _grouped() -> str:
    named = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "more": tuple(name for name in NOUNS if name not in named)}
    lines = []
    for title, names in groups.items():
        found = [name for name in names if name in NOUNS]
        lines += [f"{title}:", *(f"  {name:<13}{NOUNS[name].help}" for name in found), ""] if found else []
    return "\n".join(lines)


def top_parser() -> Parser:
    """Of what stands before the noun."""
    parser = Parser(
        prog="edgewater",
        usage="edgewater [--version] [--debug] NOUN [VERB] [options]",
        description=f"{_PURPOSE}\n\n{_grouped()}".rstrip(),
        epilog=f"{_EXAMPLES}\n{EXIT_STATUSES}\n`edgewater NOUN --help` shows more of each.",
    )
    parser.add_argument("--version", action="version", version=f"edgewater {_version()}")
    return parser


def _add_commands(noun: Noun, parser: Parser) -> None:
    add: Callable[[Parser], None] = getattr(importlib.import_module(noun.module), noun.function)
    add(parser)


def noun_parser(name: str) -> Parser:
    """The parser of a noun with its verbs; imports the noun's module."""
    parser = Parser(prog=f"edgewater {name}", description=NOUNS[name].help)
    _add_commands(NOUNS[name], parser)
    return parser


def _unknown_noun(name: str) -> str:
    near = nearest(name, [*NOUNS, "help"])
    hint = f"did you mean {near}? " if near else f"there are {', '.join(NOUNS)}; "
    return f"there is no noun {name[:80]!r}; {hint}`edgewater --help` shows more"


def _configure_logging(debug: bool) -> None:
    """For people on a terminal: time, level, text. For files and --debug: date, and who says it."""
    short = sys.stderr.isatty() and not debug
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s"
        if short
        else "%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S" if short else None,
        stream=sys.stderr,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: the process's); the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    leading = next((index for index, word in enumerate(words) if not word.startswith("-")), len(words))
    top = top_parser()
    top.parse_args(words[:leading])
    name, rest = (words[leading], words[leading + 1 :]) if leading < len(words) else ("", [])
    if not name:
        top.print_help(sys.stderr)
        return EXIT_USAGE
    if name == "help":
        return main([*rest, "--help"])
    if name not in NOUNS:
        _say(_unknown_noun(name))
        return EXIT_USAGE
    debug = "--debug" in words
    _configure_logging(debug)
    name_output()
    try:
        chosen = noun_parser(name).parse_args(rest)
        chosen.debug = debug
        status: int = chosen.run(chosen)
        _flush()
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it is, a person gets one message, and with --debug all of it
        return _failed(error, debug)
    return status


def _flush() -> None:
    """Now, while an error can still be told, not when the interpreter ends."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _failed(error: Exception, debug: bool) -> int:
    if isinstance(error, OSError) and error.filename == STANDARD_OUTPUT:
        give_up_output()
        if error.errno == errno.EPIPE:
            # Who reads our output has seen enough.
            return 0
    if debug:
        traceback.print_exception(error)
    found = explained(error)
    if found is not None:
        _say(found[0])
        return found[1]
    hint = "the traceback is above: please report it" if debug else "run again with --debug and report it"
    _say(f"unexpected error: {type(error).__name__}: {error}; this is a fault of Edgewater: {hint}")
    return EXIT_FAULT


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(f"edgewater: {printable(text)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
