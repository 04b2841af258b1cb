"""`edgewater agent replay` as a process: killed at any moment, the same command brings each row into the log once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.topics import LOG_BATCHES
from edge_agent.contract.wire import decode_header
from edge_agent.spool import read_ledger
from edge_agent.spool_view import spool_folders
from stream_jobs.kafka_client import LogClient
from tests.kit.mosquitto import free_port
from tests.kit.processes import ROOT, Product, edgewater, python_module
from tests.kit.replay_world import Reading, columns_of, readings_of
from tests.kit.services import Services
from tests.kit.wait import until
from tests.kit.watermark_responder import WatermarkResponder

pytestmark = pytest.mark.long

DEVICE = "pump-7"
START = datetime(2024, 3, 1, tzinfo=UTC)
ROWS = 20_000
GROWTH = 10_000
BAD = {500: "half a row", 7_000: "2024-03-01T01:00:00,valve-1,abc,1", 7_001: "yesterday,valve-1,1,1"}
CRASH_POINTS = [
    "replay.batch.before:2", "replay.batch.accepted:1", "replay.batch.accepted:3", "agent.spool.before_commit:2",
    "agent.spool.after_commit:2", "agent.send.after:2", "agent.trim.after:1", "replay.finished:1",
]  # fmt: skip


def write_csv(file: Path, rows: range = range(ROWS)) -> list[Reading]:
    """A CSV of five devices, with rows that cannot be read (at BAD), and two rows with the same time; the readings that
    it should become, with the device of each row."""
    expected: list[Reading] = []
    new = not file.exists()
    with file.open("a") as out:
        if new:
            out.write("time,device,level,flow\n")
        for number in rows:
            if number in BAD:
                out.write(BAD[number] + "\n")
                continue
            at = START + timedelta(seconds=number // 2)
            device, level, flow = f"valve-{number % 5}", number / 8, number % 97
            out.write(f"{at:%Y-%m-%dT%H:%M:%S},{device},{level},{flow if number % 3 else ''}\n")
            ts_us = int(at.timestamp()) * 1_000_000
            expected.append((device, ts_us, "level", level))
            if number % 3:
                expected.append((device, ts_us, "flow", float(flow)))
    return expected


def of_one(readings: list[Reading]) -> list[Reading]:
    """The same, all of DEVICE."""
    return [(DEVICE, *rest) for _, *rest in readings]  # type: ignore[misc]  # a reading has four parts


class Command(Product):
    """`edgewater agent replay` with its spools in a folder."""

    def __init__(self, tmp_path: Path, url: str, file: Path, *options: str) -> None:
        self.state = tmp_path / "state"
        command = edgewater(
            "agent", "replay", file, "--device", DEVICE, "--time", "time", "--mqtt", url, "--dir", self.state, *options
        )
        super().__init__(
            tmp_path / "run", "replay", command,
            environment={"EDGEWATER_AGENT__LEDGER": "true", "EDGEWATER_AGENT__STALL_S": "0.5"},
        )  # fmt: skip

    def ends(self, status: int = 0, timeout_s: float = 60) -> None:
        """Run to the end."""
        self.start()
        assert self.wait(timeout_s) == status, self.tail()

    def crashes(self, point: str) -> None:
        """Run until it kills itself there."""
        self.environment["EDGEWATER_CRASH_POINT"] = point
        self.ends(-signal.SIGKILL)
        del self.environment["EDGEWATER_CRASH_POINT"]

    def killed_when(self, condition: Any) -> bool:
        """Start, kill -9 as soon as the condition holds; whether it had not ended before."""
        self.start()
        until(lambda: not self.alive or condition(), 60, "the moment to kill")
        killed = self.alive
        self.kill()
        return killed

    def ledger(self) -> list[bytes]:
        """What its spools accepted, over all runs."""
        return sorted(message for folder in spool_folders(self.state) for message in read_ledger(folder))


def in_order(messages: list[bytes]) -> list[Reading]:
    """The readings of messages, each device's in the order in which they were accepted."""
    batches = []
    for message in messages:
        header, _ = decode_header(message)
        batches.append((header.device, header.epoch, header.seq_first, message))
    return [reading for *_, message in sorted(batches) for reading in readings_of(message)]


def letters(messages: list[bytes]) -> int:
    """How many dead letters the messages hold."""
    return sum(header.rows for header, _ in map(columns_of, messages) if header.stream == "dead_letters")


@pytest.fixture
def responder(embedded_mqtt: Any) -> Iterator[WatermarkResponder]:
    """A bridge of the least kind at the embedded broker."""
    with WatermarkResponder(embedded_mqtt.port) as found:
        yield found


def test_a_file_arrives_once(tmp_path: Path, embedded_mqtt: Any, responder: WatermarkResponder) -> None:
    """Every row in order, unreadable ones as dead letters with their place; a second run sends nothing, --again all."""
    file = tmp_path / "data.csv"
    expected = of_one(write_csv(file))
    command = Command(tmp_path, embedded_mqtt.url, file)
    command.ends()
    assert in_order(responder.accepted) == expected
    assert letters(responder.accepted) == len(BAD)
    text = command.tail()
    assert "readings: level, flow; left out (no numbers, or not chosen): device" in text
    assert "data.csv:502: 1 cells; the header has 4" in text
    assert "data.csv:7002: level: 'abc' is no number" in text
    assert f"{ROWS - len(BAD):,} rows, {len(expected):,} readings, 3 dead letters, durable in the log" in text
    file.rename(tmp_path / "other.csv")
    command = Command(tmp_path, embedded_mqtt.url, tmp_path / "other.csv")
    command.ends()
    assert "was sent before" in command.tail()
    assert len(in_order(responder.accepted)) == len(expected)
    more = of_one(write_csv(tmp_path / "other.csv", range(ROWS, ROWS + 100)))
    command.ends()
    assert in_order(responder.accepted) == expected + more
    Command(tmp_path, embedded_mqtt.url, tmp_path / "other.csv", "--again").ends()
    assert in_order(responder.accepted) == (expected + more) * 2
    assert sorted(responder.accepted) == command.ledger()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", [(), ("--device-column", "device")], ids=["one", "five"])
def test_a_crash_at_any_point_loses_and_doubles_nothing(
    tmp_path: Path, embedded_mqtt: Any, responder: WatermarkResponder, options: tuple[str, ...]
) -> None:
    """Killed before or after a commit, a send, a trim, one after the other; and again with --again."""
    file = tmp_path / "data.csv"
    whose = (lambda readings: readings) if options else of_one
    expected = whose(write_csv(file))
    command = Command(tmp_path, embedded_mqtt.url, file, *options)
    for point in CRASH_POINTS:
        command.crashes(point)
        expected += whose(write_csv(file, range(10 * ROWS, 10 * ROWS + GROWTH)))
    command.ends()
    assert letters(responder.accepted) == len(BAD)
    assert Counter(in_order(responder.accepted)) == Counter(expected)
    assert in_order(responder.accepted) == sorted(expected, key=lambda reading: reading[0])
    again = Command(tmp_path, embedded_mqtt.url, file, *options, "--again")
    for point in ("replay.again", "replay.batch.accepted:3", "replay.finished"):
        again.crashes(point)
    again.ends()
    assert Counter(in_order(responder.accepted)) == Counter(expected * 2)
    assert sorted(responder.accepted) == command.ledger()


def test_kills_at_random_moments(tmp_path: Path, embedded_mqtt: Any, responder: WatermarkResponder, seed: int) -> None:
    """kill -9 of the command, again and again while rows arrive: in the end each of them is there once, in order."""
    file = tmp_path / "data.csv"
    expected = of_one(write_csv(file, range(60_000)))
    generator = random.Random(seed)
    command = Command(tmp_path, embedded_mqtt.url, file)
    kills = 0
    for _ in range(6):
        some_more = responder.rows + generator.randrange(1, 20_000)
        kills += command.killed_when(lambda some_more=some_more: responder.rows >= some_more)
    command.ends()
    assert kills >= 3
    assert in_order(responder.accepted) == expected
    assert sorted(responder.accepted) == command.ledger()


@contextmanager
def bridge_of(services: Services) -> Iterator[Product]:
    """The bridge between a broker and a log."""
    run_dir = services.directory / "run"
    command = python_module(
        "stream_jobs.bridge", "--mqtt-url", services.mqtt_url, "--bootstrap-servers", services.bootstrap_servers,
        "--run-dir", run_dir, "--name", "bridge", "--partitions", "2",
    )  # fmt: skip
    with Product(run_dir, "bridge", command) as bridge:
        until(lambda: (bridge.status() or {}).get("ready"), 60, "the bridge")
        yield bridge


def accepted_in_log(services: Services) -> list[bytes]:
    """Every batch that the fold over the log accepts."""
    accepted = []
    with closing(LogClient(services.bootstrap_servers, client_id="checker")) as client:
        tables = client.tables()
        assert tables is not None
        for partition in range(2):
            fold = PartitionFold(partition, tables[0].partitions)
            for record in client.read(LOG_BATCHES, partition, *client.offsets(LOG_BATCHES, partition)):
                header, _ = decode_header(record.value)
                if fold.apply(record.offset, record.append_time_ms, header).outcome is Outcome.ACCEPTED:
                    accepted.append(bytes(record.value))
    return [message for message in accepted if decode_header(message)[0].rows]


def test_the_log_has_each_row_once(tmp_path: Path, services: Services) -> None:
    """With a real bridge and log: command and broker are killed, and what the log holds is compared row by row."""
    file = tmp_path / "data.csv"
    expected = write_csv(file)
    command = Command(tmp_path, services.mqtt_url, file, "--device-column", "device")
    with bridge_of(services):
        for point in ("replay.batch.accepted:2", "agent.send.after:3", "agent.trim.before:2"):
            command.crashes(point)
        services.mqtt.kill()
        services.mqtt.start()
        command.ends(timeout_s=90)
    found = accepted_in_log(services)
    assert in_order(found) == sorted(expected, key=lambda reading: reading[0])
    assert letters(found) == len(BAD)
    assert sorted(found) == command.ledger()


def test_ctrl_c_ends_at_once(tmp_path: Path, embedded_mqtt: Any, responder: WatermarkResponder) -> None:
    """SIGINT while it waits for the pace: status 130 within a second, and the same command goes on from there."""
    file = tmp_path / "data.csv"
    expected = of_one(write_csv(file, range(400)))
    command = Command(tmp_path, embedded_mqtt.url, file, "--speed", "40")
    command.start()
    until(lambda: responder.rows > 20, 20, "the first rows")
    assert responder.rows < len(expected)
    command.signal(signal.SIGINT)
    assert command.wait(1.5) == 130
    assert "the same command goes on from there" in command.tail()
    command.ends()
    assert in_order(responder.accepted) == expected


@pytest.mark.parametrize("which", ["nobody", "no bridge"])
def test_without_an_answer_it_gives_up(tmp_path: Path, embedded_mqtt: Any, which: str) -> None:
    """A broker that is not there, or a bridge: one message with URL, reason and next step; then it goes on."""
    file = tmp_path / "data.csv"
    expected = of_one(write_csv(file))
    url = embedded_mqtt.url if which == "no bridge" else f"mqtt://127.0.0.1:{free_port()}"
    command = Command(tmp_path, url, file, "--timeout-s", "1.5")
    command.ends(1)
    (message,) = [line for line in command.tail().splitlines() if line.startswith("edgewater:")]
    assert url in message
    assert "no progress for 1.5 s" in message
    assert ("no bridge answers there" if which == "no bridge" else "refused") in message
    assert "the same command goes on from there" in message
    with WatermarkResponder(embedded_mqtt.port) as responder:
        Command(tmp_path, embedded_mqtt.url, file).ends()
        assert in_order(responder.accepted) == expected


def test_one_replay_a_device(tmp_path: Path, embedded_mqtt: Any) -> None:
    """A second command for the same device, at the same time, says who is in its way."""
    file = tmp_path / "data.csv"
    write_csv(file, range(100))
    first = Command(tmp_path, embedded_mqtt.url, file)
    first.start()
    until((first.state / DEVICE / "spool.sqlite").exists, 20, "its spool")
    second = Command(tmp_path, embedded_mqtt.url, file)
    second.name, second.stderr_path = "second", tmp_path / "run" / "second.stderr"
    second.ends(1)
    assert "in use by another process" in second.tail()
    first.kill()


def test_many_devices_go_in_passes(tmp_path: Path, embedded_mqtt: Any, responder: WatermarkResponder) -> None:
    """Of 70 devices 64 go at once and the others after them; with a pace that is an error."""
    file = tmp_path / "data.csv"
    with file.open("w") as out:
        out.write("time,device,level\n")
        out.writelines(f"{1_700_000_000 + number},d{number % 70},{number}\n" for number in range(700))
    options = ("--device-column", "device")
    Command(tmp_path, embedded_mqtt.url, file, *options, "--speed", "1000000").ends(1)
    command = Command(tmp_path, embedded_mqtt.url, file, *options)
    command.ends()
    assert "70 devices" in command.tail()
    assert "more than 64 devices" in command.tail()
    found = in_order(responder.accepted)
    assert Counter(found) == Counter(
        (f"d{number % 70}", (1_700_000_000 + number) * 1_000_000, "level", float(number)) for number in range(700)
    )


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    """Parquet without pyarrow: which extra to install."""
    (tmp_path / "data.parquet").write_bytes(b"PAR1....PAR1")
    (tmp_path / "pyarrow").mkdir()
    (tmp_path / "pyarrow" / "__init__.py").write_text("raise ModuleNotFoundError('no', name='pyarrow')\n")
    done = subprocess.run(
        edgewater("agent", "replay", tmp_path / "data.parquet", "--device", "x", "--time", "t", "--dir", tmp_path),
        capture_output=True, text=True, check=False, timeout=30,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )  # fmt: skip
    assert done.returncode == 1
    assert "pip install 'edgewater[lake]'" in done.stderr
    assert "Traceback" not in done.stderr
