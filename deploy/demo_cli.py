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
    seconds = float(text)
    if not 5 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text} seconds; use 5 to 3600")
    return seconds


def add_demo_command(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgewater demo` to its parser."""
    parser.description = (
        "Starts the whole embedded stack and an agent on this machine, shows readings on their way for a while, "
        "then proves that each accepted row is in the lake exactly once. Needs: pip install 'edgewater[all]'."
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
