"""`edgewater demo`: the options; the work is in demo.py.

**Delivery**: see demo.py. **Bounds**: 5 to 3600 seconds.
"""

from __future__ import annotations

import argparse
import signal
import types
from pathlib import Path

__all__ = ["add_demo_command"]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 5 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; use 5 to 3600 seconds")
    return seconds


def add_demo_command(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgewater demo` to its parser."""
    parser.description = (
        "Starts the whole embedded stack and an agent on this machine, shows readings on their way for a while, "
        "then proves that each accepted row is in the lake exactly once. Needs: pip install 'edgewater[all]'."
    )
    parser.epilog = (
        "examples:\n"
        "  edgewater demo                                 for 30 seconds, in a temporary directory\n"
        "  edgewater demo --keep-running --dir demo-data  until Ctrl-C; the data stays in demo-data\n"
    )
    parser.add_argument("--seconds", type=_seconds, default=30.0, help="how long to measure (default: 30)")
    parser.add_argument("--dir", type=Path, default=None, help="data directory (default: a new temporary one)")
    parser.add_argument("--keep-running", action="store_true", help="go on until Ctrl-C instead of --seconds")
    parser.set_defaults(run=_run)


def _terminate(_signal: int, _frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(arguments: argparse.Namespace) -> int:
    from .demo import Demo

    # SIGTERM ends the demo the way Ctrl-C does: in order, with nothing left behind. A shell starts background jobs with
    # SIGINT ignored, which children would inherit.
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return Demo(arguments.dir, None if arguments.keep_running else arguments.seconds).run()
