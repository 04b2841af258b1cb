"""SQL over a snapshot: it answers, it reads the lake's files, and it can do nothing else."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import lake
from edge_agent.contract.errors import RejectError
from lake.aggregate import partials_from
from lake.query import Relation, run
from lake.schema import KNOWN_TABLES
from lake.transaction.records import Column
from tests.kit.lake_rows import START_US, readings


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
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM query('COPY (SELECT 1) TO ''{out}''')",
        "SELECT * FROM enable_logging(storage := 'file', storage_path := '{out}')",
        "SELECT getenv('HOME')",
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
    with pytest.raises(RejectError, match=r'the query failed: Binder Error: .*"nothing" not found'):
        snapshot.query("SELECT nothing FROM readings")
    with pytest.raises(RejectError, match=r"the query failed: .*nowhere"):
        snapshot.query("SELECT * FROM nowhere")


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": "nowhere"}, "there is no table 'nowhere' in this snapshot; it has readings, readings_1m"),
        ({"table": "readings", "columns": ["nothing"]}, "table readings has no column 'nothing'"),
        ({"table": "readings", "start": datetime(2026, 1, 1)}, "has no time zone"),  # noqa: DTZ001
    ],
)
def test_scan_says_what_is_wrong(snapshot: lake.Snapshot, arguments: dict[str, object], message: str) -> None:
    """An unknown table or column, a moment without a zone."""
    with pytest.raises(RejectError, match=message):
        snapshot.scan(**arguments)  # type: ignore[arg-type]
