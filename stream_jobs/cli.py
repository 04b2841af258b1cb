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
    add_run_options(commands.add_parser("run", help="run the embedded log: one node that speaks the Kafka protocol"))


def add_bridge_commands(parser: argparse.ArgumentParser) -> None:
    """`edgewater bridge ...`."""
    from .bridge.command import add_options_to

    commands = parser.add_subparsers(dest="bridge_command", metavar="COMMAND", required=True)
    add_options_to(commands.add_parser("run", help="run one bridge: batches from MQTT into the log"))


def add_worker_commands(parser: argparse.ArgumentParser) -> None:
    """`edgewater worker ...`."""
    from .worker.command import add_options_to

    commands = parser.add_subparsers(dest="worker_command", metavar="COMMAND", required=True)
    add_options_to(commands.add_parser("run", help="run one worker: batches from the log into the lake"))
