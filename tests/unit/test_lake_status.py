"""Until when a lake is complete, and what is missing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pyarrow as pa
import pytest

import lake
from edge_agent.contract.errors import DecodeError, RejectError
from edge_agent.contract.names import epoch_created_s
from lake.cli import add_commands
from lake.schema import SKIPPED
from lake.status import FILES_READ_MAX, lake_status
from tests.kit.lake_rows import readings
from tests.kit.landed_lake import EPOCHS, landed_lake, moment


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser)
    parsed = parser.parse_args(arguments)
    return int(parsed.run(parsed))


def test_each_device_has_its_watermark_its_newest_reading_and_its_gaps(tmp_path: Path) -> None:
    """From the fold's state, the partial aggregates, the table of what was skipped, and the dead letters."""
    status = lake_status(landed_lake(tmp_path))
    by_name = {device.device: device for device in status.devices}
    assert list(by_name) == ["pi4", "pi5", "pi6"]
    pi4 = by_name["pi4"]
    assert (pi4.complete_until, pi4.received_at) == (moment(9), moment(0))
    assert pi4.missing_rows == {"dropped": 12, "lost": 0}
    assert (pi4.batches, pi4.dead_letters) == (5, 2)
    (epoch,) = pi4.epochs
    assert (epoch.epoch, epoch.watermark, epoch.closed) == (EPOCHS["pi4"], 5, False)
    assert epoch.created_s == epoch_created_s(EPOCHS["pi4"])
    assert by_name["pi5"].epochs[0].closed
    assert (by_name["pi6"].complete_until, by_name["pi6"].dead_letters) == (None, 1)
    assert [gap["seq_first"] for gap in status.gaps] == [5, 3]
    assert (status.gaps_total, status.waiting) == (2, 0)
    assert status.transaction == status.published > 0


def test_decided_transactions_wait_until_they_are_published(tmp_path: Path) -> None:
    """They count as landed, and are told as not visible yet."""
    here = landed_lake(tmp_path)
    number = here.decide(here.prepare({"readings": readings(1)}))
    status = lake_status(lake.open(tmp_path))
    assert (status.transaction, status.waiting) == (number, 1)
    assert status.published < number


def test_an_empty_lake_has_no_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing has landed, which is no error."""
    lake.open(tmp_path, create=True)
    assert _run("status", "--dir", str(tmp_path)) == 0
    assert capsys.readouterr().out == "no device has landed anything yet\nno transaction yet\n"


def test_the_time_received_is_looked_up_in_the_newest_files_only(tmp_path: Path) -> None:
    """A device that is not in them was received before them."""
    here = lake.open(tmp_path, create=True)
    for index in range(FILES_READ_MAX + 1):
        rows = readings(1, seq=index, device="old" if index == 0 else "new")
        received = pa.array([moment(index)], pa.timestamp("us", tz="UTC"))
        here.decide(here.prepare({"readings": rows.set_column(9, "received_at", received)}))
    here.apply()
    devices = {device.device: device for device in lake_status(here).devices}
    assert devices["new"].received_at == moment(FILES_READ_MAX)
    assert "old" not in devices  # in no aggregate, in no fold
    from lake.aggregate import partials_from

    here.commit({"readings_1m": partials_from(readings(1, device="old"))})
    devices = {device.device: device for device in lake_status(here).devices}
    assert (devices["old"].received_at, devices["old"].received_before) == (None, moment(0))


def test_a_state_that_is_no_fold_is_an_error(tmp_path: Path) -> None:
    """A newer version's state must not be called complete."""
    here = lake.open(tmp_path, create=True)
    link = lake.Link(
        job="readings", partition=0, origin_transaction=0, offset=1, topic_id="t", last_record_crc=None, state=b"what"
    )
    here.commit({}, [link])
    with pytest.raises(DecodeError, match="damaged"):
        lake_status(here)


def test_status_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a device, the gaps, the last transaction."""
    landed_lake(tmp_path / "lake")
    assert _run("status", "--dir", str(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0] == "device"
    assert "12 dropped, lost" in lines[2]
    assert "2026-09-21 14:13:29Z" in lines[2]
    assert "gaps, newest first:" in lines
    assert any("dropped" in line and "3 to 4" in line and "12" in line for line in lines)
    assert any("lost" in line and "unknown" in line for line in lines)
    assert lines[-1].startswith("last transaction ")
    assert lines[-1].endswith("; all of them visible")
    assert _run("status", "--dir", str(tmp_path), "--device", "pi5") == 0
    out = capsys.readouterr().out
    assert "pi4" not in out
    assert "gaps" not in out
    with pytest.raises(RejectError, match=r"nothing of a device 'pi44' is in this lake; did you mean pi4\?"):
        _run("status", "--dir", str(tmp_path), "--device", "pi44")


def test_status_tells_what_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And asks for the worker that should make it visible."""
    here = landed_lake(tmp_path)
    here.decide(here.prepare({"readings": readings(1)}))
    _run("status", "--dir", str(tmp_path))
    assert "1 decided and not visible yet" in capsys.readouterr().out


def test_status_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object with epochs and gaps."""
    landed_lake(tmp_path)
    assert _run("status", "--dir", str(tmp_path), "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    status = json.loads(line)
    assert status["devices"][0]["epochs"][0]["watermark"] == 5
    assert status["devices"][0]["complete_until"] == "2026-09-21T14:13:29Z"
    assert status["gaps"][0]["reason"] == "lost"
    assert status["transaction_age_s"] is not None


def test_only_some_gaps_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal gets twenty; how many there are is said."""
    count = 150
    here = lake.open(tmp_path, create=True)
    columns = {
        "device": ["pi4"] * count,
        "epoch": [1] * count,
        "seq_first": list(range(count)),
        "seq_last": list(range(count)),
        "stream": ["readings"] * count,
        "rows": [1] * count,
        "reason": ["lost"] * count,
        "received_at": [moment(index) for index in range(count)],
    }
    here.commit({"skipped": pa.table(columns, schema=SKIPPED)})
    assert len(lake_status(here).gaps) == 100
    _run("status", "--dir", str(tmp_path))
    out = capsys.readouterr().out
    assert "(20 of 150 gaps; the table skipped has all)" in out
    assert "150 lost" in out
