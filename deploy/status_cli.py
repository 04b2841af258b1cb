"""`edgewater status`: how a running stack is, from another terminal.

**Delivery**: reads only. Exit status 0 when all is well; 1 when nothing runs there, or a part is down, stale or does
not work. **Bounds**: two looks SAMPLE_S apart; status files larger than STATUS_BYTES_MAX are not read.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.contract.errors import EdgewaterError, StopError
from edge_agent.contract.status import STATUS_BYTES_MAX

from .directory import DIRECTORY_DEFAULT
from .processes import is_alive, memory_bytes
from .status import Observed, observe

__all__ = ["add_status_command", "look"]

SAMPLE_S = 1.1
WATCH_INTERVAL_S = 2.0
_FILES_MAX = 1000
_EXAMPLES = """\
examples:
  edgewater status
  edgewater status --dir site-7 --watch
  edgewater status --json > status.json
"""


def add_status_command(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edgewater status` to its parser."""
    parser.description = (
        "Shows how the stack of `edgewater up` is: its processes, rates, lag, the last transaction, alarms, and each "
        "device's last message and backlog. Exit status: 0 when all is well; 1 when nothing runs, or a part is down."
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "--dir", type=Path, default=DIRECTORY_DEFAULT, help="the stack's directory (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print all of it as one JSON document")
    parser.add_argument("--watch", action="store_true", help="go on until Ctrl-C, every 2 s")
    parser.set_defaults(run=_run)


def _read(path: Path) -> dict[str, Any] | None:
    """A status file, or None when it is none (any more)."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(STATUS_BYTES_MAX + 1))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _time(file: dict[str, Any]) -> float:
    at = file.get("at")
    return at if isinstance(at, float) else 0.0


def look(directory: Path, lake: Callable[[], dict[str, Any]]) -> Observed:
    """What the parts in `directory` say now; StopError when there is no stack in it."""
    run_dir = directory / "run"
    if not run_dir.is_dir():
        why = "does not exist" if not directory.exists() else "holds no stack (it has no run/)"
        raise StopError(f"the directory {directory} {why}; start one: edgewater up --dir {directory}")
    files = {
        path.stem: found for path in sorted(run_dir.glob("*.json"))[:_FILES_MAX] if (found := _read(path)) is not None
    }
    pids = {name: file["pid"] for name, file in files.items() if type(file.get("pid")) is int and file["pid"] > 0}
    alive = {name: is_alive(pid, _time(files[name])) for name, pid in pids.items()}
    return Observed(
        str(directory),
        time.time(),
        files,
        alive,
        {name: memory_bytes(pids[name]) if lives else None for name, lives in alive.items()},
        lake(),
    )


class _Lake:
    """The lake's last transaction and dead letters; opened once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: Any = None

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {"directory": str(self._directory)}
        try:
            import lake

            self._open = self._open or lake.open(self._directory)
            snapshot = self._open.snapshot()
            decided = [
                record for record, void in self._open.records() if void is None and hasattr(record.body, "links")
            ]
            at = next(
                (record.at_us / 1e6 for record in reversed(decided) if record.number <= snapshot.transaction), None
            )
            letters = snapshot.rows("dead_letters") if "dead_letters" in snapshot.tables else 0
            return found | {"transaction": snapshot.transaction, "transaction_at": at, "dead_letters": letters}
        except (EdgewaterError, ModuleNotFoundError, OSError) as error:
            return found | {"error": str(error)}


def _run(arguments: argparse.Namespace) -> int:
    lake = _Lake(arguments.dir / "lake")
    before = look(arguments.dir, dict)
    if any(before.alive.values()):
        time.sleep(SAMPLE_S)
    while True:
        now = look(arguments.dir, lake)
        document = observe(now, before)
        _show(document, as_json=arguments.json, again=arguments.watch)
        if not arguments.watch:
            return 0 if document["ok"] else 1
        before = now
        time.sleep(WATCH_INTERVAL_S)


def _show(document: dict[str, Any], *, as_json: bool, again: bool) -> None:
    terminal = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    if as_json:
        text = json.dumps(document, indent=None if again else 2, allow_nan=False)
    else:
        from .status_view import View

        colour = terminal and "NO_COLOR" not in os.environ
        text = View(document, colour, shutil.get_terminal_size().columns if terminal else None).render()
        if again and terminal:
            text = "\x1b[H\x1b[2J" + text
        elif again:
            text += "\n"
    print(text, flush=True)
