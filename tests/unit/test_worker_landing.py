"""One step's way into the lake when tables change under it, and what a job that is not the default one lands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import lake
from edge_agent.contract import wire
from edge_agent.contract.clock import ManualClock
from edge_agent.contract.columns import Column, floats, integers, strings, timestamps
from edge_agent.contract.errors import FencedError, RejectError, RetryError, StopError
from edge_agent.contract.wire import Reason
from stream_jobs.default_job import job as default_job
from stream_jobs.jobs import Job
from stream_jobs.worker.landing import REFUSALS_MAX, Landing
from tests.kit.worker_world import Link, MemoryLake, MemoryLog, epoch, readings_message, records_of, value_of


class World:
    """A landing on a lake in memory."""

    def __init__(self, job: Job = default_job, check: Any = None, clock: ManualClock | None = None) -> None:
        self.log, self.lake = MemoryLog(), MemoryLake()
        self.alarms: list[str] = []
        self.landing = Landing(
            job=job, lake=self.lake, link=Link, open_log=lambda: self.log, clock=clock or ManualClock(),
            alarm=self.alarms.append, check=check,
        )  # fmt: skip

    def step(self, *messages: bytes) -> None:
        """Land messages of partition 0, which is taken up first."""
        partitions = self.landing.take_up([0], lambda: False)
        records = records_of(0, messages, partitions[0].offset)
        for message in messages:
            self.log.append(0, message)
        self.landing.step(partitions, {0: records}, lambda: False)


@pytest.fixture
def world() -> Iterator[World]:
    """Of the default job."""
    found = World()
    yield found
    found.landing.close()


def test_a_table_that_changed_in_between_is_asked_again(world: World) -> None:
    """Rows that were checked and are refused: the step is void and runs again, and only a lasting refusal ends it."""
    for _ in range(2):
        world.lake.prepare_errors = [RejectError("table readings has no column 'value'")]
        with pytest.raises(FencedError, match="a table was changed while the step ran: table readings has no"):
            world.step(readings_message("pi", 1))
    world.step(readings_message("pi", 1))
    assert world.lake.row_count("readings") == 3
    world.lake.prepare_errors = [RejectError("no")] * REFUSALS_MAX
    for _ in range(REFUSALS_MAX - 1):
        with pytest.raises(FencedError):
            world.step(readings_message("pi", 2))
    with pytest.raises(StopError, match="the lake refuses what it took when asked: no; please report it"):
        world.step(readings_message("pi", 2))


def test_a_lake_that_cannot_be_asked_costs_no_rows() -> None:
    """The check is repeated; nothing becomes a dead letter because a disk was slow."""
    failures = [RetryError("the disk is slow")] * 2

    def check(table: str, rows: Any) -> Any:
        if failures:
            raise failures.pop()
        return rows

    world = World(check=check)
    world.step(readings_message("pi", 1))
    world.landing.close()
    assert world.lake.row_count("readings") == 3
    assert "dead_letters" not in world.lake.tables


def _message(stream: str, seq: int, *columns: Column) -> bytes:
    body = wire.encode_columns([timestamps("ts", [1]), *columns])
    return wire.encode_batch(body, device="pi", epoch=epoch(), seq=seq, rows=1, stream=stream)


def test_another_job_keeps_only_its_own_failures() -> None:
    """What nobody can decode, skips, and streams that it does not read are the default job's."""
    job = Job("gas", {"gas": {"ts": "timestamp", "level": "int64"}})
    job.step(stream="gas", table="levels")(lambda rows: rows)
    job.step(stream="readings", table="r")(print)
    messages = [
        b"nonsense",
        _message("gas", 1, integers("level", [7])),
        _message("gas", 2, strings("level", ["high"])),
        _message("doors", 3, integers("x", [1])),
        _message("readings", 4, floats("only", [1.0])),
        wire.encode_skip(device="pi", epoch=epoch(), seq_first=5, seq_last=5, reason=Reason.LOST),
        wire.encode_batch(b"no columns", device="pi", epoch=epoch(), seq=6, rows=1, stream="gas"),
    ]
    world = World(job)
    world.step(*messages)
    world.landing.close()
    assert {table: world.lake.row_count(table) for table in world.lake.tables} == {"levels": 1, "dead_letters": 1}
    (letter,) = world.lake.rows("dead_letters")
    assert (letter["job"], letter["seq"]) == ("gas", 2)
    assert "column 'level' has type dictionary, the stream's is int64" in letter["reason"]
    default = World()
    default.step(*messages)
    default.landing.close()
    assert [(row["seq"], row["job"]) for row in default.lake.rows("dead_letters")] == [
        (None, None), (4, "readings"), (6, None), (2, "readings"),
    ]  # fmt: skip
    assert {table: default.lake.row_count(table) for table in ("doors", "gas", "skipped")} == {
        "doors": 1, "gas": 1, "skipped": 1,
    }  # fmt: skip


def test_batches_of_one_transaction_that_do_not_go_together(tmp_path: Path) -> None:
    """Two types of one new column: the first lands, the second is a dead letter, the third is converted."""
    with lake.open(tmp_path, create=True) as here:
        log = MemoryLog()
        landing = Landing(
            job=default_job, lake=here, link=lake.Link, open_log=lambda: log, clock=ManualClock(), alarm=print,
            check=here.check,
        )  # fmt: skip
        partitions = landing.take_up([0], lambda: False)
        columns = [floats("level", [0.5]), strings("level", ["x"]), integers("level", [3]), integers("Level", [3])]
        messages = [_message("gas", seq, column) for seq, column in enumerate(columns, 1)]
        landing.step(partitions, {0: records_of(0, messages)}, lambda: False)
        landing.close()
        rows = here.snapshot().query("SELECT seq, level FROM gas ORDER BY seq").arrow().to_pylist()
        letters = here.snapshot().query("SELECT seq, reason FROM dead_letters ORDER BY seq").arrow().to_pylist()
    assert rows == [{"seq": 1, "level": 0.5}, {"seq": 3, "level": 3.0}]
    assert [letter["seq"] for letter in letters] == [2, 4]
    assert "column 'level' of table gas was double in rows just before" in letters[0]["reason"]
    assert "column 'Level' of table gas was 'level' in rows just before" in letters[1]["reason"]


def test_partial_results_of_a_job_are_folded_when_read(tmp_path: Path) -> None:
    """A column whose field says how it folds keeps that on its way into a new table."""
    job = Job("sums")
    folded = [("device", pa.string(), b"key"), ("total", pa.float64(), b"sum"), ("batches", pa.int64(), b"sum")]
    schema = pa.schema([pa.field(name, kind, metadata={b"edgewater.fold": fold}) for name, kind, fold in folded])

    @job.step(stream="readings", table="totals")
    def totals(rows: Any) -> Any:
        total = pc.sum(rows["value"]).as_py()
        return pa.table({"device": ["pi"], "total": [total], "batches": [1]}, schema=schema)

    with lake.open(tmp_path, create=True) as here:
        log = MemoryLog()
        landing = Landing(
            job=job, lake=here, link=lake.Link, open_log=lambda: log, clock=ManualClock(), alarm=print, check=here.check
        )
        for seq in (1, 2, 3):
            partitions = landing.take_up([0], lambda: False)
            message = readings_message("pi", seq)
            log.append(0, message)
            landing.step(partitions, {0: records_of(0, [message], seq - 1)}, lambda: False)
        landing.close()
        (row,) = here.snapshot().query("SELECT * FROM totals").arrow().to_pylist()
    values = [value_of("pi", seq, row) for seq in (1, 2, 3) for row in range(3)]
    assert row == {"device": "pi", "total": pytest.approx(sum(values)), "batches": 3}


def test_failures_are_told_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever runs a job sees at once that a step fails, how often and with what, and not a line for each batch."""
    job = Job("j")

    @job.step(stream="readings", table="t")
    def fails(rows: Any) -> Any:
        raise ValueError("always")

    clock = ManualClock()
    world = World(job, clock=clock)
    with caplog.at_level("WARNING", "edgewater.worker"):
        world.step(readings_message("pi", 1), readings_message("pi", 2))
        world.step(readings_message("pi", 3))
        clock.advance(11)
        world.step(readings_message("pi", 4))
    world.landing.close()
    tail = "batches, which are in the table dead_letters; the last: ValueError: always"
    assert [record.getMessage() for record in caplog.records] == [
        f"step fails failed for 2 {tail}", f"step fails failed for 2 {tail}",
    ]  # fmt: skip
    assert world.lake.row_count("dead_letters") == 4


def test_a_lake_has_a_most_of_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams named after something that changes end as dead letters; tables that there are take their rows."""
    monkeypatch.setattr("stream_jobs.worker.landing.TABLES_MAX", 3)
    with lake.open(tmp_path, create=True) as here:
        here.commit({"gas": pa.table({"level": [0.5]}), "old": pa.table({"a": [1]})})
        log = MemoryLog()
        landing = Landing(
            job=default_job, lake=here, link=lake.Link, open_log=lambda: log, clock=ManualClock(), alarm=print,
            check=here.check, tables=lambda: here.snapshot().tables,
        )  # fmt: skip
        names = ["gas_1", "gas_2", "gas", "gas_1", "gas_3"]
        messages = [_message(name, seq, floats("level", [1.0])) for seq, name in enumerate(names, 1)]
        landing.step(landing.take_up([0], lambda: False), {0: records_of(0, messages)}, lambda: False)
        landing.close()
        assert here.snapshot().query("SELECT seq FROM gas_1 ORDER BY seq").arrow()["seq"].to_pylist() == [1, 4]
        assert here.snapshot().query("SELECT max(seq) AS seq FROM gas").arrow()["seq"].to_pylist() == [3]
        letters = here.snapshot().query("SELECT seq, reason FROM dead_letters ORDER BY seq").arrow().to_pylist()
    assert [letter["seq"] for letter in letters] == [2, 5]
    assert "tables of the lake of 4 exceeds its limit of 3; gas_2 would be a new one" in letters[0]["reason"]
