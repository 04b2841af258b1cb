"""The mapping process between a real broker and a real log: what foreign devices publish folds to the right rows."""

from __future__ import annotations

import json
import socket
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract.errors import DecodeError
from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.topics import LOG_BATCHES
from edge_agent.contract.wire import Kind, decode_columns, message_header
from stream_jobs.arrow_columns import Batch, arrow_table
from stream_jobs.bridge.dead_letters import decode_dead_letter
from stream_jobs.bridge.restore import header_of
from stream_jobs.kafka_client import LogClient
from tests.kit.mosquitto import Mosquitto
from tests.kit.mqtt_client import MqttClient, RawClient
from tests.kit.processes import Product, edgewater
from tests.kit.services import EmbeddedLog, EmbeddedMqtt, Services
from tests.kit.wait import until

PARTITIONS = 2
CONFIG = """
[[mappings]]
name = "zigbee"
preset = "zigbee2mqtt"

[[mappings]]
name = "numbers"
preset = "number"

[[mappings]]
name = "buttons"
preset = "zigbee2mqtt"
stream = "buttons"
columns = { action = "string", counter = "int64" }
"""


def mapping(directory: Path, mqtt_url: str, log: EmbeddedLog | Any, *options: str, crash: str = "") -> Product:
    """The process, not started."""
    config = directory / "edgewater.toml"
    config.write_text(CONFIG)
    run_dir = directory / "run"
    address = f"{log.host}:{log.port}"
    command = edgewater(
        "mapping", "run", "--config", config, "--mqtt-url", mqtt_url, "--bootstrap-servers", address,
        "--run-dir", run_dir, "--partitions", str(PARTITIONS), "--flush-interval-s", "0.1", *options,
    )  # fmt: skip
    return Product(run_dir, "mapping", command, environment={"EDGEWATER_CRASH_POINT": crash} if crash else {})


def status(process: Product) -> dict[str, Any]:
    """The latest status, empty before the first."""
    return process.status() or {}


def ready(process: Product) -> None:
    """Wait until it takes messages."""
    until(lambda: status(process).get("ready"), 40, f"mapping ready\n{process.tail()}")


def folded(log: EmbeddedLog | Any) -> tuple[Counter[tuple[Any, ...]], list[tuple[str, str]], int]:
    """(rows that the fold accepts, (topic, payload) of dead letters, close records)."""
    rows: Counter[tuple[Any, ...]] = Counter()
    letters, closes = [], 0
    with closing(LogClient(f"{log.host}:{log.port}", client_id="checker")) as client:
        tables = client.tables()
        assert tables is not None
        for partition in range(PARTITIONS):
            fold = PartitionFold(partition, tables[0].partitions)
            for record in client.read(LOG_BATCHES, partition, *client.offsets(LOG_BATCHES, partition)):
                header, body = header_of(record.value)
                verdict = fold.apply(record.offset, record.append_time_ms, header)
                if verdict.outcome is Outcome.MALFORMED:
                    letter = decode_dead_letter(record.value)
                    letters.append((letter.topic, letter.payload.decode()))
                elif verdict.outcome is Outcome.ACCEPTED and header is not None:
                    columns = decode_columns(header, body)
                    types = {column.name: column.type for column in columns}
                    for row in arrow_table([Batch(header, columns, 1)], types).to_pylist():
                        own = [row[name] for name in types if name != "ts"]
                        rows[header.device, header.stream, header.function, *own] += 1
                closes += header is not None and header.kind is Kind.CLOSE
    return rows, letters, closes


def test_messages_become_rows_and_dead_letters(services: Services) -> None:
    """Each mapping takes its topics, two may take one; what cannot be read is a dead letter; the end is clean."""
    process = mapping(services.directory, services.mqtt_url, services.log)
    with process, MqttClient(services.mqtt.host, services.mqtt.port, "devices") as devices:
        ready(process)
        for number in range(20):
            devices.publish("zigbee2mqtt/kitchen/lamp", json.dumps({"brightness": number, "state": "ON"}).encode())
            devices.publish("sensors/attic/temperature", str(number / 2).encode())
        devices.publish("zigbee2mqtt/button", b'{"action":"single","counter":9007199254740993}')
        devices.publish("sensors/attic/temperature", b"warm")
        devices.publish("zigbee2mqtt/bridge/state", b'{"state":"online"}')
        until(lambda: status(process)["received"] >= 64, 20, "all messages")
        until(lambda: not sum(one["unacknowledged"] for one in status(process)["mappings"]), 20, "all acknowledged")
        assert status(process)["dead_letters"] == 2
        assert process.terminate() == 0
    rows, letters, closes = folded(services.log)
    expected: Counter[tuple[Any, ...]] = Counter()
    for number in range(20):
        expected["kitchen-lamp", "readings", "mapping.zigbee", "brightness", float(number)] += 1
        expected["kitchen-lamp", "readings", "mapping.zigbee", "state", 1.0] += 1
        expected["attic", "readings", "mapping.numbers", "temperature", number / 2] += 1
    expected["button", "buttons", "mapping.buttons", "single", 9007199254740993] += 1
    assert rows == expected
    assert sorted(letters) == [
        ("sensors/attic/temperature", "warm"),
        ("zigbee2mqtt/button", '{"action":"single","counter":9007199254740993}'),
    ]
    assert closes == 3


def test_while_the_log_is_down_messages_wait_and_nothing_is_lost(
    embedded_mqtt: EmbeddedMqtt, embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    """Rows wait in the process up to its bound, then with the broker; each lands once when the log is back."""
    process = mapping(tmp_path, embedded_mqtt.url, embedded_log, "--delivery-timeout-s", "2")
    with process, MqttClient(embedded_mqtt.host, embedded_mqtt.port, "devices") as devices:
        ready(process)
        for number in range(5):
            devices.publish("sensors/a/v", str(number).encode())
        until(lambda: status(process)["durable_rows"] == 5, 20, "the first rows")
        embedded_log.kill()
        for number in range(5, 200):
            devices.publish("sensors/a/v", str(number).encode())
        until(lambda: status(process)["log"] == "disconnected", 20, "the log gone")
        assert status(process)["durable_rows"] == 5
        embedded_log.start()
        until(lambda: status(process)["durable_rows"] == 200, 40, f"all rows\n{process.tail()}")
    rows, letters, _ = folded(embedded_log)
    assert rows == Counter({("a", "readings", "mapping.numbers", "v", float(number)): 1 for number in range(200)})
    assert letters == []


@pytest.mark.parametrize("crash", ["mapping.append.before:3", "mapping.append.after:3", "mapping.puback.after"])
def test_killed_anywhere_nothing_is_lost_that_a_session_holds(
    mosquitto: Mosquitto, embedded_log: EmbeddedLog, tmp_path: Path, crash: str
) -> None:
    """Each row is there, also those published while the process is away; only unacknowledged ones are there twice."""
    process = mapping(tmp_path, mosquitto.url, embedded_log, crash=crash)
    with MqttClient(mosquitto.host, mosquitto.port, "devices") as devices:
        with process:
            ready(process)
            for number in range(100):
                devices.publish(f"sensors/d{number % 3}/v", str(number).encode())
            until(lambda: not process.alive, 30, "the crash")
        for number in range(100, 150):
            devices.publish(f"sensors/d{number % 3}/v", str(number).encode())
        process.environment.clear()
        with process:
            ready(process)
            until(lambda: status(process)["mappings"][1]["last_message_at"], 20, "messages again")
            devices.publish("sensors/last/v", b"1")
            until(lambda: ("last", "readings", "mapping.numbers", "v", 1.0) in folded(embedded_log)[0], 30, "the last")
    rows, _, _ = folded(embedded_log)
    wanted = {(f"d{n % 3}", "readings", "mapping.numbers", "v", float(n)) for n in range(150)}
    assert wanted <= set(rows)
    assert max(rows.values()) <= 2


def taken_over(mosquitto: Mosquitto, client_id: str) -> None:
    """Break a client's connection: come under its name, keeping its session, and leave without a word."""
    with socket.create_connection((mosquitto.host, mosquitto.port), timeout=5) as stranger:
        body = RawClient.text("MQTT") + bytes([4, 0, 0, 60]) + RawClient.text(client_id)
        stranger.sendall(bytes([0x10, len(body)]) + body)
        assert stranger.recv(4, socket.MSG_WAITALL) == b"\x20\x02\x01\x00"


def test_a_connection_that_breaks_doubles_nothing(
    mosquitto: Mosquitto, embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    """What the broker sends again while its rows are still on their way is recognised: taken over, each row once."""
    process = mapping(tmp_path, mosquitto.url, embedded_log, "--delivery-timeout-s", "2")
    with process, MqttClient(mosquitto.host, mosquitto.port, "devices") as devices:
        ready(process)
        embedded_log.kill()
        for number in range(50):
            devices.publish("sensors/a/v", str(number).encode())
        until(lambda: status(process)["mappings"][1]["messages"] == 50, 20, "all messages")
        taken_over(mosquitto, "edgewater-mapping-numbers")
        until(lambda: status(process)["mappings"][1]["redelivered"] == 50, 20, "all messages again")
        embedded_log.start()
        until(lambda: status(process)["durable_rows"] == 50, 40, "all rows")
    rows, _, _ = folded(embedded_log)
    assert rows == Counter({("a", "readings", "mapping.numbers", "v", float(number)): 1 for number in range(50)})


def test_a_retained_message_is_taken_once(mosquitto: Mosquitto, embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    """When the session begins; not again at each start of the process, though the broker sends it each time."""
    with MqttClient(mosquitto.host, mosquitto.port, "devices") as devices:
        devices.publish("sensors/a/v", b"1", retain=True)
        process = mapping(tmp_path, mosquitto.url, embedded_log)
        for _ in range(2):
            with process:
                ready(process)
                devices.publish("sensors/a/w", b"2")
                until(lambda: status(process)["durable_rows"] >= 1, 20, "a row")
    rows, _, _ = folded(embedded_log)
    assert rows["a", "readings", "mapping.numbers", "v", 1.0] == 1
    assert rows["a", "readings", "mapping.numbers", "w", 2.0] == 2


def test_header_of_a_dead_letter_is_none() -> None:
    """The value that the process appends is no message for any reader of the log."""
    with pytest.raises(DecodeError):
        message_header(b"\x96" + bytes(200))
