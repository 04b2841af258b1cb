"""Job files: what is loaded, and what is said of a file that is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from edge_agent.contract.errors import StopError
from stream_jobs import default_job
from stream_jobs.job_file import FILE_BYTES_MAX, load_job
from stream_jobs.jobs import run_steps

GOOD = """from stream_jobs import Job

job = Job("alarms")

@job.step(stream="readings", table="alarms")
def alarms(rows):
    return rows
"""


@pytest.fixture(autouse=True)
def _imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a job file adds to the imports of this process is gone after its test."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if not name.startswith(("stream_jobs", "lake", "pyarrow", "numpy", "pandas")):
            del sys.modules[name]


def _written(directory: Path, text: str, name: str = "my_alarms.py") -> Path:
    path = directory / name
    path.write_text(text, "utf-8")
    return path


def test_a_file_gives_its_job(tmp_path: Path) -> None:
    """And may import what lies beside it."""
    _written(tmp_path, "LIMIT = 7", "my_limits.py")
    job = load_job(_written(tmp_path, "from my_limits import LIMIT\n" + GOOD))
    assert (job.name, job.tables, job.is_default) == ("alarms", ["alarms"], False)


def test_without_a_file_it_is_the_default_job() -> None:
    """Which is written as any job is."""
    assert load_job("") is default_job.job
    assert default_job.job.tables == ["readings", "readings_1m", "dead_letters"]
    assert default_job.job.is_default


def test_a_failure_shows_the_line_of_the_file(tmp_path: Path) -> None:
    """The traceback begins at the step, with its source."""
    path = _written(tmp_path, GOOD.replace("return rows", "return rows.no_such_method()"))
    (failure,) = run_steps(load_job(path), "readings", pa.table({"value": [1.0]}), [1]).failures
    assert f'File "{path}", line 7, in alarms\n    return rows.no_such_method()' in failure.reason
    assert failure.reason.startswith("step alarms raised\nTraceback (most recent call last):\n  File")
    assert "jobs.py" not in failure.reason


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = (\n", r"my_alarms\.py:2: SyntaxError: .*; mend the file"),
        ("import no_such_thing\n", r"my_alarms\.py:1: ModuleNotFoundError: No module named 'no_such_thing'; inst"),
        ("\ndef f():\n    return 1 / 0\n\nf()\n", r"my_alarms\.py:3: ZeroDivisionError: division by zero; mend"),
        ("import sys\nsys.exit(3)\n", r"my_alarms\.py:2: SystemExit: 3; mend"),
        ("x = 1\n", r"my_alarms\.py declares no job; write `from .* import Job` and `job = Job\(\"my_alarms\"\)`"),
        (GOOD + "other = Job('b')\n", r"declares 2 jobs: job \(line 3\), other \(line 8\); a file has one"),
        ("from stream_jobs import Job\njob = Job('x')\n", r"my_alarms\.py:2: job x has no step; put @job\.step"),
        (GOOD.replace('"alarms"', '"readings"', 1), r"my_alarms\.py:3: the job is named readings, as Edgewater's own"),
        (GOOD.replace("(rows)", "(rows, more)"), r"my_alarms\.py:5: step alarms takes \(rows, more\); a step takes"),
        (GOOD.replace("def ", "async def "), r"my_alarms\.py:5: step alarms is no plain function; write `def alarms"),
        (GOOD.replace('table="alarms"', 'table="dead_letters"'), r":5: table dead_letters is written by Edgewater's"),
        (GOOD.replace('stream="readings"', 'stream="Alarms"'), r":5: table alarms has every row of stream Alarms"),
        (GOOD.replace('table="alarms"', 'table="Alarms"'), r":5: table name 'Alarms' is not allowed; use at most 63"),
        (GOOD.replace('stream="readings"', 'stream="a b"'), r":5: stream name 'a b' is not allowed"),
        (GOOD.replace(', table="alarms"', ""), r":5: a step of job alarms needs table="),
    ],
)  # fmt: skip
def test_a_file_that_is_no_job_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """One message: where, what, and what to do."""
    with pytest.raises(StopError, match=message):
        load_job(_written(tmp_path, text))


def test_files_that_cannot_be_one_are_refused(tmp_path: Path) -> None:
    """No file, a directory, no Python, too long, and a name that would hide a module."""
    with pytest.raises(StopError, match=r"none\.py does not exist; check the path"):
        load_job(tmp_path / "none.py")
    with pytest.raises(StopError, match="cannot be read: Is a directory"):
        load_job(tmp_path)
    with pytest.raises(StopError, match="is no Python file"):
        load_job(_written(tmp_path, GOOD, "job.txt"))
    with pytest.raises(StopError, match="the most is"):
        load_job(_written(tmp_path, "#" * (FILE_BYTES_MAX + 1)))
    for name in ("json.py", "lake.py"):
        with pytest.raises(StopError, match=f"has the name of a module that others import; rename it, as my_{name}"):
            load_job(_written(tmp_path, GOOD, name))
