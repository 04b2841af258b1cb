"""`edgewater agent spool`: what waits in a spool, for people and as JSON.

**Delivery**: reads only, see `spool_view.py`. **Bounds**: as there.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.contract.errors import StopError
from edge_agent.contract.settings import load

from .agent_settings import AgentSettings

__all__ = ["add_spool_command"]

_DEPTH = 3
_UP_DIRECTORY = Path("edgewater-data")
"""Where `edgewater up` keeps everything, its agent's spool included."""


def add_spool_command(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `spool`."""
    parser = verbs.add_parser(
        "spool",
        help="show what waits on this device for the log",
        description="Show what waits in a spool for the log: by epoch and stream, with what was dropped or damaged. "
        "Reads only; an agent may run meanwhile.",
        epilog="examples:\n  edgewater agent spool\n  edgewater agent spool --dir edgewater-data --json\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dir", type=Path, default=None, metavar="DIR",
        help=f"folder of the spool, or one that has spools below it (default: the agent's; then {_UP_DIRECTORY})",
    )  # fmt: skip
    parser.add_argument("--config", type=Path, default=None, metavar="FILE.toml", help="settings file, section [agent]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # Only here, so that --dir works beside a settings file with a mistake in it.
    directory: Path = arguments.dir or load(AgentSettings, "agent", file=arguments.config).dir
    if arguments.dir is None and not directory.exists() and _UP_DIRECTORY.is_dir():
        directory = _UP_DIRECTORY
    from .spool_view import read_spool, spool_folders

    folders = spool_folders(directory, _DEPTH) if directory.is_dir() else [directory]
    if not folders:
        raise StopError(f"there is no spool in {directory}; give the folder that the agent has as --dir")
    views = [read_spool(folder) for folder in folders]
    if arguments.json:
        print(json.dumps({"spools": [{**asdict(view), "waits": view.waits} for view in views]}))
        return 0
    now_s = time.time()
    for view in views:
        print(f"spool {view.path} of device {view.device}: {'these wait' if view.waits else 'nothing waits'}")
        for epoch in view.epochs:
            if epoch.batches or epoch.skips:
                print(
                    f"  epoch {epoch.epoch}, made {_when(epoch.made_s * 1_000_000, now_s)}, priority {epoch.priority}: "
                    f"watermark {epoch.watermark}, last seq {epoch.last_seq}; {epoch.batches:,} batches, "
                    f"{epoch.rows:,} rows, {_size(epoch.bytes)}"
                )
                if epoch.oldest_row_us is not None:
                    print(f"    oldest batch: measured {_when(epoch.oldest_row_us, now_s)}")
                for stream in epoch.streams:
                    print(
                        f"    {stream.stream}: {stream.batches:,} batches, {stream.rows:,} rows, {_size(stream.bytes)}"
                    )
                for skip in epoch.skips:
                    rows = f", {skip.rows:,} rows" if skip.rows else ""
                    print(f"    seqs {skip.seq_first} to {skip.seq_last} will never come: {skip.reason}{rows}")
    return 0


def _when(time_us: int, now_s: float) -> str:
    try:
        at = datetime.fromtimestamp(time_us / 1e6, UTC)
    except (ValueError, OverflowError, OSError):
        return f"at {time_us} us"
    return f"{at:%Y-%m-%d %H:%M:%S} UTC ({_span(now_s - time_us / 1e6)})"


def _span(seconds: float) -> str:
    size = abs(seconds)
    text = f"{size:.0f} s"
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if size >= 2 * length:
            text = f"{size / length:.0f} {unit}"
            break
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def _size(count: int) -> str:
    return f"{count:,} bytes" if count < 10_000 else f"{count / 1024:,.1f} KiB"
