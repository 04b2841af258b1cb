"""`edgewater status` on directories: what it reads, what it prints, and how it ends."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

from deploy import status_cli
from deploy.status_cli import add_status_command, look
from edge_agent.contract.errors import StopError
from edge_agent.contract.status import STATUS_BYTES_MAX, StatusFile


def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_status_command(parser)
    arguments = parser.parse_args(words)
    status: int = arguments.run(arguments)
    return status


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_cli, "SAMPLE_S", 0.01)


def test_files_that_are_no_status_are_left_out(tmp_path: Path) -> None:
    """Too large, cut off, of another kind, with a wrong pid: the rest is shown."""
    run = tmp_path / "run"
    StatusFile(run, "log").write(port=1)
    (run / "large.json").write_text('{"pid": 1, "x": "' + "x" * STATUS_BYTES_MAX + '"}')
    (run / "cut.json").write_text('{"pid": 1')
    (run / "list.json").write_text("[1]")
    (run / "deep.json").write_text("[" * 100_000)
    (run / "odd.json").write_text('{"pid": true, "at": "x"}')
    (run / "minus.json").write_text('{"pid": -1, "at": 1.0}')
    found = look(tmp_path, dict)
    assert sorted(found.files) == ["log", "minus", "odd"]
    assert found.alive == {"log": True}
    assert (found.memory_bytes["log"] or 0) > 0


def test_the_json_document_is_one_and_has_no_lake_where_there_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its names are stable; why the lake cannot be read is in it."""
    StatusFile(tmp_path / "run", "log").write(port=1)
    assert _run("--dir", str(tmp_path), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {
        "directory", "at", "ok", "problems", "stack", "processes", "bridges", "workers", "functions", "lake", "alarms",
        "devices",
    }  # fmt: skip
    assert "there is no lake" in document["lake"]["error"]
    assert (
        document["processes"][0] | {"name": "log", "pid": os.getpid(), "state": "running"} == document["processes"][0]
    )


def test_nothing_that_runs_is_status_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one line that says so."""
    (tmp_path / "run").mkdir()
    assert _run("--dir", str(tmp_path)) == 1
    assert f"problem: nothing runs in {tmp_path}" in capsys.readouterr().out


def test_a_directory_that_does_not_exist_says_how_to_start_one(tmp_path: Path) -> None:
    """The name and the command."""
    with pytest.raises(StopError, match=r"nix does not exist; start one: edgewater up --dir .*nix"):
        _run("--dir", str(tmp_path / "nix"))


def test_watching_goes_on_until_interrupted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One document a look, each in a line of its own."""
    StatusFile(tmp_path / "run", "log").write(port=1)
    looks = iter([None, None])

    def pause(_seconds: float) -> None:
        try:
            next(looks)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(status_cli.time, "sleep", pause)
    with pytest.raises(KeyboardInterrupt):
        _run("--dir", str(tmp_path), "--json", "--watch")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(json.loads(line)["ok"] for line in lines)
