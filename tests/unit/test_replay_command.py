"""The command line of a replay: mistakes are one message each, and the display suits where it is shown."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.contract.clock import ManualClock
from edge_agent.replay.command import state_directory
from edge_agent.replay.pace import Pace
from edge_agent.replay.progress import UNREADABLE_SHOWN, Progress
from edge_agent.replay.unit import LETTERS_FULL, READINGS_FULL, READINGS_MAX, Gathering
from tests.kit.replay_world import Site, readings_of
from tests.kit.spooled import accepted, open_spool


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--time", "t"], "--device NAME, or --device-column COLUMN"),
        (["--time", "t", "--device", "a/b"], "--device: device name 'a/b' is not allowed"),
        (["--time", "t", "--device", ""], "--device: device name '' is not allowed"),
        (["--time", "tt", "--device", "x"], "--time: data.csv has no column 'tt'; did you mean t?"),
        (["--time", "t", "--device-column", "t"], "both name 't'"),
        (["--time", "t", "--device", "x", "--speed", "0"], "--speed is '0'"),
        (["--time", "t", "--device", "x", "--speed", "-1"], "--speed is '-1'"),
        (["--time", "t", "--device", "x", "--speed", "nan"], "--speed is 'nan'"),
        (["--time", "t", "--device", "x", "--speed", "fast"], "above 0 (2 is twice as fast), or max"),
        (["--time", "t", "--device", "x", "--timeout-s", "0"], "--timeout-s is '0'"),
        (["--time", "t", "--device", "x", "--timezone", "Europe/Berlln"], "did you mean Europe/Berlin"),
        (["--time", "t", "--device", "x", "--mqtt", "http://x"], "'http://x' is not mqtt://host:port"),
        (["--time", "t", "--device", "x", "--mqtt", "mqtt://u:secret@x:y"], "is not mqtt://host:port"),
        (["--time", "t", "--device", "x", "--dir", "data.csv"], "give another --dir"),
        (["--time", "t", "--device", "x", "--format", "jsonl", "--delimiter", ";"], "--delimiter is for CSV"),
        (["--time", "t", "--device", "x", "--config", "none.toml"], "none.toml does not exist"),
    ],
)
def test_a_mistake_is_one_message(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    part: str,
) -> None:
    """Status 1, the value and the next step on standard error, no traceback, and no password."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    Path("data.csv").write_text("t,a\n1,2\n")
    assert main(["agent", "replay", "data.csv", *options]) == 1
    text = capsys.readouterr().err
    assert part in text
    assert "Traceback" not in text
    assert "secret" not in text


def test_positions_are_in_the_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_STATE_HOME, when it is absolute as the standard asks; ~/.local/state otherwise."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_directory() == tmp_path / "edgewater" / "replay"
    monkeypatch.setenv("HOME", "/somewhere")
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert state_directory() == Path("/somewhere/.local/state/edgewater/replay")


def test_a_pace() -> None:
    """A row is due so long after the first as their times are apart, divided by the speed; earlier times at once."""
    clock = ManualClock()
    pace = Pace(10.0, clock)
    now_s = clock.monotonic_s()
    assert [pace.due_s(us) - now_s for us in (5_000_000, 15_000_000, 4_000_000)] == [0.0, 1.0, -0.1]
    assert not pace.flush_due(0.2)
    clock.advance(0.2)
    assert (pace.flush_due(0.2), pace.flush_due(0.2)) == (True, False)
    assert not Pace(math.inf, clock).limited


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def test_the_display_on_a_terminal_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar that draws itself anew; a line every few seconds in a file or on a dumb terminal."""
    clock = ManualClock()
    for kind, term, bar in ((Terminal, "xterm", True), (Terminal, "dumb", False), (io.StringIO, "xterm", False)):
        monkeypatch.setenv("TERM", term)
        stream = kind()
        progress = Progress("data.csv", 1000, clock, stream)
        for number in range(8):
            clock.advance(1.0)
            progress.rows += 100
            progress.end += 100
            progress.tick(lambda number=number: (3, "no bridge answers" if number == 5 else ""))
        progress.say("hello")
        text = stream.getvalue()
        assert ("\x1b" in text) is bar
        assert text.count("\n") == (1 if bar else 3)
        assert " 60%, 600 rows, 3 batches wait, no bridge answers" in text
        if bar:
            assert f"[{'#' * 19}.....]  80%, 800 rows, 100 rows/s" in text
        else:
            assert "data.csv:  30%, 300 rows, 100 rows/s, 3 batches wait" in text


def test_unreadable_rows_are_printed_up_to_a_bound() -> None:
    """The first are named, one line says that there are more, all are counted."""
    stream = io.StringIO()
    progress = Progress("data.csv", 1, ManualClock(), stream)
    for number in range(100):
        progress.put_aside(f"data.csv:{number}", "bad")
    assert progress.unreadable == 100
    assert len(stream.getvalue().splitlines()) == UNREADABLE_SHOWN + 1


def test_a_unit_of_many_columns_is_several_batches(tmp_path: Path) -> None:
    """A row with more readings than a batch may have is split, and fits the wire."""
    names = [f"c{number}" for number in range(READINGS_MAX + 10)]
    gathering = Gathering(names)
    assert not gathering
    assert gathering.add(1, [float(number) for number in range(len(names))]) == len(names)
    assert gathering.full
    assert gathering.add(2, [None] * (len(names) - 1) + [7.0]) == 1
    batches = gathering.take()
    assert [batch.rows for batch in batches] == [READINGS_MAX, 11]
    assert not gathering
    spool = open_spool(tmp_path)
    (place, _) = accepted(spool, *batches)
    found = [row for held in spool.read(place.epoch, 1, 1 << 30, 10) for row in readings_of(held.message)]
    assert [value for *_, value in found] == [*map(float, range(len(names))), 7.0]
    spool.close()


def test_a_unit_is_full_by_readings_and_by_dead_letters() -> None:
    """Bounds on what is in memory."""
    gathering = Gathering(["a"])
    for number in range(READINGS_FULL):
        assert not gathering.full
        gathering.add(number, [1.0])
    assert gathering.full
    gathering.take()
    for _ in range(LETTERS_FULL):
        assert not gathering.full
        gathering.put_aside(1, "x", "y", "z")
    assert gathering.full
    gathering.take()
    for _ in range(20):
        gathering.put_aside(1, "x" * 4000, "y", "z")
    assert gathering.full


@pytest.mark.parametrize("name", ["data.csv", "data.jsonl", "data.parquet"])
def test_every_format_gives_the_same(tmp_path: Path, name: str) -> None:
    """One table as CSV, JSON lines and Parquet is the same readings and the same dead letter."""
    site = Site(tmp_path, name)
    if name.endswith("csv"):
        site.file.write_text("t,a,b\n2024-01-31T12:00:00,1,2.5\n2024-01-31T12:00:00,,3\n,4,4\n")
    elif name.endswith("jsonl"):
        site.file.write_text(
            '{"t":"2024-01-31T12:00:00","a":1,"b":2.5}\n{"t":"2024-01-31T12:00:00","a":null,"b":3}\n{"a":4,"b":4}\n'
        )
    else:
        pa = pytest.importorskip("pyarrow")
        noon = 1_706_702_400_000
        times = pa.array([noon, noon, None], pa.timestamp("ms"))
        table = pa.table({"t": times, "a": pa.array([1, None, 4]), "b": [2.5, 3.0, 4.0]})
        pytest.importorskip("pyarrow.parquet").write_table(table, site.file)
    result = site.run()
    ts_us = 1_706_702_400_000_000
    assert site.readings() == [("home", ts_us, "a", 1.0), ("home", ts_us, "b", 2.5), ("home", ts_us, "b", 3.0)]
    ((device, _, reason, place),) = site.letters()
    assert (device, place) == ("home", f"{name}:{4 if name.endswith('csv') else 3}")
    assert "the time is" in reason
    assert (result.rows, result.readings, result.dead_letters) == (2, 3, 1)
    assert site.run().found_sent
    assert site.run(again=True).rows == 2


def test_names_from_a_file_do_no_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file's name that is not UTF-8 is escaped in dead letters; control characters in columns too, on a terminal."""
    site = Site(tmp_path, os.fsdecode(b"d\xe4ta.csv"))
    site.file.write_text("t,a,\x1b[2J\n1,2,3\nbad,4,4\n")
    assert site.run().dead_letters == 1
    assert [place for *_, place in site.letters()] == ["d\\udce4ta.csv:3"]
    assert "\x1b" not in capsys.readouterr().err
    assert {name for _, _, name, _ in site.readings()} == {"a", "\x1b[2J"}


def test_a_pace_sends_what_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --speed rows go in units as they become due, each with the position before the next row."""
    site = Site(tmp_path)
    site.file.write_text("t,a\n" + "".join(f"{number},{number}\n" for number in range(10)))
    monkeypatch.setattr("edge_agent.replay.lanes._POLL_S", 0.0)
    original = site.clock.monotonic_s

    def ticking() -> float:
        site.clock.advance(0.01)
        return original()

    monkeypatch.setattr(site.clock, "monotonic_s", ticking)
    result = site.run(speed=1.0)
    assert (result.rows, len(site.ledger())) == (10, 10)
    assert [value for *_, value in site.readings()] == [float(number) for number in range(10)]
    assert site.run(speed=1.0).found_sent
