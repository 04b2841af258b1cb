"""`edgewater bridge run`: options, signals, exit status.

**Delivery**: exit status 0 after SIGTERM or SIGINT, 1 where a person has to act (the last line says what).
**Bounds**: ends within `stop_timeout_s` and the log's timeout.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from pathlib import Path

from edge_agent.contract.errors import StopError
from edge_agent.contract.settings import add_options, flags_from, load

from .settings import BridgeSettings

__all__ = ["add_options_to", "main", "run"]


def add_options_to(parser: argparse.ArgumentParser) -> None:
    """Options of `edgewater bridge run`."""
    parser.add_argument(
        "--config", type=Path, default=None, metavar="FILE.toml", help="settings file, section [bridge]"
    )
    add_options(parser, BridgeSettings)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run one bridge until it is told to end; StopError when a person has to act."""
    from .service import BridgeService

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    flags = flags_from(arguments, BridgeSettings)
    service = BridgeService(load(BridgeSettings, "bridge", file=arguments.config, flags=flags))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    service.run()
    return 0


def main(arguments: list[str] | None = None) -> int:
    """`python -m stream_jobs.bridge`."""
    parser = argparse.ArgumentParser(prog="edgewater bridge run", description="carry batches from MQTT into the log")
    add_options_to(parser)
    try:
        return run(parser.parse_args(arguments))
    except StopError as error:
        print(f"edgewater: {error}", file=sys.stderr)
        return 1
