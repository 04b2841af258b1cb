"""Spools of released versions are still read: v1.sqlite was written by `write_v1` when the format was fixed."""

from __future__ import annotations

import shutil
from pathlib import Path

from edge_agent.contract import wire
from edge_agent.contract.wire import Kind, Reason, Skipped
from edge_agent.spool import SpoolSettings, read_ledger
from edge_agent.spool_file import FILE_NAME, SCHEMA
from tests.kit.spooled import accepted, batch, open_spool, value_of

GOLDEN = Path(__file__).parent / "spool" / "v1.sqlite"
FIRST, ALARMS, SECOND = 524686948774707201, 524686953069674498, 524686957364641892


def write_v1(folder: Path) -> None:
    """Seven batches of which two were trimmed and two dropped, one of another priority, one of a second opening."""
    settings = SpoolSettings(bytes_max=2_000, policy="drop-oldest", compress=False, ledger=True)
    spool = open_spool(folder, settings=settings)
    (first, *_) = accepted(spool, *(batch(float(number), rows=number) for number in range(1, 8)))
    spool.trim(first.epoch, 2)
    accepted(spool, batch(8.0, priority=0, stream="alarms"))
    spool.close()
    spool = open_spool(folder, settings=settings, first_random=100)
    accepted(spool, batch(9.0, pad=200))
    spool.close()


def contents(folder: Path) -> list[tuple[int, int, int, bytes]]:
    """Every message that the spool in `folder` would send."""
    spool = open_spool(folder, first_random=1000)
    found = [
        (held.epoch, held.seq_first, held.seq_last, held.message)
        for epoch in spool.epochs()
        for held in spool.read(epoch.epoch, 1, 1 << 20, 100)
    ]
    spool.close()
    return found


def test_version_1_is_read(tmp_path: Path) -> None:
    """Epochs, watermarks, batches, the skip record and the ledger of a spool of version 1 are what they were."""
    shutil.copy(GOLDEN, tmp_path / FILE_NAME)
    spool = open_spool(tmp_path)
    epochs = [(epoch.epoch, epoch.priority, epoch.watermark, epoch.last_seq) for epoch in spool.epochs()]
    assert epochs == [(FIRST, 1, 2, 7), (ALARMS, 0, 0, 1), (SECOND, 1, 0, 1)]
    spool.close()
    found = {(epoch, first, last): message for epoch, first, last, message in contents(tmp_path)}
    assert list(found) == [(FIRST, 3, 4), (FIRST, 5, 5), (FIRST, 6, 6), (FIRST, 7, 7), (ALARMS, 1, 1), (SECOND, 1, 1)]
    skip, body = wire.decode_header(found.pop((FIRST, 3, 4)))
    assert (skip.kind, skip.reason) == (Kind.SKIP, Reason.DROPPED)
    assert wire.decode_skipped(skip, body) == [Skipped(3, "readings", 3), Skipped(4, "readings", 4)]
    assert [value_of(message) for message in found.values()] == [5.0, 6.0, 7.0, 8.0, 9.0]
    assert [value_of(message) for message in read_ledger(tmp_path)] == [float(number) for number in range(1, 10)]


def test_this_version_writes_the_same(tmp_path: Path) -> None:
    """The same operations still make the same messages at the same places."""
    (tmp_path / "golden").mkdir()
    shutil.copy(GOLDEN, tmp_path / "golden" / FILE_NAME)
    write_v1(tmp_path / "new")
    assert contents(tmp_path / "new") == contents(tmp_path / "golden")


def test_the_format_is_documented() -> None:
    """docs/formats/spool.md has the schema as it is."""
    text = (Path(__file__).parents[2] / "docs" / "formats" / "spool.md").read_text("utf-8")
    assert SCHEMA.strip() in text
