"""The command line of the embedded log; imports the log itself only when it runs.

**Delivery** and **Bounds**: see `server.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from edge_agent.contract.settings import add_options, flags_from, load

from .settings import LogSettings

__all__ = ["add_run_options"]


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Options of all settings, `--config`, and what to run."""
    parser.add_argument("--config", type=Path, default=None, metavar="FILE.toml", help="settings file, section [log]")
    add_options(parser, LogSettings)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from . import server

    # Where `edgewater` has not done so, as for python -m stream_jobs.log.
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = load(LogSettings, "log", file=arguments.config, flags=flags_from(arguments, LogSettings))
    try:
        return server.run(settings)
    except OSError as error:
        # What was written to an open file says no path: it is one of the log's.
        if error.filename is None:
            error.filename = settings.dir
        raise
