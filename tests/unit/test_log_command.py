"""The command line and the settings of the embedded log."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.contract.errors import SettingsError
from stream_jobs.cli import add_log_commands
from stream_jobs.log.server import advertised_host, check_settings
from stream_jobs.log.settings import LogSettings


def parse(*words: str | Path) -> argparse.Namespace:
    """The arguments of `edgewater log ...`."""
    parser = argparse.ArgumentParser()
    add_log_commands(parser)
    return parser.parse_args([str(word) for word in words])


def test_run_needs_nothing_but_takes_every_setting() -> None:
    """Each setting has its option, and what runs is set."""
    arguments = parse("run", "--dir", "d", "--port", "0", "--bytes-max", "5")
    assert (arguments.dir, arguments.port, arguments.bytes_max) == ("d", "0", "5")
    assert callable(arguments.run)


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        ("--port", "70000", "most allowed is 65535"),
        ("--segment-bytes", "x", "whole number"),
        ("--host", "0.0.0.0", "advertised-host"),
        ("--request-bytes-max", "70000", "exceed request_bytes_max of 70000"),
        ("--config", "/nowhere", "does not exist"),
    ],
)
def test_wrong_settings_end_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, text: str
) -> None:
    """Status 1 and what to do, before anything is opened."""
    assert main(["log", "run", "--dir", str(tmp_path / "log"), option, value]) == 1
    assert text in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


def test_a_directory_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A path through a file is an error message, not a traceback."""
    (tmp_path / "file").write_text("")
    assert main(["log", "run", "--dir", str(tmp_path / "file" / "log")]) == 1
    assert "check the path" in capsys.readouterr().err


def test_what_clients_are_told() -> None:
    """The address listened on, unless another name is given; every address needs one."""
    assert advertised_host(LogSettings()) == "127.0.0.1"
    assert advertised_host(LogSettings(host="0.0.0.0", advertised_host="log.lan")) == "log.lan"
    with pytest.raises(SettingsError):
        advertised_host(LogSettings(host=""))


def test_settings_that_contradict_each_other() -> None:
    """The shortest session timeout is not above the longest."""
    check_settings(LogSettings())
    with pytest.raises(SettingsError, match="lower it"):
        check_settings(LogSettings(session_timeout_min_ms=2000, session_timeout_max_ms=1000))
