"""`edgewater up` before anything starts: its options, names, what the agent's status says of loading, alarms."""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy.alarms import Alarm, AlarmWatch, alarms_of
from deploy.stack import Configuration, Stack, is_loopback, url_host
from deploy.supervisor import Service
from deploy.up import Up, UpOptions, loading_failure, worker_names
from deploy.up_cli import add_up_command
from edge_agent.contract.errors import RejectError, SettingsError, StopError
from edge_agent.contract.status import StatusFile


def _parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_up_command(parser)
    return parser.parse_args(words)


def test_files_may_be_given_together_or_one_by_one() -> None:
    """Several values, and the option again."""
    found = _parsed("--functions", "a.py", "b.py", "--jobs", "j.py", "--functions", "c.py")
    assert found.functions == [Path("a.py"), Path("b.py"), Path("c.py")]
    assert found.jobs == [Path("j.py")]
    assert found.dir == Path("edgewater-data")


@pytest.mark.parametrize("port", ["-1", "65536", "x", "", "1.5", "٣"])
def test_a_port_is_a_number_in_range(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message says which are."""
    with pytest.raises(SystemExit):
        _parsed(f"--mqtt-port={port}")
    assert "is no port" in capsys.readouterr().err


def test_each_job_has_a_worker_of_its_own_name() -> None:
    """Also two files of one name, and one that is called as no file of ours may be."""
    files = (Path("a/alarms.py"), Path("b/alarms.py"), Path("my job.py"))
    assert worker_names(files) == ["worker-alarms", "worker-alarms-2", "worker-my-job"]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"functions": (Path("nix.py"),)}, StopError, "function file nix.py does not exist"),
        ({"jobs": (Path("nix.py"),)}, StopError, "job file nix.py does not exist"),
        ({"config": Path("nix.toml")}, SettingsError, "nix.toml"),
        ({"device": "a b"}, RejectError, "a b"),
        ({"host": "192.0.2.1"}, StopError, "192.0.2.1"),
    ],
)
def test_what_can_be_checked_is_checked_before_anything_starts(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Each with what was given."""
    with pytest.raises(error, match=words):
        Up(UpOptions(directory=tmp_path, **options))


@pytest.mark.parametrize("section", ["mqtt", "log", "bridge", "worker", "agent"])
def test_a_setting_of_any_part_that_does_not_exist_is_found_first(tmp_path: Path, section: str) -> None:
    """Not when the part starts, in a log that nobody reads."""
    config = tmp_path / "c.toml"
    config.write_text(f"[{section}]\nnix = 1\n")
    with pytest.raises(SettingsError, match="nix"):
        Up(UpOptions(directory=tmp_path, config=config))


def test_the_agents_status_says_whether_functions_are_loaded() -> None:
    """One that failed before it had a version was not; one that failed later was."""
    running = {"name": "a", "version": "00ff", "last_error": ""}
    broken = {"name": "b.py", "version": "", "last_error": "SyntaxError (b.py:3)"}
    assert loading_failure({}) == (False, "")
    assert loading_failure({"functions": [running]}) == (True, "")
    assert loading_failure({"functions": [{**running, "last_error": "raised"}]}) == (True, "")
    assert loading_failure({"functions": [running, {"name": "c.py", "version": "", "last_error": ""}]}) == (False, "")
    assert loading_failure({"functions": [running, broken]}) == (False, "b.py: SyntaxError (b.py:3)")


def test_the_settings_file_goes_before_what_the_stack_prefers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does the environment; every part is given the file."""
    file = tmp_path / "c.toml"
    file.write_text("[worker]\nsession_timeout_s = 7\n[[mappings]]\nstream = 's'\n")
    found = Configuration(file)
    preferred = {"session_timeout_s": 3, "commit_interval_s": 0.5}
    assert found.options("worker", preferred) == ["--config", str(file), "--commit-interval-s", "0.5"]
    monkeypatch.setenv("EDGEWATER_WORKER__COMMIT_INTERVAL_S", "1")
    assert found.options("worker", preferred) == ["--config", str(file)]
    assert found.mappings
    assert Configuration().options("worker", {"a": 1}) == ["--a", "1"]
    assert not Configuration().mappings


@pytest.mark.parametrize("content", [b"[worker", b"\xff"])
def test_a_settings_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    """With the line."""
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"c\.toml:1: "):
        Configuration(file)


@pytest.mark.parametrize(
    ("host", "loopback", "shown"),
    [
        ("127.0.0.1", True, "127.0.0.1"),
        ("localhost", True, "localhost"),
        ("::1", True, "[::1]"),
        ("0.0.0.0", False, "127.0.0.1"),
        ("::", False, "[::1]"),
        ("192.0.2.7", False, "192.0.2.7"),
        ("gateway.local", False, "gateway.local"),
    ],
)
def test_where_a_server_listens_is_where_clients_here_find_it(host: str, loopback: bool, shown: str) -> None:
    """An address that means all of them is reached by loopback."""
    assert is_loopback(host) is loopback
    assert url_host(host) == shown


def test_alarms_of_parts_are_printed_once_and_escaped(tmp_path: Path) -> None:
    """A line each, whatever a device calls itself."""
    out = io.StringIO()
    up = Up(UpOptions(directory=tmp_path), out)
    supervisor = up._stack.supervisor
    with subprocess.Popen(["true"]) as process:
        process.wait()
    process.pid = os.getpid()
    supervisor.services["bridge"] = Service("bridge", [], process=process)
    StatusFile(supervisor.run_dir, "bridge").write(alarms=[{"at": 1.0, "text": "lost \x1b[2J"}], alarm_count=1)
    for _ in range(2):
        up._status_at_s = 0.0
        up._checked()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  ALARM bridge: lost \\x1b\[2J\n", out.getvalue())


def test_two_stacks_do_not_share_a_directory(tmp_path: Path) -> None:
    """The demo's neither: the lock is the stack's."""
    with Stack(tmp_path), pytest.raises(StopError, match="in use"), Stack(tmp_path):
        pass
    with Stack(tmp_path):
        pass


def test_alarms_with_and_without_times_are_read_and_anything_else_is_not() -> None:
    """As parts write them, or as nobody does."""
    document = {"alarms": ["plain", {"at": 5, "text": "timed"}, {"at": "x", "text": "odd"}, {"text": 3}, 7, None]}
    assert alarms_of("p", document) == [Alarm("p", "plain", None), Alarm("p", "timed", 5.0), Alarm("p", "odd", None)]
    assert alarms_of("p", {}) == []
    assert alarms_of("p", {"alarms": "text"}) == []


def test_each_alarm_is_new_once() -> None:
    """By the part's count, which begins anew with its process; of more than it keeps, those it has."""
    watch = AlarmWatch()
    assert watch.new("p", {}) == []
    first = {"pid": 1, "alarms": ["a"], "alarm_count": 1}
    assert [alarm.text for alarm in watch.new("p", first)] == ["a"]
    assert watch.new("p", first) == []
    more = {"pid": 1, "alarms": ["b", "c"], "alarm_count": 9}
    assert [alarm.text for alarm in watch.new("p", more)] == ["b", "c"]
    assert watch.new("p", {"pid": 2, "alarms": [], "alarm_count": 0}) == []
    assert [alarm.text for alarm in watch.new("p", {"pid": 2, "alarms": ["d"], "alarm_count": 1})] == ["d"]
