"""The mapping process without a broker: a refused subscription, no room, a topic that is no text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paho.mqtt.client as paho
import pytest

from edge_agent.contract.status import read_status
from stream_jobs.bridge.mqtt import Arrival, PersistentConnection
from stream_jobs.mapping.declared import read_mappings
from stream_jobs.mapping.service import MappingService
from stream_jobs.mapping.settings import MappingSettings


@pytest.fixture
def service(tmp_path: Path) -> Iterator[MappingService]:
    """Not connected to anything."""
    mappings = read_mappings(Path("m.toml"), '[[mappings]]\nname = "numbers"\npreset = "number"')
    made = MappingService(MappingSettings(run_dir=str(tmp_path), in_flight_bytes_max=1 << 20), mappings)
    yield made
    made._log_side.close()


def test_a_refused_subscription_is_an_alarm_once(service: MappingService, tmp_path: Path) -> None:
    """It names the mapping, the topic and the client id to allow."""
    connection = service._sessions[0].connection
    connection._on_subscribe(connection._client, None, 1, [SimpleNamespace(value=0x80)], None)  # type: ignore[list-item]
    service._room_at_s = -1e9
    for _ in range(2):
        service._tick_mqtt(0.0)
    service._write_status("running")
    found = read_status(tmp_path, "mapping")
    assert found is not None
    assert found["alarm_count"] == 1
    assert "numbers" in found["alarms"][0]["text"]
    assert "edgewater-mapping-numbers" in found["alarms"][0]["text"]


def test_a_full_process_says_that_there_is_no_room(service: MappingService) -> None:
    """While the log is away rows add up; at `in_flight_bytes_max` MQTT is read no more."""
    payload = ("[" + ",".join(["1.5"] * 1000) + "]").encode()
    taken = 1
    while service._receive(service._sessions[0], Arrival("sensors/a/v", payload, taken, 1, False, False)):
        taken += 1
        assert taken < 1000
    assert (1 << 20) <= service._collector.bytes < (1 << 20) + 100_000
    service._flush()
    assert service._collector.bytes == 0
    assert len(service._sessions[0].acknowledgements) == taken


def test_a_topic_that_is_no_text_and_a_retained_one_of_a_kept_session() -> None:
    """The first is passed on with its bytes escaped; the second was taken before and is only acknowledged."""
    arrived: list[Arrival] = []
    acknowledged: list[int] = []

    def take(arrival: Arrival) -> bool:
        arrived.append(arrival)
        return True

    connection = PersistentConnection("mqtt://127.0.0.1:1", "c", ["#"], take, lambda _present: None)
    connection.acknowledge = acknowledged.extend  # type: ignore[method-assign]

    def message(topic: bytes, **fields: Any) -> paho.MQTTMessage:
        made = paho.MQTTMessage(mid=7, topic=topic)
        made.payload, made.qos = b"1", 1
        for name, value in fields.items():
            setattr(made, name, value)
        return made

    connection._on_message(connection._client, None, message(b"a/\xff"))
    assert [arrival.topic for arrival in arrived] == ["a/\\xff"]
    connection._session_present = True
    connection._on_message(connection._client, None, message(b"a", retain=True))
    assert (len(arrived), acknowledged) == (1, [7])


def test_memory_is_counted_for_messages_and_rows_and_given_back(service: MappingService) -> None:
    """What waits to be collected, then to be appended; nothing is left over."""
    session = service._sessions[0]
    for number in range(1, 11):
        service._receive(session, Arrival("sensors/a/v", b"1.5", number, 1, False, False))
    assert service._collector.bytes > 1000
    service._flush()
    assert service._collector.bytes == 0
    assert service._log_side.bytes > 1000
    assert service._log_side.entries == 1


def test_a_message_that_becomes_nothing_is_acknowledged_at_once(service: MappingService) -> None:
    """One that cannot be read waits for its dead letter."""
    session = service._sessions[0]
    service._receive(session, Arrival("sensors/a/v", b"null", 1, 1, False, False))
    assert list(session.acknowledgements.ready()) == [1]
    service._receive(session, Arrival("sensors/a/v", b"{", 2, 1, False, False))
    assert list(session.acknowledgements.ready()) == []
    assert (session.counts.ignored, session.counts.dead_letters, service._log_side.entries) == (1, 1, 1)
