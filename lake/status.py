"""Until when a lake is complete, device by device, and what is missing.

**Complete until**: the fold takes a device's batches in the order of their seqs, without a gap, so of one epoch (one
opening of the device's spool, per priority) everything that the device accepted up to the watermark is in the lake: as
rows, as a dead letter, or as a gap with its reason (table `skipped`). `complete_until` is the time of the device's
newest reading that is in: all rows that the device accepted before it in the same epoch are in, except those gaps. What
still waits on the device is not known here; `edgewater status` shows it.

**Delivery**: reads one snapshot and the state of the default job's chains; changes nothing. **Bounds**: the newest
reading comes from `readings_1m`'s partial rows, the time received from the `FILES_READ_MAX` newest files of `readings`
(for a device that is not in them only that it was earlier), never from all readings; `GAPS_MAX` gaps, newest first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from edge_agent.contract.fold import PartitionFold
from edge_agent.contract.names import epoch_created_s
from lake.handle import Lake
from lake.query import run
from lake.snapshot import Snapshot

__all__ = ["DEFAULT_JOB", "FILES_READ_MAX", "GAPS_MAX", "DeviceStatus", "EpochStatus", "LakeStatus", "lake_status"]

DEFAULT_JOB = "readings"
FILES_READ_MAX = 64
GAPS_MAX = 100


@dataclass(frozen=True, slots=True)
class EpochStatus:
    """One epoch: made when by the device's clock, the last seq that is in without a gap before it, closed or not."""

    epoch: int
    created_s: int
    watermark: int
    closed: bool


@dataclass(slots=True)
class DeviceStatus:
    """What the lake knows of a device; times are UTC, None where it has none."""

    device: str
    complete_until: datetime | None = None
    received_at: datetime | None = None
    received_before: datetime | None = None
    """Where `received_at` is not known: it was earlier than this."""
    epochs: list[EpochStatus] = field(default_factory=list)
    batches: int = 0
    missing_rows: dict[str, int] = field(default_factory=dict)
    """Reason -> rows of its gaps; 0 where nobody knows how many."""
    dead_letters: int = 0


@dataclass(frozen=True, slots=True)
class LakeStatus:
    """`transaction` is the last decided one; `waiting` of the decided ones are not visible yet."""

    location: str
    transaction: int
    transaction_at_us: int | None
    published: int
    waiting: int
    devices: list[DeviceStatus]
    gaps: list[dict[str, Any]]
    gaps_total: int


def lake_status(here: Lake) -> LakeStatus:
    """The status of the lake `here`. StopError, DecodeError: a chain's state cannot be read."""
    progress = here.progress()
    snapshot = here.snapshot()
    devices = _Devices()
    for partition in sorted(number for job, number in progress.chains if job == DEFAULT_JOB):
        _add_epochs(here.chain(DEFAULT_JOB, partition).state, devices)
    for row in _rows(snapshot, "SELECT device, max(last_ts) AS newest FROM readings_1m_partials GROUP BY device"):
        devices[row["device"]].complete_until = row["newest"]
    _add_received(snapshot, devices)
    sums = "SELECT device, coalesce(reason, '') AS reason, sum(rows) AS rows FROM skipped GROUP BY ALL ORDER BY ALL"
    for row in _rows(snapshot, sums):
        devices[row["device"]].missing_rows[row["reason"]] = int(row["rows"] or 0)
    for row in _rows(snapshot, "SELECT device, count(*) AS letters FROM dead_letters GROUP BY device"):
        devices[row["device"]].dead_letters = row["letters"]
    gaps = f"SELECT * FROM skipped ORDER BY received_at DESC, device, epoch, seq_first DESC LIMIT {GAPS_MAX}"  # noqa: S608
    (total,) = _rows(snapshot, "SELECT count(*) AS gaps FROM skipped")
    return LakeStatus(
        here.location,
        progress.transaction,
        progress.transaction_at_us,
        progress.published,
        progress.waiting,
        [device for name, device in sorted(devices.items()) if name],
        _rows(snapshot, gaps),
        total["gaps"],
    )


class _Devices(dict[str, DeviceStatus]):
    """By name, made when first asked for; rows of no device count for one without a name."""

    def __missing__(self, name: str) -> DeviceStatus:
        self[name] = DeviceStatus(name or "")
        return self[name]


def _rows(snapshot: Snapshot, sql: str) -> list[dict[str, Any]]:
    # Names of devices that are null become empty, so that they sort.
    return [
        {key: value if key != "device" else value or "" for key, value in row.items()}
        for row in snapshot.query(sql).arrow().to_pylist()
    ]


def _add_epochs(state: bytes, devices: _Devices) -> None:
    if not state:
        return
    for (name, epoch), found in sorted(PartitionFold.from_bytes(state).epochs().items()):
        closed = found.closed_at_ms > 0
        devices[name].epochs.append(EpochStatus(epoch, epoch_created_s(epoch), found.watermark, closed))
        devices[name].batches += found.watermark


def _add_received(snapshot: Snapshot, devices: _Devices) -> None:
    """When the newest rows of each device were received, from the files that were received last."""
    relation, before = snapshot.newest("readings", "received_at", FILES_READ_MAX)
    sql = "SELECT device, max(received_at) AS received FROM readings GROUP BY device"
    for row in run([relation], sql).arrow().to_pylist():
        devices[row["device"] or ""].received_at = row["received"]
    for device in devices.values():
        if device.received_at is None:
            device.received_before = before
