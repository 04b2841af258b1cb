"""`edgewater lake ...`: what it prints, and how it fails."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lake
from lake.aggregate import partials_from
from lake.cli import add_commands
from tests.kit.lake_rows import readings


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser)
    parsed = parser.parse_args(arguments)
    return int(parsed.run(parsed))


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """A lake with two transactions, the second of a device with a hostile name."""
    with lake.open(tmp_path / "lake", create=True) as here:
        for seq, device in enumerate(("pi4", "\x1b[2Jpi5")):
            rows = readings(10, seq=seq, device=device)
            link = lake.Link(
                job="readings",
                partition=seq,
                origin_transaction=0,
                offset=10,
                topic_id="t",
                last_record_crc=None,
                state=b"",
            )
            here.commit({"readings": rows, "readings_1m": partials_from(rows)}, [link])
    return str(tmp_path / "lake")


def test_query_as_a_table(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Aligned columns; control characters of a device's name are shown, not sent to the terminal."""
    assert (
        _run("query", "--dir", directory, "SELECT device, count(*) AS n FROM readings GROUP BY 1 ORDER BY 1 DESC") == 0
    )
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["device", "n"]
    assert "pi4" in out
    assert "\\x1b[2Jpi5" in out
    assert "\x1b" not in out


def test_query_as_csv_and_json(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Machine-readable, complete, to standard output."""
    sql = "SELECT seq, count(*) AS n FROM readings GROUP BY 1 ORDER BY 1"
    assert _run("query", "--dir", directory, "--format", "csv", sql) == 0
    assert capsys.readouterr().out == '"seq","n"\n0,10\n1,10\n'
    assert _run("query", "--dir", directory, "--format", "json", sql) == 0
    assert [json.loads(line)["n"] for line in capsys.readouterr().out.splitlines()] == [10, 10]


def test_query_at_a_transaction(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--at reads all tables as of then."""
    sql = "SELECT count(*) AS n, (SELECT sum(count) FROM readings_1m) AS m FROM readings"
    assert _run("query", "--dir", directory, "--at", "1", "--format", "csv", sql) == 0
    assert capsys.readouterr().out.splitlines()[1] == "10,10"
    assert _run("query", "--dir", directory, "--at", "99", "SELECT 1") == 1
    assert capsys.readouterr().err == "edgewater lake query: transaction 99 does not exist, the last is 6\n"


def test_tables_lists_versions_files_and_rows(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a table, and the snapshot's transaction."""
    assert _run("tables", "--dir", directory) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:4] == ["readings", "2", "2", "20"]
    assert lines[-1].startswith("snapshot at transaction ")


def test_log_lists_records(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Decisions with what they change, leases, publications."""
    assert _run("log", "--dir", directory) == 0
    out = capsys.readouterr().out
    assert "readings +10 rows, readings_1m +2 rows" in out
    assert "lease" in out
    assert "publication" in out
    assert "given back" in out


@pytest.mark.parametrize(("command", "sql"), [("query", ["SELECT 1"]), ("tables", []), ("log", [])])
def test_a_directory_without_a_lake_is_an_error(
    tmp_path: Path, command: str, sql: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on standard error, status 1, and nothing is made there."""
    assert _run(command, "--dir", str(tmp_path / "none"), *sql) == 1
    assert capsys.readouterr().err.startswith(f"edgewater lake {command}: there is no lake in ")
    assert not (tmp_path / "none").exists()


def test_an_empty_lake_has_no_tables_and_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is no error."""
    lake.open(tmp_path, create=True)
    assert _run("tables", "--dir", str(tmp_path)) == 0
    assert capsys.readouterr().out == "snapshot at transaction 0\n"
    assert _run("log", "--dir", str(tmp_path)) == 0
    assert capsys.readouterr().out == "no records\n"


def test_bad_sql_is_one_message(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong, without a traceback, and without control characters that the SQL had."""
    assert _run("query", "--dir", directory, "SELECT '\x1b[2J' FROM nowhere") == 1
    err = capsys.readouterr().err
    assert err.startswith("edgewater lake query: the query failed: Catalog Error")
    assert "\x1b" not in err
    assert "Traceback" not in err


def test_help_needs_no_library_of_the_lake() -> None:
    """Where pyarrow, deltalake and duckdb are not installed the command still describes itself."""
    script = (
        "import sys\nfor name in ('pyarrow', 'deltalake', 'duckdb'): sys.modules[name] = None\n"
        "import argparse\nfrom lake.cli import add_commands\n"
        "parser = argparse.ArgumentParser('edgewater lake')\nadd_commands(parser)\nparser.parse_args(['--help'])"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert "answer one SELECT" in result.stdout


def test_a_reader_that_has_seen_enough_is_no_error(directory: str) -> None:
    """`| head -1` ends the query quietly."""
    root = Path(__file__).parents[2]
    script = (
        "import argparse, sys\nfrom lake.cli import add_commands\nparser = argparse.ArgumentParser()\n"
        "add_commands(parser)\narguments = parser.parse_args(sys.argv[1:])\nsys.exit(arguments.run(arguments))"
    )
    sql = "SELECT range AS n FROM range(1000000)"
    command = [sys.executable, "-c", script, "query", "--dir", directory, "--format", "csv", sql]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0
