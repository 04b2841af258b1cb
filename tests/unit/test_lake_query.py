"""SQL over a snapshot: it answers, it reads the lake's files, and it can do nothing else."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

import lake
from edge_agent.contract.errors import LimitError, RejectError
from edge_agent.contract.limits import MIB
from lake.aggregate import partials_from
from lake.query import Relation, run
from lake.schema import KNOWN_TABLES
from lake.transaction.records import Column
from tests.kit.lake_rows import START_US, readings

_ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range) % 7 = hash(b.range) % 11 + 1"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> lake.Snapshot:
    """A lake of two devices, two files each, in a folder whose name is full of traps."""
    folder = tmp_path_factory.mktemp("traps") / "site=a*b[c]?d'e"
    with lake.open(folder, create=True) as here:
        for seq, device in enumerate(("pi4", "pi5", "pi4", "pi5")):
            rows = readings(100, seq=seq, device=device)
            here.commit({"readings": rows, "readings_1m": partials_from(rows)})
        # A file that no snapshot names, and the secret of another table's neighbour.
        here.prepare({"readings": readings(1, seq=99)})
        return here.snapshot()


def _value(snapshot: lake.Snapshot, sql: str) -> object:
    return snapshot.query(sql).arrow().column(0)[0].as_py()


def test_rows_are_there_and_columns_are_the_tables(snapshot: lake.Snapshot) -> None:
    """All files of the snapshot, no column from the folder's name, timestamps in UTC."""
    answer = snapshot.query("SELECT * FROM readings").arrow()
    assert answer.num_rows == 400
    assert answer.column_names == KNOWN_TABLES["readings"].names
    assert answer.schema.field("ts").type == pa.timestamp("us", tz="UTC")


def test_a_mergeable_table_is_folded_and_its_partials_can_be_seen(snapshot: lake.Snapshot) -> None:
    """One row a device, name and minute; below it the partial rows."""
    assert _value(snapshot, "SELECT count(*) FROM readings_1m") == 8
    assert _value(snapshot, "SELECT count(*) FROM readings_1m_partials") == 16
    assert _value(snapshot, "SELECT sum(count) FROM readings_1m WHERE device = 'pi4'") == 200


def test_sql_of_every_day(snapshot: lake.Snapshot) -> None:
    """Joins, windows, common table expressions, parameters, DESCRIBE, a trailing semicolon, a comment."""
    assert _value(
        snapshot, "WITH r AS (SELECT * FROM readings) SELECT count(*) FROM r JOIN readings_1m USING (device, name)"
    )
    assert (
        _value(snapshot, "SELECT max(n) FROM (SELECT row_number() OVER (PARTITION BY device) AS n FROM readings)")
        == 200
    )
    assert _value(snapshot, "select COUNT(*) from READINGS; -- all of them") == 400
    assert snapshot.query("SELECT count(*) FROM readings WHERE device = ?", ["pi5"]).arrow()[0][0].as_py() == 200
    assert "device" in snapshot.query("DESCRIBE readings").csv()
    assert "readings_1m_partials" in snapshot.query("SHOW TABLES").csv()


def test_tables_that_are_not_there_yet_are_empty(snapshot: lake.Snapshot, tmp_path: Path) -> None:
    """The tables everybody knows can be asked for in any lake, with their schema, also before the first transaction."""
    assert _value(snapshot, "SELECT count(*) FROM dead_letters") == 0
    empty = lake.open(tmp_path / "empty", create=True).snapshot()
    assert empty.transaction == 0
    for name, schema in KNOWN_TABLES.items():
        answer = empty.query(f"SELECT * FROM {name}").arrow()
        assert answer.num_rows == 0
        assert answer.schema.names == schema.names
        assert [field.type for field in answer.schema] == [field.type for field in schema]


def test_a_table_without_files_is_empty(tmp_path: Path) -> None:
    """A table that was created without rows has its columns."""
    here = lake.open(tmp_path, create=True)
    here.commit({"things": pa.table({"a": pa.array([], pa.int32())})})
    snapshot = here.snapshot()
    assert snapshot.tables == ("things",)
    assert snapshot.files("things") == []
    assert snapshot.query("SELECT * FROM things").arrow().schema == pa.schema([("a", pa.int32())])


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO readings SELECT * FROM readings",
        "DELETE FROM readings",
        "UPDATE readings SET value = 0",
        "DROP VIEW readings",
        "COPY readings TO '{out}'",
        "COPY (SELECT 1) TO '{out}' (FORMAT parquet)",
        "COPY readings TO '{file}' (FORMAT parquet, USE_TMP_FILE false)",
        "EXPORT DATABASE '{out}'",
        "ATTACH '{out}' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA enable_logging",
        "CALL pragma_version()",
        "SELECT 1; SELECT 2",
        "SELECT 1; COPY readings TO '{out}'",
        "BEGIN",
        "CHECKPOINT",
        "PREPARE p AS SELECT 1",
        "",
        ";",
        "-- nothing",
    ],
)
def test_whatever_is_not_one_select_is_refused(snapshot: lake.Snapshot, tmp_path: Path, sql: str) -> None:
    """Each statement that could change anything, several statements, and none."""
    out, file = tmp_path / "out", Path(snapshot.files("readings")[0])
    before = file.read_bytes()
    with pytest.raises(RejectError, match=r"one SELECT statement|reads the lake's tables|the query failed"):
        snapshot.query(sql.format(out=out, file=str(file).replace("'", "''")))
    assert os.listdir(tmp_path) == []
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_blob('/proc/self/environ')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM parquet_metadata('{orphan}')",
        "SELECT * FROM read_parquet('{orphan}')",
        "SELECT * FROM read_parquet('http://127.0.0.1:1/x.parquet')",
        "SELECT * FROM 's3://bucket/x.parquet'",
        "SELECT * FROM query('COPY (SELECT 1) TO ''{out}''')",
        "SELECT * FROM enable_logging(storage := 'file', storage_path := '{out}')",
        "SELECT getenv('HOME')",
        "SELECT * FROM 'file:///etc/passwd'",
        "SELECT * FROM read_text('/dev/stdin')",
        "SELECT * FROM read_csv('https://127.0.0.1:1/x.csv')",
        "SELECT * FROM read_json('/etc/passwd')",
        "SELECT * FROM read_duckdb('{out}')",
        "SELECT * FROM read_single_csv_file('/etc/passwd')",
        "SELECT * FROM parquet_schema('{orphan}')",
        "SELECT * FROM parquet_kv_metadata('{orphan}')",
        "SELECT * FROM glob('**')",
        "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
        "SELECT * FROM query_table('/etc/passwd')",
        "SELECT * FROM query_table(['readings', '{orphan}'])",
        "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT * FROM read_text(''/etc/passwd'')'))",
        "SELECT * FROM import_database('{out}')",
        "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT * FROM pandas_scan(1)",
        "SELECT * FROM python_map_function(1)",
        "SELECT * FROM create_external_resource('a', '/bin/sh')",
        "SELECT (SELECT content FROM read_text('/etc/passwd'))",
        "SELECT * FROM readings WHERE name IN (SELECT content FROM read_text('/etc/passwd'))",
        "WITH x AS MATERIALIZED (FROM read_blob('/etc/hostname')) FROM x",
        "SELECT * FROM readings, LATERAL (SELECT * FROM read_text(readings.name))",
        "SELECT 1 UNION ALL SELECT content FROM read_text('/etc/passwd')",
        "EXPLAIN ANALYZE COPY readings TO '{out}'",
        "EXECUTE p",
        "SELECT * FROM relations",
        "SELECT * FROM connection",
        "WITH w AS (INSERT INTO readings VALUES (1) RETURNING *) SELECT * FROM w",
        "WITH w AS (COPY readings TO '{out}') SELECT * FROM w",
    ],
)
def test_a_select_reaches_nothing_but_the_snapshot(snapshot: lake.Snapshot, tmp_path: Path, sql: str) -> None:
    """No other file, no undecided one, no network, no environment; nothing is written."""
    named = {Path(path).name for path in snapshot.files("readings")}
    folder = Path(snapshot.files("readings")[0]).parent
    (orphan,) = [path for path in folder.glob("*.parquet") if path.name not in named]
    out = tmp_path / "out"
    with pytest.raises(RejectError):
        snapshot.query(sql.format(out=out, orphan=str(orphan).replace("'", "''")))
    assert os.listdir(tmp_path) == []


def test_python_variables_are_no_tables(snapshot: lake.Snapshot) -> None:
    """DuckDB would find them; here the caller's memory is not the lake."""
    secret = pa.table({"secret": [1]})
    with pytest.raises(RejectError, match="secret"):
        snapshot.query("SELECT * FROM secret")
    assert secret.num_rows == 1


def test_an_error_in_sql_is_one_clear_message(snapshot: lake.Snapshot) -> None:
    """What DuckDB says, without a trace of our code."""
    with pytest.raises(RejectError, match="the query failed: there is no column nothing"):
        snapshot.query("SELECT nothing FROM readings")
    with pytest.raises(RejectError, match="the query failed: there is no table nowhere"):
        snapshot.query("SELECT * FROM nowhere")


@pytest.mark.parametrize(
    ("sql", "lines"),
    [
        ("SELECT *\nFROM readngs", ["there is no table readngs; did you mean readings?", "LINE 2: FROM readngs",
            "             ^^^^^^^", "tables: dead_letters, readings, readings_1m, readings_1m_partials, skipped"]),
        ("SELECT valeu FROM readings", ["there is no column valeu; did you mean value?", "LINE 1: SELECT valeu",
            "               ^^^^^", "columns: ts, name, value, device"]),
        ("SELECT r.valeu FROM readings r", ["there is no column valeu; did you mean value?", "LINE 1: "]),
        ("SELECT value FROM readings WHERE device = \"my device\"",
            ["there is no column my device; text is written in single quotes", "LINE 1: "]),
        ("SELEC 1", ['syntax error at or near "SELEC"', "LINE 1: SELEC 1", "        ^^^^^"]),
        ("SELECT cuont(*) FROM readings", ["there is no function cuont; did you mean count?", "LINE 1: "]),
        ("SELECT name::INT FROM readings", ["Could not convert string 'a' to INT32"]),
        ("SELECT * FROM add_parquet_key('a', 'b')", ["there is no function add_parquet_key"]),
        ("SELECT device, count(*) FROM readings", ["must appear in the GROUP BY clause", "LINE 1: "]),
        ("SELECT ?::INT FROM readings", ["parameter"]),
    ],
)  # fmt: skip
def test_an_error_tells_the_place_and_what_was_meant(snapshot: lake.Snapshot, sql: str, lines: list[str]) -> None:
    """The reason, a line of the SQL with carets, near names, and what there is; no extension to install."""
    with pytest.raises(RejectError) as raised:
        snapshot.query(sql)
    text = str(raised.value)
    assert all(line in text for line in lines), text
    assert "install" not in text.lower()
    assert "pg_" not in text


def test_a_pivot_without_values_is_told_how(snapshot: lake.Snapshot) -> None:
    """DuckDB would make it two statements; with its values it is one."""
    with pytest.raises(RejectError, match="a PIVOT needs its values"):
        snapshot.query("PIVOT readings ON name USING avg(value) GROUP BY device")
    answer = snapshot.query("PIVOT readings ON name IN ('a', 'b') USING count(*) GROUP BY device ORDER BY device")
    assert answer.arrow().to_pylist()[0] == {"device": "pi4", "a": 100, "b": 100}


def test_secrets_and_settings_tell_nothing(snapshot: lake.Snapshot) -> None:
    """What DuckDB keeps in the home directory of whoever asks is not there."""
    assert len(snapshot.query("SELECT * FROM duckdb_secrets()")) == 0
    external = snapshot.query(
        "SELECT current_setting('enable_external_access') AS a, current_setting('lock_configuration') AS b"
    )
    assert external.arrow().to_pylist() == [{"a": False, "b": True}]


def test_a_query_that_takes_too_long_is_ended(snapshot: lake.Snapshot) -> None:
    """By its time limit, in a second or so; the next one is not disturbed."""
    began = time.monotonic()
    with pytest.raises(RejectError, match=r"took longer than 0\.2 s; filter by device and time"):
        snapshot.query(_ENDLESS, timeout_s=0.2)
    assert time.monotonic() - began < 30
    assert len(snapshot.query("SELECT 1", timeout_s=30)) == 1


def test_a_query_that_needs_too_much_memory_says_so(snapshot: lake.Snapshot) -> None:
    """For its work, or for its answer; what to do is said."""
    with pytest.raises(RejectError, match=r"needs more memory than it may have: .*--memory"):
        snapshot.query("SELECT list(range) FROM range(100000000)", memory_bytes=64 * MIB)
    with pytest.raises(LimitError, match=r"the answer's size in bytes of .* --format parquet --output FILE"):
        snapshot.query("SELECT range FROM range(20000000)", memory_bytes=64 * MIB)
    with snapshot.stream("SELECT range FROM range(20000000)", memory_bytes=64 * MIB) as answer:
        assert sum(batch.num_rows for batch in answer) == 20_000_000


def test_a_stream_that_nobody_reads_on_ends(snapshot: lake.Snapshot) -> None:
    """Leaving the context ends the query, and its folder of temporary files is gone."""
    with snapshot.stream("SELECT range AS n FROM range(1000000000000)") as answer:
        assert answer.schema.names == ["n"]
        assert next(iter(answer)).num_rows > 0


def test_an_error_behind_the_first_rows_is_told_too(snapshot: lake.Snapshot) -> None:
    """Such errors come another way, through Arrow."""
    sql = "SELECT (CASE WHEN range > 1000000 THEN 'x' ELSE '1' END)::INT FROM range(2000000)"
    with snapshot.stream(sql) as answer, pytest.raises(RejectError, match="Could not convert string 'x' to INT32"):
        for _ in answer:
            pass


@pytest.mark.parametrize("limits", [{"timeout_s": 0}, {"timeout_s": -1}, {"memory_bytes": 1}])
def test_limits_that_no_query_keeps_are_refused(snapshot: lake.Snapshot, limits: dict[str, float]) -> None:
    """Before anything runs."""
    with pytest.raises(RejectError, match="give more, or none"):
        snapshot.query("SELECT 1", **limits)  # type: ignore[arg-type]


def test_a_table_that_is_reached_without_its_name_is_an_error() -> None:
    """Files are looked up for tables that the query names; another way to a table must not find it empty."""
    relation = Relation("t", (Column("a", "long"),), None)
    with pytest.raises(RejectError, match="has to be named plainly"):
        run([relation], "SELECT * FROM t")
    assert run([relation], "DESCRIBE t").arrow().num_rows == 1


def test_files_with_fewer_columns_have_nulls_for_the_others(snapshot: lake.Snapshot) -> None:
    """A table that got a column later reads its older files with nulls, also when no file has it yet."""
    columns = (Column("name", "string"), Column("added", "long"))
    answer = run([Relation("t", columns, snapshot.files("readings"), True)], "SELECT name, added FROM t").arrow()
    assert (answer.num_rows, answer["added"].null_count) == (400, 400)


def test_scan_chooses_columns_devices_and_times(snapshot: lake.Snapshot) -> None:
    """Filters hold for each row, whichever files are read."""
    start = datetime.fromtimestamp(START_US / 1e6, UTC)
    rows = snapshot.scan(
        "readings",
        columns=["device", "value"],
        device="pi4",
        start=start + timedelta(seconds=10),
        end=start + timedelta(seconds=20),
    )
    assert rows.column_names == ["device", "value"]
    assert sorted(rows["value"].to_pylist()) == sorted([float(i) for i in range(10, 20)] * 2)
    assert set(rows["device"].to_pylist()) == {"pi4"}
    assert (
        snapshot.scan("readings_1m", device="pi5", start=start + timedelta(seconds=40))["count"].to_pylist() == [60] * 2
    )
    assert snapshot.scan("dead_letters").num_rows == 0


def test_scan_skips_files_by_their_statistics(snapshot: lake.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four files, the two of the device are read; outside all times, none."""
    read: list[int] = []

    def counting(relations: list[Relation], sql: str, parameters: list[object]) -> lake.Result:
        read.append(len(relations[0].files or []))
        return run(relations, sql, parameters)

    monkeypatch.setattr("lake.query.run", counting)
    assert snapshot.scan("readings", device="pi4").num_rows == 200
    assert snapshot.scan("readings", start=datetime(2100, 1, 1, tzinfo=UTC)).num_rows == 0
    assert snapshot.scan("readings", end=datetime(2000, 1, 1, tzinfo=UTC)).num_rows == 0
    assert read == [2, 0, 0]


def test_a_table_is_scanned_into_any_frame(snapshot: lake.Snapshot) -> None:
    """Moments as text, with any zone; Arrow, pandas, Polars, and whoever takes an Arrow stream."""
    start = datetime.fromtimestamp(START_US / 1e6, UTC)
    table = snapshot.table("readings")
    assert table.name == "readings"
    assert table.schema == KNOWN_TABLES["readings"]
    rows = table.scan(
        ["ts", "value"], device="pi4", start=start.isoformat(), end=f"{start + timedelta(seconds=5):%FT%TZ}"
    )
    assert len(rows) == 10
    assert rows.schema.names == rows.columns == ["ts", "value"]
    frame = rows.pandas()
    assert str(frame["ts"].dt.tz) == "UTC"
    assert frame["value"].sum() == 20
    assert (
        rows.polars()["value"].sum() == pl.DataFrame(rows)["value"].sum() == pl.from_arrow(rows.arrow())["value"].sum()
    )
    assert pa.table(rows).num_rows == 10
    assert "10 rows: ts, value" in repr(rows)
    folded = snapshot.table("readings_1m").scan(device="pi5")
    assert sorted(folded.pandas()["count"]) == [40, 40, 60, 60]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "nowhere"}, "there is no table 'nowhere' in this snapshot; it has readings, readings_1m"),
        ({"table": "reading"}, "did you mean readings?"),
        ({"table": "readings", "start": "yesterday"}, "'yesterday' is not a time; write it like 2026-01-01T00:00Z"),
        ({"table": "readings", "end": "2026-01-01"}, "2026-01-01T00:00:00 has no time zone; add one: "),
        ({"table": "readings", "columns": ["nothing"]}, "table readings has no column 'nothing'"),
        ({"table": "readings", "start": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001
    ],
)
def test_scan_says_what_is_wrong(snapshot: lake.Snapshot, arguments: dict[str, object], message: str) -> None:
    """An unknown table or column, a moment without a zone."""
    with pytest.raises(RejectError, match=message):
        snapshot.scan(**arguments)  # type: ignore[arg-type]
