"""`edgewater up`: the options; the work is in up.py.

**Delivery**: see up.py. **Bounds**: ports are 0 to 65535.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .directory import DIRECTORY_DEFAULT

__all__ = ["add_up_command"]

_EXAMPLES = """\
examples:
  edgewater up
  edgewater up --functions boiler.py hello_flask.py --jobs alarms.py
  edgewater up --dir site-7 --config edgewater.toml --host 0.0.0.0
"""


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; use 0 (any free one) to 65535")
    return int(text)


def add_up_command(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgewater up` to its parser."""
    parser.description = (
        "Runs the whole stack on this machine in the foreground until Ctrl-C: MQTT broker, log, bridge, workers, and "
        "with --functions an agent. Started again on the same directory it goes on where it stopped, on the same "
        "ports. Needs: pip install 'edgewater[all]'. Exit status: 0 after Ctrl-C or SIGTERM; 1 when a part cannot run."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--dir", type=Path, default=DIRECTORY_DEFAULT, help="directory of everything kept (default: %(default)s)"
    )
    _add_files(parser, "--functions", "FILE.py", "function files, run by an agent on this machine")
    _add_files(parser, "--jobs", "FILE.py", "job files, each run by a worker of its own beside the default one")
    parser.add_argument(
        "--config", type=Path, default=None, metavar="FILE.toml", help="settings file, given to all parts"
    )
    parser.add_argument("--device", default="", metavar="NAME", help="the agent's device (default: this host's name)")
    parser.add_argument(
        "--host", default="", metavar="ADDRESS", help="address for MQTT and HTTP to listen at (default: 127.0.0.1)"
    )
    for name, usual in (("mqtt", 1883), ("http", 8080)):
        parser.add_argument(
            f"--{name}-port", type=_port, default=None, metavar="PORT",
            help=f"default: the one of the last start, else {usual} if it is free, else any",
        )  # fmt: skip
    parser.set_defaults(run=_run)


def _add_files(parser: argparse.ArgumentParser, option: str, metavar: str, help: str) -> None:
    parser.add_argument(option, type=Path, nargs="+", action="extend", default=[], metavar=metavar, help=help)


def _run(arguments: argparse.Namespace) -> int:
    from .up import Up, UpOptions

    options = UpOptions(
        directory=arguments.dir,
        functions=tuple(arguments.functions),
        jobs=tuple(arguments.jobs),
        config=arguments.config,
        device=arguments.device,
        host=arguments.host,
        mqtt_port=arguments.mqtt_port,
        http_port=arguments.http_port,
    )
    return Up(options).run()
