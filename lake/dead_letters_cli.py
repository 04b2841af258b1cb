"""`edgewater dead-letters list|show`: what could not land, why, and what it was.

**Delivery**: reads only. **Bounds**: `list` shows `--limit`; `show` part of a large payload, unless `--raw` asks for
all.
"""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_agent.contract.errors import RejectError, quoted
from lake.command import add_command, add_json_option, binary_output, opened, print_json, print_table

__all__ = ["add_dead_letter_commands"]

LIMIT = 20

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)")
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}
_IDS = """\
An id is where it was: topic/partition/offset in the log, or device/epoch/seq for what a device put aside itself;
#2, #3 ... where several share a place."""


def add_dead_letter_commands(parser: argparse.ArgumentParser) -> None:
    """Add `list` and `show` below `edgewater dead-letters`."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    found = add_command(
        commands, "list", _list, "list what could not land, newest first",
        "  edgewater dead-letters list\n"
        "  edgewater dead-letters list --device pi4 --since 1h\n"
        "  edgewater dead-letters list --job alerts --since 2026-01-01T00:00Z --json\n",
        _IDS,
    )  # fmt: skip
    found.add_argument("--device", metavar="NAME", help="only of this device")
    found.add_argument("--job", metavar="NAME", help="only those that this job put aside")
    found.add_argument("--since", metavar="TIME", help="only from then on: 30min, 2h, 7d ago, or 2026-01-01T00:00Z")
    found.add_argument("--limit", type=int, default=LIMIT, metavar="N", help="the newest N; default: %(default)s")
    add_json_option(found)
    show = add_command(
        commands, "show", _show, "show all of one: where it was, the whole reason, the payload",
        "  edgewater dead-letters show edgewater.batches/0/1234\n"
        "  edgewater dead-letters show edgewater.batches/0/1234 --raw > payload\n",
        _IDS,
    )  # fmt: skip
    show.add_argument("id", metavar="ID", help="from `edgewater dead-letters list`")
    shape = show.add_mutually_exclusive_group()
    shape.add_argument(
        "--raw", action="store_true", help="the payload's bytes, into a file or a pipe, and nothing else"
    )
    shape.add_argument("--json", action="store_true", help="for programs: one JSON object; payload in base64")


def _list(arguments: argparse.Namespace) -> None:
    from lake.dead_letters import Wanted, dead_letters

    since = None if arguments.since is None else _since(arguments.since, datetime.now(UTC))
    wanted = Wanted(arguments.device, arguments.job, since)
    letters, total = dead_letters(opened(arguments).snapshot(), wanted, arguments.limit)
    if arguments.json:
        print_json(letters)
        return
    rows = [
        {
            "id": letter["id"],
            "time": _time(letter["received_at"]),
            "device": letter["device"],
            "job": letter["job"],
            # The log's own topic is in the id.
            "place": None if letter["offset"] is not None else letter["topic"],
            "reason": (letter["reason"] or "").strip().partition("\n")[0],
        }
        for letter in letters
    ]
    used = [name for name in ("id", "time", "reason", "device", "job", "place") if any(row[name] for row in rows)]
    print_table([{name: row[name] for name in used} for row in rows], _nothing(arguments), whole=("id", "time"))
    if total > len(rows):
        print(f"({len(rows):,} of {total:,}; --limit, --since, --device and --job choose)")


def _nothing(arguments: argparse.Namespace) -> str:
    chosen = any(value is not None for value in (arguments.device, arguments.job, arguments.since))
    return "no dead letters of these" if chosen else "no dead letters: all that came has landed"


def _show(arguments: argparse.Namespace) -> None:
    from lake.dead_letters import dead_letter, payload_lines
    from lake.terminal import escaped

    if arguments.raw and sys.stdout.isatty():
        raise RejectError("--raw writes bytes that a terminal may obey; send them into a file or a pipe")
    letter = dead_letter(opened(arguments).snapshot(), arguments.id)
    payload = letter["payload"]
    if arguments.raw:
        output = binary_output()
        output.write(payload or b"")
        output.flush()
        return
    if arguments.json:
        print_json([letter])
        return
    for name in ("id", "received_at", "device", "job", "topic", "partition", "offset", "epoch", "seq"):
        if letter[name] is not None:
            value = _time(letter[name]) if name == "received_at" else str(letter[name])
            print(f"{name.replace('_at', ''):<10}{escaped(value)}")
    print("\nreason")
    for line in (letter["reason"] or "(none)").splitlines():
        print(f"  {escaped(line.expandtabs())}")
    print(f"\npayload, {len(payload or b''):,} bytes")
    for line in payload_lines(payload):
        print(f"  {line}")


def _since(text: str, now: datetime) -> datetime:
    """A moment from `2h` (before `now`) or ISO 8601. RejectError."""
    from lake.snapshot import moment

    ago = _AGO.fullmatch(text.strip().removesuffix(" ago"))
    if ago is None:
        try:
            return moment(text)
        except RejectError as error:
            raise RejectError(f"--since {quoted(text)}: {error}; or how long ago, as 30min, 2h or 7d") from None
    try:
        return now - timedelta(seconds=float(ago[1]) * _SECONDS[ago[2]])
    except OverflowError:
        raise RejectError(f"--since {quoted(text)} is before the calendar begins; give less, or leave it out") from None


def _time(moment: Any) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}Z"
