"""Mistakes in files of functions and jobs, in replays, stacks and queries: one message, its place, the next step."""

from __future__ import annotations

from pathlib import Path

import pytest

import lake
from edge_agent.cli import NOUNS, noun_parser
from tests.kit.mistakes import mistake
from tests.kit.mosquitto import free_port
from tests.kit.processes import Product, edgewater
from tests.kit.wait import until

pytestmark = pytest.mark.long

CSV = "time,pressure\n2026-01-01T00:00:00Z,1.5\n2026-01-01T00:00:01Z,1.6\n"


class TestFunctionFile:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("from edge_agent import every\n\n@every(1.0)\ndef boiler(:\n    return 3\n", "boiler.py:4"),
            ("from edge_agent import every\n\n1 / 0\n", "boiler.py:3"),
            ("def boiler():\n    return 3\n", "boiler.py"),
            ("from edge_agent import evry\n", "boiler.py:1"),
            ("import numpie\n", "boiler.py:1"),
            ("from edge_agent import every\n\n@every('soon')\ndef boiler():\n    return 3\n", "boiler.py:3"),
        ],
        ids=["syntax", "raises", "nothing declared", "mistyped import", "missing module", "wrong interval"],
    )
    def test_a_mistake_in_it(self, tmp_path: Path, text: str, words: str) -> None:
        """File and line, and the agent ends: when no function can be loaded a person has to act."""
        (tmp_path / "boiler.py").write_text(text)
        url = f"mqtt://127.0.0.1:{free_port()}"
        mistake(tmp_path, "agent", "run", "boiler.py", "--dir", "s", "--mqtt", url).says(1, words)

    def test_check_says_the_same(self, tmp_path: Path) -> None:
        """Before anything runs."""
        (tmp_path / "boiler.py").write_text("from edge_agent import every\n\n@every(1.0)\ndef boiler(:\n    return 3\n")
        mistake(tmp_path, "functions", "check", "boiler.py").says(1, "boiler.py:4")

    def test_a_name_that_cannot_be(self, tmp_path: Path) -> None:
        """`functions new` says what a name is made of, and never writes over a file."""
        mistake(tmp_path, "functions", "new", "2 boilers").says(1, "2 boilers")
        (tmp_path / "boiler.py").write_text("mine")
        mistake(tmp_path, "functions", "new", "boiler").says(1, "boiler.py exists already")
        assert (tmp_path / "boiler.py").read_text() == "mine"


class TestJobFile:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("from stream_jobs import Job\n\njob = Job('alarms'\n", "alarms.py:3"),
            ("from stream_jobs import Job\n\n1 / 0\n", "alarms.py:3"),
            ("x = 1\n", "alarms.py declares no job"),
            ("from stream_jobs import Job\n\njob = Job('alarms')\n", "has no step"),
            ("from stream_jobs import Jbo\n", "alarms.py:1"),
        ],
        ids=["syntax", "raises", "no job", "no step", "mistyped import"],
    )
    @pytest.mark.parametrize("verb", ["check", "run"])
    def test_a_mistake_in_it(self, tmp_path: Path, verb: str, text: str, words: str) -> None:
        """File and line, or what is missing in it, before any service is asked."""
        (tmp_path / "alarms.py").write_text(text)
        where = ["--bootstrap-servers", f"127.0.0.1:{free_port()}", "--dir", "lake"] if verb == "run" else []
        lake.open(tmp_path / "lake", create=True)
        mistake(tmp_path, "jobs", verb, "alarms.py", *where).says(1, words)

    def test_a_file_that_does_not_exist(self, tmp_path: Path) -> None:
        """The path, and what to check."""
        mistake(tmp_path, "jobs", "check", "alrams.py").says(1, "alrams.py does not exist; check the path")


class TestReplay:
    def test_a_broker_that_is_not_there(self, tmp_path: Path) -> None:
        """After the time without progress: the broker, where the rows are, and how to go on."""
        (tmp_path / "day.csv").write_text(CSV)
        url = f"mqtt://me:secret@127.0.0.1:{free_port()}"
        found = mistake(tmp_path, "agent", "replay", "day.csv", "--device", "a", "--time", "time", "--mqtt", url,
                        "--dir", "state", "--timeout-s", "1")  # fmt: skip
        found.says(1, url.replace("me:secret@", ""), "Connection refused")
        assert "secret" not in found.err

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (["--time", "tiem"], ["day.csv", "'tiem'", "did you mean"]),
            (["--time", "pressure"], ["day.csv", "no numeric column"]),
            (["--time", "time", "--speed", "fast"], ["--speed is 'fast'", "above 0"]),
            (["--time", "time", "--timezone", "Europe/Brelin"], ["Europe/Brelin"]),
            (["--time", "time", "--columns", "presure"], ["'presure'", "pressure"]),
        ],
    )
    def test_wrong_options(self, tmp_path: Path, options: list[str], words: list[str]) -> None:
        """A column that is not in the file, a speed or zone that does not exist: the value and what there is."""
        (tmp_path / "day.csv").write_text(CSV)
        mistake(tmp_path, "agent", "replay", "day.csv", "--device", "a", "--dir", "state", *options).says(1, *words)

    def test_files_that_cannot_be_sent(self, tmp_path: Path) -> None:
        """None there, an empty one, and a suffix that nobody knows."""
        (tmp_path / "empty.csv").touch()
        (tmp_path / "day.xlsx").touch()
        for name, words in (("none.csv", "none.csv"), ("empty.csv", "nothing"), ("day.xlsx", "day.xlsx")):
            mistake(tmp_path, "agent", "replay", name, "--device", "a", "--time", "time", "--dir", "state").says(
                1, words
            )

    def test_parquet_without_its_library(self, tmp_path: Path) -> None:
        """On a device without pyarrow a Parquet file names the extra that reads it."""
        (tmp_path / "day.parquet").write_bytes(b"PAR1")
        code = "import sys\nsys.modules['pyarrow'] = None"
        mistake(
            tmp_path, "agent", "replay", "day.parquet", "--device", "a", "--time", "t", "--dir", "state", code=code
        ).says(1, "pip install 'edgewater[lake]'")


class TestStack:
    def test_a_second_one_in_a_directory(self, tmp_path: Path) -> None:
        """Who has it, and the ways out; the first one goes on."""
        command = edgewater("up", "--dir", tmp_path / "data", "--mqtt-port", "0", "--http-port", "0")
        lock = tmp_path / "data" / "up.lock"
        with Product(tmp_path / "run", "up", command, end_timeout_s=60) as first:
            until(lambda: lock.exists() and lock.read_text().strip() == str(first.pid), 60, "the first one's lock")
            found = mistake(tmp_path, "up", "--dir", "data", debug=False)
            found.says(1, f"the directory data is in use by process {first.pid}", "choose another --dir")
            assert first.alive

    def test_files_that_do_not_exist(self, tmp_path: Path) -> None:
        """Nothing is started for a path that leads nowhere, or a file with a mistake in it."""
        mistake(tmp_path, "up", "--functions", "boilr.py").says(1, "boilr.py does not exist; check the path")
        mistake(tmp_path, "up", "--jobs", "alrams.py").says(1, "alrams.py does not exist; check the path")

    def test_a_port_that_is_no_number(self, tmp_path: Path) -> None:
        """The option, the value, what to use."""
        mistake(tmp_path, "up", "--mqtt-port", "mqtt", debug=False).says(2, "--mqtt-port", "'mqtt' is no port")

    def test_the_status_of_nothing(self, tmp_path: Path) -> None:
        """Where no stack ever ran, the directory is named, and how one is started."""
        mistake(tmp_path, "status", "--dir", "none", debug=False).says(1, "none", "edgewater up")


class TestQueries:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A directory as `edgewater up` makes it, with an empty lake."""
        lake.open(tmp_path / "edgewater-data" / "lake", create=True)
        return tmp_path

    def test_wrong_sql(self, folder: Path) -> None:
        """The default directory is that of `up`; a mistyped table or word is named."""
        mistake(folder, "lake", "query", "SELECT * FROM raedings").says(1, "raedings")
        mistake(folder, "lake", "query", "SELEKT 1").says(1, "SELEKT")

    def test_a_table_that_does_not_exist(self, folder: Path) -> None:
        """Its name, and how the tables are listed."""
        mistake(folder, "lake", "schema", "raedings").says(1, "raedings")

    @pytest.mark.parametrize(
        "command", [["lake", "query", "SELECT 1"], ["lake", "tables"], ["lake", "status"], ["dead-letters", "list"]]
    )
    def test_no_lake(self, tmp_path: Path, command: list[str]) -> None:
        """The directory that was looked in, and what to give."""
        mistake(tmp_path, *command).says(1, "no lake", "edgewater-data", "--dir")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        ("amqtt", ["up", "--dir", "data"], "all"),
        ("faust", ["jobs", "run", "job.py"], "stream"),
        ("duckdb", ["lake", "query", "SELECT 1"], "lake"),
        ("deltalake", ["lake", "tables"], "lake"),
    ],
)
def test_a_missing_extra(tmp_path: Path, missing: str, command: list[str], extra: str) -> None:
    """The package that is missing and the extra that brings it."""
    lake.open(tmp_path / "edgewater-data" / "lake", create=True)
    (tmp_path / "job.py").write_text(
        "from stream_jobs import Job\n\njob = Job('mine')\n\n\n@job.step(stream='readings', table='mine')\n"
        "def copy(rows):\n    return rows\n"
    )
    found = mistake(tmp_path, *command, code=f"import sys\nsys.modules[{missing!r}] = None")
    found.says(1, missing, f"pip install 'edgewater[{extra}]'")


def test_every_command_shows_examples() -> None:
    """The help of each verb, and of each noun without verbs, ends with examples of it."""
    silent = []
    for name in NOUNS:
        parser = noun_parser(name)
        for verb, each in (parser.verbs or {"": parser}).items():
            if f"edgewater {name}" not in (each.epilog or "").partition("examples:\n")[2]:
                silent.append(f"{name} {verb}")
    assert silent == []
