"""`edgewater dead-letters`: what could not land, found again and shown safely."""

from __future__ import annotations

import argparse
import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import lake
from edge_agent.contract.errors import RejectError, StopError
from lake.dead_letters import payload_lines
from lake.dead_letters_cli import _since, add_dead_letter_commands
from tests.kit.landed_lake import EPOCHS, TRACEBACK, landed_lake

_RAW = "--raw into a file or a pipe gives all"


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_dead_letter_commands(parser)
    parsed = parser.parse_args(arguments)
    return int(parsed.run(parsed))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory of `up` with a lake that has four dead letters."""
    folder = tmp_path_factory.mktemp("up")
    landed_lake(folder / "lake")
    return str(folder)


def _ids(directory: str, capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    assert _run("list", "--dir", directory, "--json", *options) == 0
    return [json.loads(line)["id"] for line in capsys.readouterr().out.splitlines()]


def test_list_is_newest_first_with_ids(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where each was; two of one record have different ids."""
    assert _ids(directory, capsys) == [
        "pi6/3/1", "zigbee2mqtt/x/0/9", "edgewater.batches/0/7#2", "edgewater.batches/0/7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--device", "pi4"], 2),
        (["--device", "nobody"], 0),
        (["--job", "alerts"], 1),
        (["--since", "2026-09-21T14:13:21.5Z"], 2),
        (["--since", "2026-09-21T16:13:21.5+02:00"], 2),
        (["--limit", "1"], 1),
        (["--limit", "0"], 0),
    ],
)
def test_list_chooses(directory: str, capsys: pytest.CaptureFixture[str], options: list[str], count: int) -> None:
    """By device, job, time, number."""
    assert len(_ids(directory, capsys, *options)) == count


def test_list_for_people(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The first line of each reason; columns that nobody filled are not there; what is left out is said."""
    assert _run("list", "--dir", directory, "--limit", "3") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["id", "time", "reason", "device", "job", "place"]
    assert "file.csv:17" in out
    assert "Traceback" not in out
    assert "\x1b" not in out
    assert "(3 of 4; --limit, --since, --device and --job choose)" in out
    _run("list", "--dir", directory, "--device", "pi6")
    assert capsys.readouterr().out.splitlines()[0].split() == ["id", "time", "reason", "device", "place"]
    _run("list", "--dir", directory, "--device", "nobody")
    assert capsys.readouterr().out == "no dead letters of these\n"


def test_an_empty_lake_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which is good news, and no error."""
    lake.open(tmp_path, create=True)
    assert _run("list", "--dir", str(tmp_path)) == 0
    assert capsys.readouterr().out == "no dead letters: all that came has landed\n"


def test_show_has_the_whole_reason_and_the_payload(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The traceback line by line; a payload that is no text in hexadecimal, of which a part; nothing is obeyed."""
    assert _run("show", "--dir", directory, "edgewater.batches/0/7#2") == 0
    out = capsys.readouterr().out
    assert "job       alerts" in out
    assert f"epoch     {EPOCHS['pi4']}" in out
    assert '  File "job.py", line 3' in out
    assert "00000000  ed 47 00 1b 5b 32 4a" in out
    assert ".G..[2J" in out
    assert "(4,096 of 7,000 bytes; --raw into a file or a pipe gives all)" in out
    assert "\x1b" not in out


def test_show_prints_text_as_text(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line of a file, a JSON object; nothing where there is nothing."""
    _run("show", "--dir", directory, "pi6/3/1")
    out = capsys.readouterr().out
    assert "  Zeile 17;grün\n" in out
    assert "topic     file.csv:17" in out
    _run("show", "--dir", directory, "edgewater.batches/0/7")
    assert '  {"a": 1}\n' in capsys.readouterr().out
    _run("show", "--dir", directory, "zigbee2mqtt/x/0/9")
    assert "payload, 0 bytes\n  (empty)\n" in capsys.readouterr().out


def test_show_for_programs(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of it as JSON, the payload in base64."""
    _run("show", "--dir", directory, "--json", "edgewater.batches/0/7#2")
    letter = json.loads(capsys.readouterr().out)
    assert base64.b64decode(letter["payload"]) == b"\xed\x47\x00\x1b[2J" * 1000
    assert letter["reason"] == TRACEBACK
    assert letter["partition"] == 0


@pytest.mark.parametrize("wrong", ["nothing", "edgewater.batches/0/7#3", "edgewater.batches/0/7#x", "' OR 1=1 --", ""])
def test_an_id_that_is_not_there(directory: str, wrong: str) -> None:
    """The error says how to find ids."""
    with pytest.raises(RejectError, match=r"there is no dead letter .*`edgewater dead-letters list` shows their ids"):
        _run("show", "--dir", directory, wrong)


def test_a_directory_without_a_lake(tmp_path: Path) -> None:
    """The error names it and the next step."""
    with pytest.raises(StopError, match=r"there is no lake in .*`edgewater up --dir"):
        _run("list", "--dir", str(tmp_path))


def test_since_is_a_moment_or_how_long_ago() -> None:
    """Both, and an error that shows both."""
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert _since("2h", now) == now - timedelta(hours=2)
    assert _since("30min", now) == _since("30 min ago", now) == now - timedelta(minutes=30)
    assert _since("1.5d", now) == now - timedelta(days=1.5)
    assert _since("2026-01-01T00:00Z", now) == datetime(2026, 1, 1, tzinfo=UTC)
    for wrong in ("yesterday", "2026-01-01", "", "5 weeks"):
        with pytest.raises(RejectError, match=r"--since .*; or how long ago, as 30min, 2h or 7d"):
            _since(wrong, now)
    with pytest.raises(RejectError, match="before the calendar begins"):
        _since("99999999999d", now)


@pytest.mark.parametrize(
    ("payload", "lines"),
    [
        (None, ["(empty)"]),
        (b"", ["(empty)"]),
        (b"a\tb\r\nc", ["a       b", "c"]),
        ("ü".encode() * 3000, ["ü" * 2048, f"(4,096 of 6,000 bytes; {_RAW})"]),
        (f"x{'ü' * 3000}".encode(), [f"x{'ü' * 2047}", f"(4,096 of 6,001 bytes; {_RAW})"]),
        ("a\u202eb".encode(), ["00000000  61 e2 80 ae 62                                   a...b"]),
        (b"\x1b[2J", ["00000000  1b 5b 32 4a                                      .[2J"]),
        (b"\xff" * 17, [f"00000000  {'ff ' * 15}ff  {'.' * 16}", f"00000010  ff{' ' * 47}."]),
    ],
)  # fmt: skip
def test_payloads_are_text_or_hexadecimal(payload: bytes | None, lines: list[str]) -> None:
    """Text only when every letter may be shown; a letter cut at the end makes no bytes of the rest."""
    assert payload_lines(payload) == lines
