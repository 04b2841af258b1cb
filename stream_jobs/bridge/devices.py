"""What the bridge knows of each device, for people: when it was last heard, what it sent, what it last said of itself.

**Delivery**: a hint, gone with the process; nothing is decided by it. Reports may be lost, doubled or late.
**Bounds**: `devices_max` devices (the longest unheard is forgotten), some 400 bytes each and what its problem needs; a
status of at most SHOWN_MAX devices and SHOWN_BYTES_MAX bytes: those with a problem or a backlog first, then those
heard last. One look-up a message; the troubled are kept apart, so that a status need not walk over all.
"""

from __future__ import annotations

import heapq
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
        self._troubled: dict[str, _Device] = {}

    def __len__(self) -> int:
        return len(self._known)

    def _heard(self, name: str, time_us: int) -> _Device:
        device = self._known.get(name)
        if device is None:
            device = self._known[name] = _Device(name, time_us)
            if len(self._known) > self._devices_max:
                forgotten, _ = self._known.popitem(last=False)
                self._troubled.pop(forgotten, None)
        else:
            device.seen_us = time_us
            self._known.move_to_end(name)
        return device

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
        device.report, device.reported_us = report, time_us
        if report.problem or report.backlog_batches:
            self._troubled[name] = device
        else:
            self._troubled.pop(name, None)

    def fields(self) -> dict[str, Any]:
        """As JSON values: counts of all, and the devices worth showing."""
        reports = [device.report for device in self._troubled.values() if device.report is not None]
        return {
            "known": len(self._known),
            "with_backlog": sum(report.backlog_batches > 0 for report in reports),
            "with_problem": sum(bool(report.problem) for report in reports),
            "backlog_batches": sum(report.backlog_batches for report in reports),
            "backlog_bytes": sum(report.backlog_bytes for report in reports),
            "devices": self._shown(),
        }

    def _shown(self) -> list[dict[str, Any]]:
        first = heapq.nlargest(SHOWN_MAX, self._troubled.values(), key=lambda device: device.trouble)
        shown: list[dict[str, Any]] = []
        room = SHOWN_BYTES_MAX
        names = {device.name for device in first}
        heard_last = (device for name, device in reversed(self._known.items()) if name not in names)
        for device in itertools.islice(itertools.chain(first, heard_last), SHOWN_MAX):
            fields = device.fields()
            room -= len(json.dumps(fields)) + 1
            if room < 0:
                break
            shown.append(fields)
        return shown
