"""`edgewater agent`: the commands of the noun.

**Delivery**: see `agent.py`. **Bounds**: the settings' own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_agent.contract.settings import add_options, flags_from, load

from .agent_settings import AgentSettings
from .replay.command import add_replay_command
from .spool_cli import add_spool_command

__all__ = ["add_commands"]


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add `run`, `replay`, `spool`."""
    verbs = parser.add_subparsers(metavar="verb", required=True)
    run = verbs.add_parser(
        "run",
        help="run functions on this device and send what they measure",
        description="Run functions on this device, each in a process of its own, and send what they measure. "
        "Without files: the built-in function `host`, which measures this machine. Exit status: 0; 1 when it "
        "cannot go on; 3 when batches remain after --drain-timeout-s (they go with the next start).",
        epilog="examples:\n  edgewater agent run boiler.py --device pump-7 --mqtt mqtt://10.0.0.5\n"
        "  edgewater agent run --config edgewater.toml\n",
    )
    run.add_argument("files", nargs="*", metavar="FILE.py", help="function files")
    run.add_argument("--config", type=Path, default=None, metavar="FILE.toml", help="settings file, section [agent]")
    add_options(run, AgentSettings)
    run.add_argument("--mqtt", dest="mqtt_urls", default=argparse.SUPPRESS, metavar="STR", help="short for --mqtt-urls")
    run.set_defaults(run=_run)
    add_replay_command(verbs)
    add_spool_command(verbs)


def _run(arguments: argparse.Namespace) -> int:
    settings = load(AgentSettings, "agent", file=arguments.config, flags=flags_from(arguments, AgentSettings))
    from .agent import Agent

    return Agent(settings, arguments.files).run()
