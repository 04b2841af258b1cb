"""Sub-commands of `edgewater` that run the stream side; what they run is imported only when it runs.

**Delivery** and **Bounds**: those of the processes.
"""

from __future__ import annotations

import argparse

__all__ = ["add_bridge_commands", "add_log_commands", "add_worker_commands"]


def add_log_commands(parser: argparse.ArgumentParser) -> None:
    """`edgewater log ...`."""
    from .log.command import add_run_options

    commands = parser.add_subparsers(dest="log_command", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run the embedded log: one node that speaks the Kafka protocol",
        description="Run the embedded log in the foreground until SIGTERM or Ctrl-C: one node, to which every client "
        "of Apache Kafka can speak.",
        epilog="examples:\n  edgewater log run --dir log-data\n  edgewater log run --dir log-data --port 9093 "
        "--bytes-max 20GiB\n",
    )
    add_run_options(run)


def add_bridge_commands(parser: argparse.ArgumentParser) -> None:
    """`edgewater bridge ...`."""
    from .bridge.command import add_options_to

    commands = parser.add_subparsers(dest="bridge_command", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run one bridge: batches from MQTT into the log",
        description="Run one bridge in the foreground until SIGTERM or Ctrl-C: it carries what devices send over MQTT "
        "into the log, and tells them what is durable.",
        epilog="examples:\n  edgewater bridge run --mqtt-url mqtt://127.0.0.1:1883 --bootstrap-servers 127.0.0.1:9092\n"
        "  edgewater bridge run --name bridge-2 --shards 128-255 --config edgewater.toml\n",
    )
    add_options_to(run)


def add_worker_commands(parser: argparse.ArgumentParser) -> None:
    """`edgewater worker ...`."""
    from .worker.command import add_options_to

    commands = parser.add_subparsers(dest="worker_command", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run one worker: batches from the log into the lake",
        description="Run one worker in the foreground until SIGTERM or Ctrl-C: it lands what is in the log in the "
        "tables of the lake.",
        epilog="examples:\n  edgewater worker run --bootstrap-servers 127.0.0.1:9092 --lake lake\n"
        "  edgewater worker run --name worker-2 --config edgewater.toml\n",
    )
    add_options_to(run)
