"""`edgewater lake ...`: what it prints, and how it fails."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import lake
from edge_agent.contract.errors import RejectError, StopError
from lake.aggregate import partials_from
from lake.cli import add_commands
from lake.meanings import meaning
from lake.schema import KNOWN_TABLES
from tests.kit.lake_rows import readings


def _run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_commands(parser)
    parsed = parser.parse_args(arguments)
    return int(parsed.run(parsed))


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake with two transactions, the second of a device with a hostile name."""
    folder = tmp_path_factory.mktemp("lakes") / "lake"
    with lake.open(folder, create=True) as here:
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
    return str(folder)


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
    with pytest.raises(RejectError, match="transaction 99 does not exist, the last is 6"):
        _run("query", "--dir", directory, "--at", "99", "SELECT 1")


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.csv", []), ("a.json", []), ("a.jsonl", []), ("a.parquet", []), ("a.txt", []), ("a", ["--format", "csv"])],
)
def test_output_goes_to_a_file_whole(directory: str, tmp_path: Path, name: str, options: list[str]) -> None:
    """The name tells the format; what was there is replaced; nothing else is left."""
    (tmp_path / name).write_text("old")
    assert _run("query", "--dir", directory, "FROM readings", "--output", str(tmp_path / name), *options) == 0
    assert os.listdir(tmp_path) == [name]
    content = (tmp_path / name).read_bytes()
    if name == "a.parquet":
        assert pq.read_table(tmp_path / name).num_rows == 20
    else:
        assert len(content.splitlines()) == (20 if name.startswith("a.json") else 22 if name == "a.txt" else 21)


def test_output_that_fails_leaves_the_file_alone(directory: str, tmp_path: Path) -> None:
    """A query that fails half way, a directory, a place that is not there, a full disk."""
    target = tmp_path / "a.csv"
    target.write_text("old")
    late = "SELECT (CASE WHEN range > 1000000 THEN 'x' ELSE '1' END)::INT FROM range(2000000)"
    with pytest.raises(RejectError, match="Could not convert"):
        _run("query", "--dir", directory, late, "--output", str(target))
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.csv"]
    with pytest.raises(StopError, match="is a directory; give --output the name of a file"):
        _run("query", "--dir", directory, "SELECT 1", "--format", "csv", "--output", str(tmp_path))
    with pytest.raises(StopError, match=r"cannot write .*/none/a.csv: No such file or directory; give --output"):
        _run("query", "--dir", directory, "SELECT 1", "--output", str(tmp_path / "none" / "a.csv"))
    with pytest.raises(StopError, match="cannot write /dev/full: No space left on device"):
        _run("query", "--dir", directory, "FROM range(100000)", "--format", "csv", "--output", "/dev/full")
    assert Path("/dev/full").is_char_device()


def test_output_follows_a_link(directory: str, tmp_path: Path) -> None:
    """The file that the link names is replaced, the link stays."""
    (tmp_path / "link.csv").symlink_to(tmp_path / "file.csv")
    assert _run("query", "--dir", directory, "SELECT 1 AS a", "--output", str(tmp_path / "link.csv")) == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "file.csv").read_text() == '"a"\n1\n'


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--output", "x"], "the name 'x' does not tell a format; give --format table, csv, json or parquet"),
        (["--output", "x.csv", "--chart"], "--chart draws on the terminal"),
        (["--format", "csv", "--chart"], "--chart draws on the terminal"),
        (["--format", "json", "--spreadsheet"], "--spreadsheet is about CSV, this is json"),
        (["--memory", "much"], "--memory 'much' is no size; write it like 500MB or 2GB"),
        (["--memory", "1KB"], "is below .* with which no query runs"),
        (["--timeout-s", "0"], "is not above 0"),
    ],
)
def test_options_that_do_not_go_together(directory: str, options: list[str], message: str) -> None:
    """Each is one clear message."""
    with pytest.raises(RejectError, match=message):
        _run("query", "--dir", directory, "SELECT 1", *options)


def test_csv_for_a_spreadsheet(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exact by default; with --spreadsheet no text is a formula."""
    sql = "SELECT '=cmd()' AS s, -1 AS n"
    _run("query", "--dir", directory, "--format", "csv", sql)
    assert capsys.readouterr().out.splitlines()[1] == '"=cmd()",-1'
    _run("query", "--dir", directory, "--format", "csv", "--spreadsheet", sql)
    assert capsys.readouterr().out.splitlines()[1] == '"\'=cmd()",-1'


def test_a_long_answer_shows_its_first_rows(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A thousand, and how many there are; more than a million are not counted."""
    _run("query", "--dir", directory, "FROM range(5000)")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1003
    assert lines[-1].startswith("(1,000 of 5,000 rows; --format csv or json gives all")
    _run("query", "--dir", directory, "FROM range(1000000000000)")
    assert "(1,000 of more than 1,000,000 rows; " in capsys.readouterr().out


def test_charts_are_drawn(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One for each name, with its ends below."""
    assert _run("query", "--dir", directory, "--chart", "SELECT ts, name, value FROM readings WHERE seq = 0") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a"
    assert "b" in lines
    assert "2026-09-21 14:13:20" in lines[7]
    with pytest.raises(RejectError, match="a chart needs a numeric column"):
        _run("query", "--dir", directory, "--chart", "SELECT device FROM readings")
    with pytest.raises(RejectError, match="more than 1,000,000 rows are too many for a chart"):
        _run("query", "--dir", directory, "--chart", "FROM range(2000000)")


def test_tables_lists_versions_files_and_rows(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a table, and the snapshot's transaction."""
    assert _run("tables", "--dir", directory) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["readings", "20", "2", "11", "2", "false"]
    assert lines[-1].startswith("snapshot at transaction ")
    assert _run("tables", "--dir", directory, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["table"], row["rows"], row["partials"]) for row in rows] == [
        ("readings", 20, False), ("readings_1m", 4, True),
    ]  # fmt: skip


def test_schema_has_types_folds_and_meanings(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of raw tables, of partial aggregates by both names, of tables without rows yet."""
    assert _run("schema", "--dir", directory, "readings") == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["column", "type", "meaning"]
    assert "when it was measured, by the device's clock" in out
    assert _run("schema", "--dir", directory, "readings_1m") == 0
    out = capsys.readouterr().out
    assert "mean(count)" in out
    assert "one row for each minute, device, name; its partial rows are readings_1m_partials" in out
    assert _run("schema", "--dir", directory, "readings_1m_partials", "--json") == 0
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first == {
        "table": "readings_1m_partials", "column": "minute", "type": "timestamp", "fold": "key",
        "meaning": "beginning of the minute, by the device's clock",
    }  # fmt: skip
    assert _run("schema", "--dir", directory, "dead_letters") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "dead_letters has no rows yet"
    for wrong in ("reading", "readings_partials", "nowhere"):
        with pytest.raises(RejectError, match=f"there is no table '{wrong}' in this snapshot"):
            _run("schema", "--dir", directory, wrong)


@pytest.mark.parametrize("name", sorted(KNOWN_TABLES))
def test_every_column_of_a_known_table_has_a_meaning(name: str) -> None:
    """What everybody may ask for is explained."""
    columns = KNOWN_TABLES[name].names
    landed = {"device", "epoch", "seq", "row"} <= set(columns)
    assert [column for column in columns if not meaning(name, column, landed)] == []


def test_columns_of_a_job_have_no_meaning_that_we_know() -> None:
    """A table of a job may call anything `row`; a stream's table has where its rows came from."""
    assert meaning("alerts", "row") == meaning("alerts", "level") == ""
    assert meaning("events", "row", landed=True) != ""
    assert meaning("events", "ts", landed=True) == "when it was, by the device's clock"


def test_log_lists_records(directory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Decisions with what they change, leases, publications; the last ones where not all are asked for."""
    assert _run("log", "--dir", directory) == 0
    out = capsys.readouterr().out
    assert "readings +10 rows, readings_1m +2 rows" in out
    assert "lease" in out
    assert "publication" in out
    assert "given back" in out
    assert _run("log", "--dir", directory, "--json", "--limit", "2") == 0
    assert [json.loads(line)["number"] for line in capsys.readouterr().out.splitlines()] == [5, 6]
    assert _run("log", "--dir", directory, "--limit", "1") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "(1 of 6 records; --limit 6 shows all)"


@pytest.mark.parametrize(
    ("command", "more"), [("query", ["SELECT 1"]), ("tables", []), ("schema", ["t"]), ("status", []), ("log", [])]
)
def test_a_directory_without_a_lake_is_an_error(tmp_path: Path, command: str, more: list[str]) -> None:
    """It names the directory and the next step, and nothing is made there."""
    with pytest.raises(StopError, match=r"there is no lake in .*none \(it does not exist\); `edgewater up --dir"):
        _run(command, "--dir", str(tmp_path / "none"), *more)
    assert not (tmp_path / "none").exists()


def test_the_directory_of_up_is_the_default(
    directory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --dir it is edgewater-data, with the lake in it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StopError, match="there is no lake in edgewater-data"):
        _run("tables")
    (tmp_path / "edgewater-data").mkdir()
    (tmp_path / "edgewater-data" / "lake").symlink_to(directory)
    assert _run("tables") == 0
    assert "readings_1m" in capsys.readouterr().out


def test_an_empty_lake_has_no_tables_and_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is no error."""
    lake.open(tmp_path, create=True)
    assert _run("tables", "--dir", str(tmp_path)) == 0
    assert capsys.readouterr().out == "snapshot at transaction 0\n"
    assert _run("log", "--dir", str(tmp_path)) == 0
    assert capsys.readouterr().out == "no records\n"


def test_bad_sql_is_one_message(directory: str) -> None:
    """What is wrong, without control characters that the SQL had."""
    with pytest.raises(RejectError) as raised:
        _run("query", "--dir", directory, "SELECT '\x1b[2J' FROM nowhere")
    assert str(raised.value).startswith("the query failed: there is no table nowhere")
    assert "\x1b" not in str(raised.value)


def test_help_needs_no_library_of_the_lake() -> None:
    """Where pyarrow, deltalake and duckdb are not installed the command still describes itself."""
    script = (
        "import sys\nfor name in ('pyarrow', 'deltalake', 'duckdb'): sys.modules[name] = None\n"
        "import argparse\nfrom lake.cli import add_commands\n"
        "parser = argparse.ArgumentParser('edgewater lake')\nadd_commands(parser)\nparser.parse_args(['--help'])"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert "query" in result.stdout
    assert "answer one SELECT" in result.stdout
