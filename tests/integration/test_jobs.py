"""Job files end to end: beside the default job on the same log and lake, killed, raising, and every stream landing."""

from __future__ import annotations

import random
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lake
from edge_agent.contract import wire
from edge_agent.contract.columns import Column, booleans, floats, integers, strings, timestamps
from edge_agent.contract.ring import shard_of
from edge_agent.contract.topics import LOG_BATCHES, batch_topic
from stream_jobs.bridge.dead_letters import encode_dead_letter
from tests.kit.bridge_device import ScriptedDevice
from tests.kit.processes import Product, edgewater, python_module
from tests.kit.services import embedded_services
from tests.kit.wait import until
from tests.kit.worker_chain import Chain
from tests.kit.worker_world import NOW_US, epoch, readings_message

pytestmark = pytest.mark.long

HIGH = """
import pyarrow.compute as pc
from stream_jobs import Job

job = Job("high")

@job.step(stream="readings", table="high_values")
def high_values(rows):
    return rows.filter(pc.greater(rows["value"], 50.0)).select(["ts", "device", "epoch", "seq", "row", "value"])

@job.step(stream="doors", table="openings")
def openings(rows):
    if "broken" in rows["door"].to_pylist():
        raise LookupError("no such door")
    return rows.filter(rows["open"]).select(["ts", "door"])
"""
RAISES_AT = HIGH.splitlines().index('        raise LookupError("no such door")') + 1


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """A log with its topics and table."""
    chain = Chain(tmp_path)
    yield chain
    chain.producer.close()
    chain.log.stop()


def _job(chain: Chain) -> Path:
    path = chain.directory / "high.py"
    path.write_text(textwrap.dedent(HIGH), "utf-8")
    return path


def _send(chain: Chain, device: str, seq: int, stream: str, columns: list[Column]) -> None:
    body = wire.encode_columns(columns)
    message = wire.encode_batch(body, device=device, epoch=epoch(), seq=seq, rows=columns[0].rows, stream=stream)
    chain.send(message, device)


def _doors(names: list[str], *more: Column) -> list[Column]:
    ts = timestamps("ts", [NOW_US + n for n in range(len(names))])
    return [ts, strings("door", names), booleans("open", [n % 2 == 0 for n in range(len(names))]), *more]


def _landed(chain: Chain, worker: Product, batches: int) -> None:
    """Wait until a worker has consumed that many records."""

    def consumed() -> bool:
        assert worker.alive, worker.tail()
        partitions = (worker.status() or {}).get("partitions", {}).values()
        return sum(partition["offset"] for partition in partitions) >= batches

    until(consumed, 30, f"{batches} records consumed by {worker.name}")


def _until_rows(chain: Chain, table: str, count: int) -> list[dict[str, Any]]:
    def rows() -> list[dict[str, Any]]:
        return chain.query(f"SELECT * FROM {table}")

    def there() -> bool:
        with lake.open(chain.directory / "lake") as here:
            known = here.snapshot().tables
        return table in known and len(rows()) >= count

    until(there, 30, f"{count} rows in {table}")
    return rows()


@pytest.mark.timeout(180)
def test_a_job_beside_the_default_one_killed_again_and_again(chain: Chain, seed: int) -> None:
    """The job's table equals what its step makes of the raw rows, after kill -9 at each point and at random."""
    rng = random.Random(seed)
    job = _job(chain)
    with chain.worker() as default:
        default.ready()
        for point in ("worker.prepare.before:2", "worker.decide.before:2", "worker.decide.after:2", None):
            environment = {"EDGEWATER_CRASH_POINT": point} if point else {}
            worker = chain.worker("worker-high", job, **environment).start()
            until(lambda w=worker: w.status() is not None or not w.alive, 30, "the job's worker")
            for _ in range(8):
                chain.produce(rng, 10)
            if point is not None:
                until(lambda w=worker, r=rng: _ended(chain, w, r), 30, f"the end at {point}")
            worker.kill()
        chain.produce(rng, 20)
        with chain.worker("worker-high", job) as worker:
            worker.ready()
            chain.expect_everything()
            wanted = chain.query(
                "SELECT ts, device, epoch, seq, row, value FROM readings WHERE value > 50 ORDER BY ALL"
            )
            assert len(wanted) > 100
            found = until(
                lambda: (
                    (rows := chain.query("SELECT * FROM high_values ORDER BY ALL"))
                    and len(rows) >= len(wanted)
                    and rows
                ),
                30,
                "the job's rows",
            )
            assert found == wanted
            assert (worker.status() or {})["dead_letters"] == 0
        assert chain.query("SELECT count(*) AS n FROM dead_letters") == [{"n": 0}]


@pytest.mark.timeout(120)
def test_what_a_bridge_cannot_read_is_in_the_lake(tmp_path: Path) -> None:
    """A payload without a header, sent over MQTT, becomes a row of `dead_letters` with its topic and reason; batches
    between such payloads land."""
    with embedded_services(tmp_path) as services:
        run_dir = services.directory / "run"
        bridge = python_module(
            "stream_jobs.bridge", "--mqtt-url", services.mqtt_url, "--bootstrap-servers", services.bootstrap_servers,
            "--run-dir", run_dir, "--partitions", "2",
        )  # fmt: skip
        worker = python_module(
            "stream_jobs.worker", "--bootstrap-servers", services.bootstrap_servers, "--lake", tmp_path / "lake",
            "--run-dir", run_dir, "--commit-interval-s", "0.1",
        )  # fmt: skip
        with Product(run_dir, "bridge", bridge), Product(run_dir, "worker", worker) as landing:
            landing.ready(60)
            with ScriptedDevice(services.mqtt_url, "pi") as device:
                for number in range(50):
                    device.accept(1)
                    device._client.publish(batch_topic("pi"), b"nonsense %d" % number, qos=1)
                until(lambda: device.drained, 30, "the device's batches")

            def letters() -> list[dict[str, Any]]:
                with lake.open(tmp_path / "lake") as here:
                    sql = 'SELECT * FROM dead_letters WHERE device IS NULL ORDER BY partition, "offset"'
                    found: list[dict[str, Any]] = here.snapshot().query(sql).arrow().to_pylist()
                    return found

            until(lambda: len(letters()) >= 50, 30, "50 dead letters")
            found = letters()
    assert [bytes(row["payload"]) for row in found] == [b"nonsense %d" % number for number in range(50)]
    assert {row["topic"] for row in found} == {batch_topic("pi")}
    assert all(row["reason"] and row["job"] is None for row in found)


def _ended(chain: Chain, worker: Product, rng: random.Random) -> bool:
    if worker.alive:
        chain.produce(rng, 2)
    return not worker.alive


@pytest.mark.timeout(120)
def test_every_stream_lands_and_what_does_not_fit_is_a_dead_letter(chain: Chain) -> None:
    """A stream without declaration lands exactly, takes on a new column, converts whole numbers where that is exact;
    another type, an impossible name and a raising step are dead letters with their job and reason."""
    big = (1 << 53) + 1
    job = _job(chain)
    with chain.worker() as default, chain.worker("worker-high", job) as high:
        default.ready()
        high.ready()
        _send(chain, "pi", 1, "doors", _doors(["a", "ü", ""], integers("code", [big, -(1 << 63), None])))
        assert _until_rows(chain, "doors", 3)[0]["device"] == "pi"
        _send(chain, "pi", 2, "doors", _doors(["b"], floats("level", [0.5])))
        _until_rows(chain, "doors", 4)
        _send(chain, "pi", 3, "doors", _doors(["c"], integers("level", [7])))
        _send(chain, "pi", 4, "doors", _doors(["d"], integers("level", [big])))
        _send(chain, "pi", 5, "doors", _doors(["e"], strings("level", ["high"])))
        _send(chain, "pi", 6, "doors", _doors(["broken"]))
        _send(chain, "pi", 7, "doors", [timestamps("ts", [1]), strings("device", ["me"])])
        _send(chain, "pi", 8, "_hidden", [timestamps("ts", [1])])
        _send(chain, "pi", 9, "skipped", [timestamps("ts", [1])])
        said = {"payload": "1;x", "reason": "no number", "place": "f.csv:17"}
        text = [strings(name, [value]) for name, value in said.items()]
        _send(chain, "pi", 10, "dead_letters", [timestamps("ts", [NOW_US]), *text])
        # What a bridge puts aside.
        partition = chain.table[shard_of("pi")]
        aside = encode_dead_letter(b"\xff\xfe", topic="edgewater/batch/1/x", reason="no header", time_us=1)
        chain.producer.append(LOG_BATCHES, partition, None, aside, lambda *_: None)
        chain.send(readings_message("pi", 11), "pi")
        for worker in (default, high):
            _landed(chain, worker, 12)
        rows = {row["door"]: row for row in _until_rows(chain, "doors", 6)}
        until(lambda: chain.query("SELECT count(*) AS n FROM dead_letters")[0]["n"] >= 9, 20, "dead letters")
        letters = chain.query("SELECT * FROM dead_letters ORDER BY seq, job")
    assert {name: (row["code"], row["level"], row["open"]) for name, row in rows.items()} == {
        "a": (big, None, True), "ü": (-(1 << 63), None, False), "": (None, None, True),
        "b": (None, 0.5, True), "c": (None, 7.0, True), "broken": (None, None, True),
    }  # fmt: skip
    found = [(letter["seq"], letter["job"], letter["topic"]) for letter in letters]
    assert found == [
        (4, "readings", LOG_BATCHES), (5, "readings", LOG_BATCHES), (6, "high", LOG_BATCHES),
        (7, "high", LOG_BATCHES), (7, "readings", LOG_BATCHES), (8, "readings", LOG_BATCHES),
        (9, "readings", LOG_BATCHES), (10, None, "f.csv:17"), (None, None, "edgewater/batch/1/x"),
    ]  # fmt: skip
    reasons = [letter["reason"] for letter in letters]
    assert "column 'level' of table doors is double" in reasons[0]
    assert "column 'level' of table doors is double" in reasons[1]
    assert f'high.py", line {RAISES_AT}, in openings' in reasons[2]
    assert reasons[2].startswith("step openings raised\n")
    assert reasons[2].endswith("LookupError: no such door\n")
    assert "jobs.py" not in reasons[2]
    assert "has a column device, which every table has by itself" in reasons[3]
    assert "table name '_hidden' is not allowed" in reasons[5]
    assert "no stream may be named skipped" in reasons[6]
    assert (reasons[7], bytes(letters[7]["payload"])) == ("no number", b"1;x")
    assert (reasons[8], bytes(letters[8]["payload"])) == ("no header", b"\xff\xfe")
    openings = {row["door"] for row in chain.query("SELECT door FROM openings")}
    assert openings == {"a", "", "b", "c", "d", "e"}


def test_jobs_run_needs_a_directory_and_nothing_else(chain: Chain) -> None:
    """`edgewater jobs run FILE.py --dir DIR` finds lake, log and status directory of a stack, says what it runs, and
    ends with 0 when it is told to."""
    lake.open(chain.directory / "lake", create=True).close()
    chain.send(readings_message("pi", 1, rows=30), "pi")
    command = edgewater("jobs", "run", _job(chain), "--dir", chain.directory, "--commit-interval-s", "0.1")
    with Product(chain.run_dir, "worker-high", command) as worker:
        worker.ready(30)
        assert len(_until_rows(chain, "high_values", 1)) < 30
        assert (worker.status() or {})["job"] == "high"
        assert worker.terminate() == 0, worker.tail()
        assert "openings     doors     openings" in worker.tail()
