"""The bridge process between a real broker and a real log, with a scripted device."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.topics import LOG_BATCHES, LOG_CHECKPOINTS, batch_topic
from edge_agent.contract.wire import Kind, Reason
from stream_jobs.bridge.checkpoints import decode_checkpoint
from stream_jobs.bridge.dead_letters import decode_dead_letter, partition_for
from stream_jobs.bridge.restore import header_of
from stream_jobs.kafka_client import LogClient
from tests.kit.bridge_device import ScriptedDevice
from tests.kit.processes import Product, python_module
from tests.kit.services import Services
from tests.kit.wait import until

PARTITIONS = 2


def _bridge(services: Services, name: str = "bridge", *options: str, crash: str = "") -> Product:
    run_dir = services.directory / "run"
    command = python_module(
        "stream_jobs.bridge", "--mqtt-url", services.mqtt_url, "--bootstrap-servers", services.bootstrap_servers,
        "--run-dir", run_dir, "--name", name, "--partitions", str(PARTITIONS), "--delivery-timeout-s", "3", *options,
    )  # fmt: skip
    return Product(run_dir, name, command, environment={"EDGEWATER_CRASH_POINT": crash} if crash else {})


def _ready(bridge: Product, timeout_s: float = 30) -> dict[str, Any]:
    def ready() -> dict[str, Any] | None:
        assert bridge.alive, f"{bridge.name} ended with {bridge.returncode}:\n{bridge.tail()}"
        found = bridge.status()
        return found if found is not None and found["ready"] else None

    return until(ready, timeout_s, f"{bridge.name} ready")


def _status(bridge: Product) -> dict[str, Any]:
    found = bridge.status()
    assert found is not None
    return found


def _drained(devices: list[ScriptedDevice], timeout_s: float = 45) -> None:
    until(lambda: all(device.drained for device in devices), timeout_s, f"{[(d.trimmed, d.accepted) for d in devices]}")


@contextmanager
def _log(services: Services) -> Iterator[LogClient]:
    with closing(LogClient(services.bootstrap_servers, client_id="checker")) as client:
        yield client


def _folded(services: Services) -> dict[tuple[str, int, int], list[tuple[Kind, bytes]]]:
    """(device, epoch, seq) -> what the fold over the log accepted for it: kind and body."""
    found: dict[tuple[str, int, int], list[tuple[Kind, bytes]]] = {}
    with _log(services) as client:
        tables = client.tables()
        assert tables is not None
        for partition in range(PARTITIONS):
            fold = PartitionFold(partition, tables[0].partitions)
            start, end = client.offsets(LOG_BATCHES, partition)
            for record in client.read(LOG_BATCHES, partition, start, end):
                header, body = header_of(record.value)
                verdict = fold.apply(record.offset, record.append_time_ms, header)
                if header is not None and verdict.outcome is Outcome.ACCEPTED:
                    assert record.key == header.device.encode()
                    for seq in range(verdict.seq_first, verdict.seq_last + 1):
                        found.setdefault((header.device, header.epoch, seq), []).append((header.kind, bytes(body)))
    return found


def _check(services: Services, devices: list[ScriptedDevice]) -> None:
    """Each batch accepted was folded exactly once, with its own body."""
    folded = _folded(services)
    for device in devices:
        for seq in range(device.first_seq, device.accepted + 1):
            header, body = header_of(device.message(seq))
            assert header is not None
            assert folded[device.name, device.epoch, seq] == [(Kind.BATCH, bytes(body))], (device.name, seq)


def test_batches_are_in_the_log_once_and_a_clean_end_leaves_a_checkpoint(services: Services) -> None:
    """Three devices; SIGTERM ends with status 0; the next start reads nothing behind its checkpoints."""
    devices = [ScriptedDevice(services.mqtt_url, f"pump-{n}") for n in range(3)]
    with _bridge(services) as bridge:
        _ready(bridge)
        for device in devices:
            device.__enter__()
            device.accept(300)
        _drained(devices)
        status = until(lambda: (s := _status(bridge))["durable_batches"] >= 900 and s, 5)
        assert status["in_flight_records"] == 0
        assert status["durable_rows"] == 3 * sum(seq % 1000 + 1 for seq in range(1, 301))
        assert bridge.terminate() == 0
    for device in devices:
        device.__exit__()
    _check(services, devices)
    with _log(services) as client:
        offsets = 0
        for partition in range(PARTITIONS):
            records = list(client.read(LOG_CHECKPOINTS, partition, *client.offsets(LOG_CHECKPOINTS, partition)))
            offsets += max((decode_checkpoint(record.value).offset for record in records), default=0)
        assert offsets == 900
    with _bridge(services) as again:
        assert all(p["next_offset"] == p["checkpoint"] for p in _ready(again)["partitions"])


CRASHES = [
    "bridge.append.before:40", "bridge.append.after:40", "bridge.watermark.before:3", "bridge.watermark.after:3",
    "bridge.checkpoint.before:2", "bridge.checkpoint.after:2",
]  # fmt: skip
OFTEN = ("--checkpoint-records", "50", "--checkpoint-interval-s", "0.1")


@pytest.mark.long
def test_a_crash_at_each_point_loses_and_doubles_nothing(services: Services) -> None:
    """kill -9 exactly there, one after the other, with traffic; the next start goes on."""
    with ScriptedDevice(services.mqtt_url, "valve") as device:
        for crash in CRASHES:
            with _bridge(services, "bridge", *OFTEN, crash=crash) as bridge:
                # Traffic goes on until the crash; the window of the device bounds it.
                device.accept(300)
                until(lambda bridge=bridge, device=device: _crashed(bridge, device), 30, crash)
                assert bridge.returncode == -signal.SIGKILL, crash
        with _bridge(services, "bridge", *OFTEN):
            _drained([device])
    _check(services, [device])


def _crashed(bridge: Product, device: ScriptedDevice) -> bool:
    if bridge.alive and device.drained:
        device.accept(50)
    return not bridge.alive


@pytest.mark.long
@pytest.mark.timeout(180)
def test_two_bridges_and_everything_killed_in_between(services: Services, seed: int) -> None:
    """Two bridges on the same shards; bridges, broker and log are killed at seeded moments with traffic in flight."""
    chance = random.Random(seed)
    devices = [ScriptedDevice(services.mqtt_url, f"meter-{n}") for n in range(4)]
    bridges = [_bridge(services, f"bridge-{n}", "--checkpoint-records", "200").start() for n in range(2)]
    for bridge in bridges:
        _ready(bridge)
    for device in devices:
        device.__enter__()
    victims: list[Any] = [*bridges, services.mqtt, services.log]
    chance.shuffle(victims)
    kills_in_flight = 0
    for victim in victims:
        before = [device.trimmed for device in devices]
        for device in devices:
            device.accept(400)
        until(lambda before=before: any(d.trimmed > b for d, b in zip(devices, before, strict=True)), 30, "traffic")
        time.sleep(chance.random() * 0.1)  # a seeded moment
        kills_in_flight += not all(device.drained for device in devices)
        victim.kill()
        victim.start()
    _drained(devices, 90)
    assert kills_in_flight >= 3
    for bridge in bridges:
        until(lambda bridge=bridge: _status(bridge)["in_flight_records"] == 0, 20, "appends settled")
        assert bridge.terminate() == 0
    for device in devices:
        device.__exit__()
    _check(services, devices)


def test_what_has_no_place_and_what_is_lost_is_recorded(services: Services) -> None:
    """A payload of another device becomes a dead letter; seqs that nobody holds become a skip record `lost`."""
    device = ScriptedDevice(services.mqtt_url, "gauge")
    device.first_seq = 5
    with _bridge(services) as bridge:
        _ready(bridge)
        with device:
            device._client.publish(batch_topic("somebody-else"), device.message(9), qos=1)
            device.accept(8)
            _drained([device])
            status = until(lambda: (s := _status(bridge))["dead_letters"] == 1 and s, 5, "the dead letter")
        assert status["lost_records"] == 1
        assert "no longer has seqs 1 to 4" in status["alarms"][0]["text"]
    with _log(services) as client:
        partition = partition_for(batch_topic("somebody-else"), PARTITIONS)
        records = client.read(LOG_BATCHES, partition, *client.offsets(LOG_BATCHES, partition))
        (letter,) = [decode_dead_letter(r.value) for r in records if header_of(r.value)[0] is None]
    assert (letter.topic, letter.payload) == (batch_topic("somebody-else"), device.message(9))
    folded = _folded(services)
    assert [folded[device.name, device.epoch, seq][0][0] for seq in (4, 5, 8)] == [Kind.SKIP, Kind.BATCH, Kind.BATCH]
    assert Reason.LOST == 3


def test_without_log_or_broker_the_bridge_waits_and_says_so(services: Services) -> None:
    """Log down at the start: it waits. Later down: MQTT is not read, the status names it; then it goes on."""
    services.log.kill()
    device = ScriptedDevice(services.mqtt_url, "fan")
    with _bridge(services) as bridge, device:
        until(lambda: (bridge.status() or {}).get("log") == "unreachable", 20, "status without a log")
        services.log.start()
        _ready(bridge)
        device.accept(50)
        _drained([device])
        services.log.kill()
        device.accept(500)
        until(lambda: _status(bridge)["log"] == "unreachable", 30, "the failed append")
        assert device.trimmed == 50
        services.mqtt.kill()
        until(lambda: _status(bridge)["mqtt"] != "connected", 20, "status without a broker")
        services.mqtt.start()
        services.log.start()
        _drained([device])
    _check(services, [device])


def test_the_run_directory_is_optional_and_settings_are_checked(tmp_path: Path) -> None:
    """A wrong option ends with status 1 and a line that says what to write."""
    bridge = Product(tmp_path, "bridge", python_module("stream_jobs.bridge", "--shards", "300")).start()
    assert bridge.wait(20) == 1
    assert "shards is '300'" in bridge.tail()
