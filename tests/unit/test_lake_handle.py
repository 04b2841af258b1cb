"""A lake through its public face: transactions over several tables, chains, snapshots, upkeep of the logs."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

import lake
from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import FencedError, RejectError, RetryError, StopError
from lake.aggregate import partials_from
from lake.delta import DeltaLog, files_at, net_changes
from lake.schema import READINGS, columns_of
from lake.storage import DirectoryStorage
from lake.transaction.records import Change, File, RemovedFile
from tests.kit.lake_rows import readings


def _link(origin: int, offset: int = 1, state: bytes = b"state", partition: int = 0) -> lake.Link:
    return lake.Link(
        job="readings",
        partition=partition,
        origin_transaction=origin,
        offset=offset,
        topic_id="topic",
        last_record_crc=7,
        state=state,
    )


def _seqs(here: lake.Lake, at: int | None = None) -> list[int]:
    return sorted(here.snapshot(at).scan("readings", columns=["seq"])["seq"].to_pylist())


@pytest.fixture
def here(tmp_path: Path) -> lake.Lake:
    """An empty lake."""
    return lake.open(tmp_path / "lake", create=True)


def test_the_public_names_are_these() -> None:
    """Sorted, and each of them is there."""
    assert lake.__all__ == sorted(lake.__all__)
    assert all(getattr(lake, name) for name in lake.__all__)
    with pytest.raises(AttributeError):
        lake.nothing  # noqa: B018


def test_a_commit_is_seen_in_all_tables_at_once(here: lake.Lake) -> None:
    """Rows, aggregates and the chain's head, by one number."""
    rows = readings(10)
    number = here.commit({"readings": rows, "readings_1m": partials_from(rows)}, [_link(0, 42)])
    snapshot = here.snapshot()
    assert snapshot.transaction == number
    assert snapshot.versions == {"readings": 1, "readings_1m": 1}
    assert (snapshot.rows("readings"), snapshot.rows("readings_1m")) == (10, 2)
    assert here.chain("readings", 0) == lake.ChainHead(number, 42, "topic", 7, b"state")
    assert here.chain("readings", 1) == lake.ChainHead(0, 0, "", None, b"")


def test_what_is_prepared_or_decided_is_not_seen_before_it_is_applied(here: lake.Lake) -> None:
    """Readers see published snapshots; chains know decided transactions."""
    prepared = here.prepare({"readings": readings(1)}, [_link(0)])
    assert here.chain("readings", 0).transaction == 0
    number = here.decide(prepared)
    assert here.chain("readings", 0).transaction == number
    assert _seqs(here) == []
    assert here.apply() == number
    assert _seqs(here) == [1]


def test_many_decisions_are_one_commit_a_table(here: lake.Lake) -> None:
    """Group commit: five decisions, one version more."""
    for seq in range(5):
        last = here.decide(here.prepare({"readings": readings(1, seq=seq)}))
    assert here.apply() == last
    assert here.snapshot().versions == {"readings": 1}
    assert _seqs(here) == [0, 1, 2, 3, 4]


def test_deciding_again_gives_the_same_number(here: lake.Lake) -> None:
    """A worker that does not know whether its decision arrived decides again, before and after it was applied."""
    prepared = here.prepare({"readings": readings(1)}, [_link(0)])
    number = here.decide(prepared)
    assert here.decide(prepared) == number
    here.apply()
    assert here.decide(prepared) == number
    here.commit({}, [_link(number)])
    assert here.decide(prepared) == number
    assert _seqs(here) == [1]


def test_a_worker_that_lost_its_partition_is_fenced(tmp_path: Path) -> None:
    """Two handles, as two workers: the one with the old origin is told to load its state anew, and changes nothing."""
    old = lake.open(tmp_path, create=True)
    new = lake.open(tmp_path)
    stale = old.prepare({"readings": readings(1, seq=1)}, [_link(0)])
    number = new.commit({"readings": readings(1, seq=2)}, [_link(0)])
    with pytest.raises(FencedError, match=r"does not count \(chain\): another process has moved on this partition"):
        old.decide(stale)
    old.apply()
    assert _seqs(new) == [2]
    assert old.chain("readings", 0).transaction == number
    assert old.decide(old.prepare({"readings": readings(1, seq=3)}, [_link(number)])) > number


def test_state_comes_back_whole_small_or_large(here: lake.Lake) -> None:
    """Inside the record up to 16 KiB, as a file beyond; a damaged file is seen."""
    origin = 0
    for size in (0, 1, 16 * 1024, 16 * 1024 + 1, 1_000_000):
        state = os.urandom(size)
        origin = here.commit({}, [_link(origin, state=state)])
        assert here.chain("readings", 0).state == state
    folder = Path(here.location) / "states"
    newest = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.raises(StopError, match="is missing or damaged"):
        here.chain("readings", 0)


def test_a_snapshot_is_the_first_at_or_after_a_transaction(here: lake.Lake) -> None:
    """Each published state can be read again by its number, and by those within it."""
    first = here.commit({"readings": readings(1, seq=1)})
    second = here.decide(here.prepare({"readings": readings(1, seq=2)}))
    third = here.decide(here.prepare({"readings": readings(1, seq=3)}))
    here.apply()
    assert _seqs(here, first) == [1]
    assert _seqs(here, second) == _seqs(here, third) == [1, 2, 3]
    assert here.snapshot(second).transaction == third


def test_snapshots_that_cannot_be_had_say_why(tmp_path: Path) -> None:
    """Not numbered, not there yet, not published yet, forgotten."""
    clock = ManualClock()
    here = lake.open(tmp_path, create=True, clock=clock)
    with pytest.raises(RejectError, match="there is no 0"):
        here.snapshot(0)
    with pytest.raises(RejectError, match="transaction 9 does not exist, the last is 0"):
        here.snapshot(9)
    number = here.decide(here.prepare({"readings": readings(1)}))
    with pytest.raises(RetryError, match=f"transaction {number} is not published yet"):
        here.snapshot(number)
    here.apply()
    clock.advance(3601)
    here.commit({"readings": readings(1)})
    with pytest.raises(RejectError, match=f"transaction {number} is not kept any more"):
        here.snapshot(number)


def test_a_pinned_snapshot_stays_as_it_is(here: lake.Lake) -> None:
    """While others commit, a snapshot's answers do not change."""
    here.commit({"readings": readings(1, seq=1)})
    pinned = here.snapshot()
    here.commit({"readings": readings(1, seq=2)})
    assert pinned.query("SELECT count(*) FROM readings").arrow()[0][0].as_py() == 1
    assert pinned.scan("readings").num_rows == 1


def test_rows_that_do_not_fit_are_refused_before_anything_is_written(here: lake.Lake) -> None:
    """A type, a column, a name: the error says which, and no file is there."""
    with pytest.raises(RejectError, match="column 'value' of table readings is double"):
        here.prepare({"readings": readings(1).set_column(2, "value", pa.array([1]))})
    with pytest.raises(RejectError, match="table readings has no column 'Value' but 'value'"):
        here.check("readings", readings(1).append_column("Value", pa.array([1])))
    with pytest.raises(RejectError, match="table name"):
        here.prepare({"../x": readings(1)})
    field = pa.field("a", pa.int64(), metadata={b"edgewater.fold": b"average"})
    with pytest.raises(RejectError, match="folds by 'average'"):
        here.prepare({"t": pa.table({"a": [1]}, schema=pa.schema([field]))})
    assert list((Path(here.location) / "tables").rglob("*.parquet")) == []
    assert here.check("readings", readings(2)).num_rows == 2


def test_a_table_of_ones_own_is_created_by_its_first_rows(here: lake.Lake) -> None:
    """Its schema is that of the rows, and later rows must fit it."""
    here.commit({"alerts": pa.table({"device": ["a"], "level": pa.array([1], pa.int16())})})
    assert here.snapshot().query("SELECT * FROM alerts").arrow().to_pylist() == [{"device": "a", "level": 1}]
    with pytest.raises(RejectError, match="column 'level' of table alerts is short"):
        here.prepare({"alerts": pa.table({"level": ["high"]})})


def test_when_writing_fails_nothing_stays_behind(here: lake.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two files cannot be synced: the error is to be retried, and both files are gone."""
    original = DirectoryStorage.sync_files

    def full(storage: DirectoryStorage, paths: list[str]) -> None:
        if "readings_1m" in paths[0]:
            raise RetryError("no space left")
        original(storage, paths)

    monkeypatch.setattr(DirectoryStorage, "sync_files", full)
    rows = readings(10)
    with pytest.raises(RetryError, match="no space left"):
        here.prepare({"readings": rows, "readings_1m": partials_from(rows)})
    assert list((Path(here.location) / "tables").rglob("*.parquet")) == []


def test_preparing_waits_when_nobody_applies(here: lake.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is decided and not applied is bounded; after applying it goes on."""
    monkeypatch.setattr("lake.handle.PENDING_MAX", 3)
    for seq in range(3):
        here.decide(here.prepare({"readings": readings(1, seq=seq)}))
    with pytest.raises(RetryError, match="3 decided transactions wait to be applied, the most is 3"):
        here.prepare({"readings": readings(1)})
    here.apply()
    here.commit({"readings": readings(1, seq=3)})
    assert _seqs(here) == [0, 1, 2, 3]


def test_there_must_be_a_lake(tmp_path: Path) -> None:
    """Opening something else says so; creating twice opens what is there."""
    with pytest.raises(StopError, match=r"no lake in .*none \(it does not exist\); `edgewater up --dir .*none` starts"):
        lake.open(tmp_path / "none")
    with pytest.raises(StopError, match=r"it has neither lake.json nor lake/lake.json"):
        lake.open(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StopError, match="is a URL"):
        lake.open("s3://bucket/lake")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StopError, match="it is no directory"):
        lake.open(tmp_path / "file")
    with pytest.raises(StopError, match="cannot make a lake"):
        lake.open(tmp_path / "file", create=True)
    one, two = lake.open(tmp_path / "lake", create=True), lake.open(tmp_path / "lake", create=True)
    assert one.lake_id == two.lake_id


def test_a_directory_of_up_has_its_lake_below(tmp_path: Path) -> None:
    """Its folder `lake` is what is opened, also with `create`; a lake's own directory comes first."""
    below = lake.open(tmp_path / "lake", create=True)
    assert lake.open(tmp_path).lake_id == lake.open(tmp_path, create=True).lake_id == below.lake_id
    assert not (tmp_path / "lake.json").exists()
    other = lake.open(tmp_path / "lake" / "lake", create=True)
    assert lake.open(tmp_path / "lake").lake_id == below.lake_id != other.lake_id


def test_a_handle_answers_from_the_newest_snapshot(here: lake.Lake) -> None:
    """Queries and tables of the handle see each commit; how far the lake is can be asked."""
    assert here.progress().transaction == 0
    here.commit({"readings": readings(2)})
    assert here.query("SELECT count(*) AS n FROM readings WHERE device = ?", ["pi4"]).arrow().to_pylist() == [{"n": 2}]
    here.commit({"readings": readings(3)}, [_link(0)])
    assert len(here.table("readings").scan(columns=["value"])) == 5
    number = here.decide(here.prepare({"readings": readings(1)}))
    progress = here.progress()
    assert (progress.transaction, progress.waiting) == (number, 1)
    assert progress.published < number
    assert progress.chains == (("readings", 0),)
    with pytest.raises(RejectError, match="there is no table 'reading' in this snapshot; did you mean readings"):
        here.table("reading")


def test_a_lake_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """Its identity says so, before anything else is read."""
    from lake.transaction.records import seal

    lake.open(tmp_path, create=True)
    text = json.loads((tmp_path / "lake.json").read_bytes())
    del text["crc32"]
    (tmp_path / "lake.json").write_bytes(seal(text | {"version": 2}))
    with pytest.raises(StopError, match=r"lake\.json is in version 2 of edgewater-lake"):
        lake.open(tmp_path)


def test_another_process_applies_after_the_lease_is_given_back(tmp_path: Path) -> None:
    """While one holds the lease, another decides only; closing hands it over at once."""
    one = lake.open(tmp_path, create=True)
    one.commit({"readings": readings(1, seq=1)})
    two = lake.open(tmp_path)
    number = two.decide(two.prepare({"readings": readings(1, seq=2)}))
    assert two.apply() < number
    one.close()
    assert two.apply() == number
    assert _seqs(one) == [1, 2]
    two.close()
    two.close()


def test_an_applier_that_was_replaced_does_not_publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps between applying and publishing; another takes over and publishes; rows are there once."""
    clock = ManualClock()
    sleeper, other = lake.open(tmp_path, create=True, clock=clock), lake.open(tmp_path, clock=clock)
    sleeper.commit({"readings": readings(1, seq=0)})
    assert other.apply()
    original = DeltaLog.commit

    def sleep(log: DeltaLog, *arguments: object) -> int:
        version = original(log, *arguments)  # type: ignore[arg-type]
        monkeypatch.setattr(DeltaLog, "commit", original)
        clock.advance(11)
        other.decide(other.prepare({"readings": readings(1, seq=2)}))
        assert other.apply() > first
        return version

    first = sleeper.decide(sleeper.prepare({"readings": readings(1, seq=1)}))
    monkeypatch.setattr(DeltaLog, "commit", sleep)
    published = sleeper.apply()
    assert published > first
    assert _seqs(other) == [0, 1, 2]
    assert ("publication", "lease") not in [(type(r.body).__name__.lower(), why) for r, why in other.records()]


def test_threads_share_a_handle(here: lake.Lake) -> None:
    """Eight threads commit ten times each on chains of their own: every row once, each chain in order."""
    errors: list[BaseException] = []

    def run(partition: int) -> None:
        try:
            origin = 0
            for step in range(10):
                rows = readings(1, seq=partition * 100 + step)
                origin = here.commit({"readings": rows}, [_link(origin, step, partition=partition)])
        except BaseException as error:  # noqa: BLE001 - handed to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(partition,)) for partition in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert _seqs(here) == sorted(partition * 100 + step for partition in range(8) for step in range(10))


def test_logs_stay_short_and_opening_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 130 transactions both logs have checkpoints, old records are gone, and all rows are there."""
    clock = ManualClock()
    here = lake.open(tmp_path, create=True, clock=clock)
    for seq in range(130):
        here.commit({"readings": readings(1, seq=seq)})
    log = tmp_path / "tables" / "readings" / "_delta_log"
    assert (log / f"{50:020d}.checkpoint.parquet").exists()
    assert json.loads((log / "_last_checkpoint").read_bytes())["version"] == 100
    assert len(list((tmp_path / "transactions").glob("*.json"))) < 200
    assert len(list((tmp_path / "transactions" / "checkpoints").iterdir())) == 2
    again = lake.open(tmp_path)
    assert _seqs(again) == list(range(130))
    assert DeltaTable(str(tmp_path / "tables" / "readings")).version() == 130


def test_a_plain_delta_reader_sees_the_rows(here: lake.Lake) -> None:
    """Tables are Delta tables for everybody: schema, rows, statistics, the lake's last transaction."""
    number = here.commit({"readings": readings(5)})
    table = DeltaTable(str(Path(here.location) / "tables" / "readings"))
    assert pa.schema(table.schema().to_arrow()).names == READINGS.names
    assert table.transaction_version(f"edgewater/{here.lake_id}") == number
    assert pa.table(table.get_add_actions(flatten=True))["num_records"].to_pylist() == [5]
    assert table.to_pyarrow_table().num_rows == 5


def test_a_delta_commit_cut_short_by_power_loss_is_applied_again(here: lake.Lake) -> None:
    """The last file of a Delta log is torn and no snapshot covers it: it is made anew, rows are there once."""
    here.commit({"readings": readings(1, seq=1)})
    number = here.decide(here.prepare({"readings": readings(1, seq=2)}))
    torn = Path(here.location) / "tables" / "readings" / "_delta_log" / f"{2:020d}.json"
    torn.write_bytes(b'{"commitInfo":{}}\n{"add":{"path":"')
    here.close()
    again = lake.open(here.location)
    assert again.apply() == number
    assert _seqs(again) == [1, 2]


def test_what_remains_of_several_changes() -> None:
    """A file added and removed within a group never appears in the table."""
    changes = [
        Change(adds=(File("a", 1, {}), File("b", 1, {}))),
        Change(adds=(File("c", 1, {}),), removes=(RemovedFile("a", 1), RemovedFile("old", 1))),
    ]
    adds, removes = net_changes(changes)
    assert [file.path for file in adds] == ["b", "c"]
    assert [file.path for file in removes] == ["old"]


def test_a_delta_log_takes_a_transaction_once(tmp_path: Path) -> None:
    """Applied again by a fresh handle and by an old one, in groups that overlap: every file once, removals too."""
    storage = DirectoryStorage(tmp_path)
    storage.make_folders()
    schema = columns_of(pa.schema([("a", pa.int64())]), "t")
    (tmp_path / "tables" / "t").mkdir()

    def log() -> DeltaLog:
        opened = DeltaLog(storage, "tables/t", "id", 3600)
        opened.start_from(-1)
        return opened

    changes = {
        2: Change(adds=(File("f2", 1, {"numRecords": 1}),)),
        5: Change(adds=(File("f5", 1, {"numRecords": 1}),)),
        6: Change(adds=(File("f6", 1, {"numRecords": 2}),), removes=(RemovedFile("f2", 1),), data_change=False),
    }
    old = log()
    assert old.commit(schema, {2: changes[2]}, 3, 0) == 1
    assert log().commit(schema, {2: changes[2], 5: changes[5]}, 5, 0) == 2
    assert old.commit(schema, {2: changes[2], 5: changes[5]}, 5, 0) == 2
    assert log().commit(schema, changes, 6, 0) == 3
    assert old.commit(schema, changes, 6, 0) == 3
    assert sorted(files_at(storage, "tables/t", 3)["path"].to_pylist()) == ["f5", "f6"]
    assert sorted(files_at(storage, "tables/t", 2)["path"].to_pylist()) == ["f2", "f5"]
    with pytest.raises(RejectError, match="version 99 of tables/t cannot be read any more"):
        files_at(storage, "tables/t", 99)
