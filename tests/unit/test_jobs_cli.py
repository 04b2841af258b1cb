"""`edgewater jobs`: new, check, and what run refuses before it starts anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.cli import main, noun_parser
from stream_jobs.jobs_cli import _settings_of
from stream_jobs.worker.settings import WorkerSettings


def test_new_writes_a_job_and_a_test_that_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both files work as they are, and are not written over."""
    assert main(["jobs", "new", "alarms", "--dir", str(tmp_path)]) == 0
    assert "python -m pytest" in capsys.readouterr().out
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_alarms.py"]
    found = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "2 passed" in found.stdout
    (tmp_path / "alarms.py").unlink()
    assert main(["jobs", "new", "alarms", "--dir", str(tmp_path)]) == 1
    assert "test_alarms.py exists already and is left as it is" in capsys.readouterr().err
    assert not (tmp_path / "alarms.py").exists()


@pytest.mark.parametrize("name", ["readings", "a-b", "1a", "class", "json", "../x", ""])
def test_new_refuses_names_that_no_job_can_have(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is written."""
    assert main(["jobs", "new", name, "--dir", str(tmp_path)]) == 1
    assert "a job cannot be named" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_new_needs_its_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the file."""
    assert main(["jobs", "new", "alarms", "--dir", str(tmp_path / "none")]) == 1
    assert "alarms.py cannot be written: No such file or directory" in capsys.readouterr().err


def test_check_lists_what_a_job_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steps with stream, tables and line; the columns of each stream, where they are declared."""
    path = tmp_path / "house.py"
    path.write_text(
        "from stream_jobs import Job\n"
        "job = Job('house', {'gas': {'ts': 'timestamp', 'level': 'int64'}})\n"
        "job.step(stream='gas', tables=('a', 'b'))(lambda rows: None)\n"
        "@job.step(stream='doors', table='c')\n"
        "def doors(rows):\n"
        "    return rows\n"
    )
    assert main(["jobs", "check", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "job house",
        "  step      stream  tables  line",
        "  <lambda>  gas     a, b    3",
        "  doors     doors   c       4",
        "stream gas: columns ts timestamp, level int64",
        "stream doors: columns as they are sent",
    ]


def test_check_fails_with_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the worker would, without a traceback."""
    path = tmp_path / "broken.py"
    path.write_text("import nothing_of_that_name\n")
    assert main(["jobs", "check", str(path)]) == 1
    error = capsys.readouterr().err
    assert f"{path}:1: ModuleNotFoundError" in error
    assert "Traceback" not in error


def test_run_finds_lake_and_log_of_a_stack(tmp_path: Path) -> None:
    """`--dir` of `edgewater up`: its lake, its status files, and the log's port; what is given is taken."""
    (tmp_path / "lake").mkdir()
    (tmp_path / "lake" / "lake.json").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.json").write_text(json.dumps({"host": "127.0.0.1", "port": 4711}))
    parser = noun_parser("jobs")
    words = ["run", "a.py", "--dir", str(tmp_path)]
    settings = _settings_of(parser.parse_args(words))
    assert settings.job == "a.py"
    assert settings.lake == str(tmp_path / "lake")
    assert settings.run_dir == str(tmp_path / "run")
    assert settings.bootstrap_servers == "127.0.0.1:4711"
    settings = _settings_of(parser.parse_args([*words, "--bootstrap-servers", "far:1", "--commit-interval-s", "2"]))
    assert (settings.bootstrap_servers, settings.commit_interval_s) == ("far:1", 2.0)
    assert settings.name == WorkerSettings.name


@pytest.mark.parametrize("arguments", [["jobs", "run", "a.py", "--dir", "nowhere"], ["jobs", "run", "a.py"]])
def test_run_without_a_lake_is_refused(arguments: list[str], tmp_path: Path) -> None:
    """In a process of its own, since a worker ends the process."""
    run = [sys.executable, "-m", "edge_agent.cli", *arguments]
    found = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "there is no lake in" in found.stderr
    assert "Traceback" not in found.stderr
