"""The command `edgewater <noun> <verb>`: looks up the noun, imports its module and no other, runs the verb.

**Delivery**: exit status 0 for success, 1 for an error (one line on standard error says which and what to do), 2 for a
command line that cannot be understood, 130 after Ctrl-C; a verb may define more.
**Bounds**: nothing but the wanted noun's module is imported, so that a device needs no cloud library.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge_agent.contract.errors import EdgewaterError

__all__ = ["NOUNS", "main"]


@dataclass(frozen=True, slots=True)
class Noun:
    """Where a noun's commands are: `function(parser)` in `module` adds them."""

    module: str
    function: str
    help: str


NOUNS = {
    "agent": Noun("edge_agent.agent_cli", "add_commands", "measure on this device and send"),
    "bridge": Noun("stream_jobs.cli", "add_bridge_commands", "from MQTT into the log"),
    "demo": Noun("deploy.demo_cli", "add_demo_command", "the whole chain on this machine, in a minute"),
    "functions": Noun("edge_agent.functions_cli", "add_commands", "write and check function files"),
    "kafka": Noun("deploy.cli", "add_kafka_commands", "Apache Kafka for a cluster"),
    "lake": Noun("lake.cli", "add_commands", "query and keep the tables"),
    "log": Noun("stream_jobs.cli", "add_log_commands", "the embedded log"),
    "mqtt": Noun("deploy.cli", "add_mqtt_commands", "the embedded MQTT broker"),
    "worker": Noun("stream_jobs.cli", "add_worker_commands", "from the log into the lake"),
}

_EXTRAS = {
    "amqtt": "embedded", "transitions": "embedded", "passlib": "embedded",
    "pyarrow": "lake", "deltalake": "lake", "duckdb": "lake",
    "kafka": "stream", "aiokafka": "stream", "faust": "stream", "mode": "stream", "crc32c": "stream",
    "waitress": "http",
}  # fmt: skip
"""Top-level module -> the extra that installs it."""


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("edgewater")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _nearest(noun: str) -> str:
    import difflib

    near = difflib.get_close_matches(noun, NOUNS, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(NOUNS)}"


def _parser() -> argparse.ArgumentParser:
    nouns = "\n".join(f"  {name:<9} {noun.help}" for name, noun in NOUNS.items())
    parser = argparse.ArgumentParser(
        prog="edgewater",
        description="Carries what functions on edge devices measure, exactly once, to tables that people query.",
        epilog=f"nouns:\n{nouns}\n\n`edgewater <noun> --help` shows the verbs.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"edgewater {_version()}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from, and more of the log")
    parser.add_argument("noun", metavar="noun")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _missing_package(error: ModuleNotFoundError) -> str | None:
    """What to install, when `error` is about a package that is not ours."""
    top = (error.name or "").partition(".")[0]
    if not top or top in ("edge_agent", "stream_jobs", "lake", "deploy"):
        return None
    extra = _EXTRAS.get(top, "all")
    return f"this command needs the package {top}, which is not installed: pip install 'edgewater[{extra}]'"


def _add_commands(noun: Noun, parser: argparse.ArgumentParser) -> None:
    add: Callable[[argparse.ArgumentParser], None] = getattr(importlib.import_module(noun.module), noun.function)
    add(parser)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: the process's); the exit status."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    noun = NOUNS.get(arguments.noun)
    if noun is None:
        print(f"edgewater: there is no noun {arguments.noun!r}; {_nearest(arguments.noun)}", file=sys.stderr)
        return 2
    try:
        parser = argparse.ArgumentParser(prog=f"edgewater {arguments.noun}", description=noun.help)
        _add_commands(noun, parser)
        chosen = parser.parse_args(arguments.rest)
        status: int = chosen.run(chosen)
    except (EdgewaterError, ModuleNotFoundError) as error:
        text = _missing_package(error) if isinstance(error, ModuleNotFoundError) else str(error)
        if text is None:
            raise
        if arguments.debug:
            traceback.print_exc()
        print(f"edgewater: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
