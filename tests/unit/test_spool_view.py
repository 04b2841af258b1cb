"""`edgewater agent spool`: what waits, read beside the agent, without changing or locking anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.contract.errors import StopError
from edge_agent.spool import SpoolSettings
from edge_agent.spool_file import FILE_NAME
from edge_agent.spool_view import StreamView, read_properties, read_spool, spool_folders
from tests.kit.spooled import DEVICE, accepted, batch, open_spool


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but SQLite's shared memory, which readers of a live database keep their marks in."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith("-shm")}


def test_what_waits_in_an_open_spool(tmp_path: Path) -> None:
    """Epochs, streams, the oldest row and skip records are seen while it is open; the spool goes on as before."""
    spool = open_spool(tmp_path, settings=SpoolSettings(bytes_max=2_000, policy="drop-oldest", compress=False))
    (first, *_) = accepted(spool, *(batch(float(number), rows=number) for number in range(1, 9)))
    accepted(spool, batch(1.0, priority=0, stream="alarms"))
    before = contents(tmp_path)
    view = read_spool(tmp_path)
    assert contents(tmp_path) == before
    assert (view.device, view.waits) == (DEVICE, True)
    (readings,) = [epoch for epoch in view.epochs if epoch.priority == 1]
    assert (readings.epoch, readings.watermark, readings.last_seq) == (first.epoch, 0, 8)
    assert sum(epoch.batches for epoch in view.epochs) == spool.batches
    (skip,) = readings.skips
    assert (skip.seq_first, skip.reason) == (1, "dropped")
    assert skip.rows == sum(range(1, skip.seq_last + 1))
    assert readings.rows + skip.rows == sum(range(1, 9))
    assert readings.oldest_row_us == 1_700_000_000_000_000
    (alarms,) = [epoch for epoch in view.epochs if epoch.priority == 0]
    assert alarms.streams == (StreamView("alarms", 1, 1, alarms.bytes),)
    accepted(spool, batch(2.0))
    spool.close()


def test_a_closed_spool_is_read_as_it_is(tmp_path: Path) -> None:
    """No file appears beside it, none changes; what is at or below the watermark does not wait."""
    spool = open_spool(tmp_path)
    (place,) = accepted(spool, batch(1.0))
    spool.trim(place.epoch, place.seq)
    spool.close()
    before = contents(tmp_path)
    assert not read_spool(tmp_path).waits
    assert read_properties(tmp_path, "device") == {"device": DEVICE}
    assert contents(tmp_path) == before


def test_a_spool_is_found_below_a_folder(tmp_path: Path) -> None:
    """A folder of spools shows each of them."""
    for name in ("a", "b/c"):
        open_spool(tmp_path / name).close()
    assert spool_folders(tmp_path, 1) == [tmp_path / "a"]
    assert spool_folders(tmp_path, 2) == [tmp_path / "a", tmp_path / "b" / "c"]


def test_what_is_no_spool(tmp_path: Path) -> None:
    """A missing one, another program's file, text: one message each."""
    with pytest.raises(StopError, match="no spool at"):
        read_spool(tmp_path)
    (tmp_path / FILE_NAME).write_text("hello, this is no database at all" * 100)
    with pytest.raises(StopError, match="cannot be read"):
        read_spool(tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For people a line says that nothing waits, or what does; as JSON the same numbers."""
    folder = tmp_path / "spool"
    open_spool(folder).close()
    assert main(["agent", "spool", "--dir", str(folder)]) == 0
    assert "nothing waits" in capsys.readouterr().out
    spool = open_spool(folder, settings=SpoolSettings(bytes_max=2_000, policy="drop-oldest", compress=False))
    accepted(spool, *(batch(float(number), rows=2) for number in range(8)))
    assert main(["agent", "spool", "--dir", str(folder)]) == 0
    text = capsys.readouterr().out
    assert "device pump-7: these wait" in text
    assert "readings:" in text
    assert "will never come: dropped" in text
    assert "measured 2023-11-14 22:13:20 UTC" in text
    assert main(["agent", "spool", "--dir", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["spools"]
    assert found["waits"] is True
    assert found["epochs"][0]["last_seq"] == 8
    spool.close()
    assert main(["agent", "spool", "--dir", str(tmp_path / "none")]) == 1
    assert "give the folder that the agent has as --dir" in capsys.readouterr().err
