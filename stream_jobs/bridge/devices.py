"""What the bridge knows of each device, for people: when it was last heard, what it sent, what it last said of itself.

**Delivery**: a hint, gone with the process; nothing is decided by it. Reports may be lost, doubled or late.
**Bounds**: `devices_max` devices (the longest unheard is forgotten), some 400 bytes each and what its problem needs; a
status of at most SHOWN_MAX devices and SHOWN_BYTES_MAX bytes: those with a problem first, then those with a
backlog, then those heard last. One look-up a message; a status walks over those it shows, not over all.
"""

from __future__ import annotations

import itertools
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from edge_agent.contract.reports import Report
from edge_agent.contract.status import STATUS_BYTES_MAX

__all__ = ["SHOWN_BYTES_MAX", "SHOWN_MAX", "Devices"]

SHOWN_MAX = 500
SHOWN_BYTES_MAX = STATUS_BYTES_MAX - 16 * 1024
"""Of the devices' entries; the rest of the status file has room beside them."""


@dataclass(slots=True)
class _Device:
    name: str
    seen_us: int
    rows: int = 0
    last_seq: int = 0
    report: Report | None = None
    reported_us: int = 0

    @property
    def trouble(self) -> tuple[bool, int]:
        """What makes it worth showing first: a problem, then the larger backlog."""
        return (False, 0) if self.report is None else (bool(self.report.problem), self.report.backlog_bytes)

    def fields(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "device": self.name, "seen_at": self.seen_us / 1e6, "rows": self.rows, "last_seq": self.last_seq,
        }  # fmt: skip
        if self.report is not None:
            found |= {
                "reported_at": self.reported_us / 1e6,
                "backlog_batches": self.report.backlog_batches,
                "backlog_bytes": self.report.backlog_bytes,
                "rows_dropped": self.report.rows_dropped,
                "problem": self.report.problem,
            }
        return found


class Devices:
    """The devices heard since the process started, the one heard last at the end."""

    def __init__(self, devices_max: int) -> None:
        self._devices_max = devices_max
        self._known: OrderedDict[str, _Device] = OrderedDict()
        # Those with a problem, and the others with a backlog; the one that reported last at the end.
        self._with_problem: dict[str, _Device] = {}
        self._with_backlog: dict[str, _Device] = {}
        self._backlogs = self._backlog_batches = self._backlog_bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def _heard(self, name: str, time_us: int) -> _Device:
        device = self._known.get(name)
        if device is None:
            device = self._known[name] = _Device(name, time_us)
            if len(self._known) > self._devices_max:
                _, forgotten = self._known.popitem(last=False)
                self._count(forgotten, -1)
        else:
            device.seen_us = time_us
            self._known.move_to_end(name)
        return device

    def _count(self, device: _Device, sign: int) -> None:
        """Take the device's report into the counts and among the troubled, or out of them."""
        report = device.report
        if report is None:
            return
        self._backlogs += sign * (report.backlog_batches > 0)
        self._backlog_batches += sign * report.backlog_batches
        self._backlog_bytes += sign * report.backlog_bytes
        if report.problem or report.backlog_batches:
            among = self._with_problem if report.problem else self._with_backlog
            if sign > 0:
                among[device.name] = device
            else:
                del among[device.name]

    def heard(self, name: str, time_us: int) -> None:
        """Any message of the device."""
        self._heard(name, time_us)

    def batch(self, name: str, time_us: int, rows: int, seq: int) -> None:
        """A batch of the device that the log does not have yet."""
        device = self._heard(name, time_us)
        device.rows += rows
        device.last_seq = seq

    def report(self, name: str, time_us: int, report: Report) -> None:
        """What the device said of itself."""
        device = self._heard(name, time_us)
        self._count(device, -1)
        device.report, device.reported_us = report, time_us
        self._count(device, 1)

    def fields(self) -> dict[str, Any]:
        """As JSON values: counts of all, and the devices worth showing."""
        return {
            "known": len(self._known),
            "with_backlog": self._backlogs,
            "with_problem": len(self._with_problem),
            "backlog_batches": self._backlog_batches,
            "backlog_bytes": self._backlog_bytes,
            "devices": self._shown(),
        }

    def _shown(self) -> list[dict[str, Any]]:
        troubled = itertools.chain(reversed(self._with_problem.values()), reversed(self._with_backlog.values()))
        first = sorted(itertools.islice(troubled, SHOWN_MAX), key=lambda device: device.trouble, reverse=True)
        names = {device.name for device in first}
        heard_last = (device for name, device in reversed(self._known.items()) if name not in names)
        shown: list[dict[str, Any]] = []
        room = SHOWN_BYTES_MAX
        for device in itertools.islice(itertools.chain(first, heard_last), SHOWN_MAX):
            fields = device.fields()
            room -= len(json.dumps(fields)) + 1
            if room < 0:
                break
            shown.append(fields)
        return shown
