"""`edgewater lake status`: until when the lake is complete for each device, and what is missing.

**Delivery**: reads only. **Bounds**: see `lake.status`; a terminal shows `GAPS_SHOWN_MAX` gaps, `--json` all of those.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lake.command import add_command, opened, print_json, print_table

if TYPE_CHECKING:
    from lake.status import DeviceStatus, LakeStatus

__all__ = ["add_status_command"]

GAPS_SHOWN_MAX = 20

_MORE = """\
COMPLETE UNTIL is the time, by the device's clock, of the newest reading that has landed. The lake takes a device's
batches in order: every row that the device accepted before that reading, in the same opening of its spool, is in
the lake - as a row, as a dead letter (`edgewater dead-letters list`), or as one of the gaps listed here, which will
never come: dropped by a full spool's policy, damaged on the device's disk, or lost. What still waits on the device
is not known here: `edgewater status` shows it. Batches are those that have landed or are gaps, of the epochs that
the lake still remembers."""


def add_status_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `status`."""
    examples = (
        "  edgewater lake status\n  edgewater lake status --device pi4\n  edgewater lake status --json | jq .devices\n"
    )
    parser = add_command(
        commands, "status", _status, "say until when data is complete for each device, and what is missing",
        examples, _MORE,
    )  # fmt: skip
    parser.add_argument("--device", metavar="NAME", help="only this device")
    parser.add_argument("--json", action="store_true", help="for programs: one JSON object, epochs and gaps included")


def _status(arguments: argparse.Namespace) -> None:
    from lake.status import lake_status

    status = lake_status(opened(arguments))
    devices, gaps = status.devices, status.gaps
    if arguments.device is not None:
        devices = [_named(status, arguments.device)]
        gaps = [gap for gap in gaps if gap["device"] == arguments.device]
    if arguments.json:
        print_json([_object(status, devices, gaps)])
        return
    rows = [
        {
            "device": each.device,
            "complete until": _time(each.complete_until),
            "received": _received(each, time.time()),
            "batches": each.batches,
            "missing": _missing(each),
            "dead letters": each.dead_letters,
        }
        for each in devices
    ]  # fmt: skip
    print_table(rows, "no device has landed anything yet", whole=("device", "complete until", "received"))
    if gaps:
        print("\ngaps, newest first:")
        print_table([_gap(gap) for gap in gaps[:GAPS_SHOWN_MAX]], "", whole=("device", "reason", "rows", "received"))
        if arguments.device is None and status.gaps_total > GAPS_SHOWN_MAX:
            print(f"({GAPS_SHOWN_MAX} of {status.gaps_total:,} gaps; the table skipped has all)")
    print(_transactions(status))


def _named(status: LakeStatus, name: str) -> DeviceStatus:
    from edge_agent.contract.errors import RejectError, quoted

    found = next((each for each in status.devices if each.device == name), None)
    if found is None:
        import difflib

        names = [each.device for each in status.devices]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it knows {', '.join(names[:20]) or 'no device yet'}"
        raise RejectError(f"nothing of a device {quoted(name)} is in this lake; {hint}")
    return found


def _received(device: DeviceStatus, now: float) -> str:
    if device.received_at is not None:
        return _age(now - device.received_at.timestamp())
    return "" if device.received_before is None else f"over {_age(now - device.received_before.timestamp())}"


def _missing(device: DeviceStatus) -> str:
    return ", ".join(f"{rows:,} {why}" if rows else why for why, rows in device.missing_rows.items()) or "none"


def _time(moment: datetime | None) -> str:
    if moment is None:
        return ""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _gap(gap: dict[str, Any]) -> dict[str, Any]:
    first, last = gap["seq_first"], gap["seq_last"]
    return {
        "device": gap["device"],
        "reason": gap["reason"],
        "rows": "unknown" if gap["rows"] is None else f"{gap['rows']:,}",
        "stream": gap["stream"] or "unknown",
        "batches": str(first) if first == last else f"{first} to {last}",
        "received": _time(gap["received_at"]),
        "epoch": gap["epoch"],
    }


def _transactions(status: LakeStatus) -> str:
    if not status.transaction or status.transaction_at_us is None:
        return "no transaction yet"
    age = _age(time.time() - status.transaction_at_us / 1e6)
    waiting = (
        f"{status.waiting} decided and not visible yet (visible: up to {status.published}); is a worker running?"
        if status.waiting
        else "all of them visible"
    )
    return f"last transaction {status.transaction}, {age}; {waiting}"


def _age(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def _object(status: LakeStatus, devices: list[DeviceStatus], gaps: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "lake": status.location,
        "transaction": status.transaction,
        "transaction_at": None if status.transaction_at_us is None else status.transaction_at_us / 1e6,
        "transaction_age_s": None if status.transaction_at_us is None else time.time() - status.transaction_at_us / 1e6,
        "published": status.published,
        "waiting": status.waiting,
        "devices": devices,
        "gaps": gaps,
        "gaps_total": status.gaps_total,
    }
