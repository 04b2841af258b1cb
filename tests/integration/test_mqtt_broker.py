"""The embedded MQTT broker with real clients; what any broker must do is asked of Mosquitto too."""

from __future__ import annotations

import socket
import statistics
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kit.mosquitto import Mosquitto
from tests.kit.mqtt_client import MqttClient, RawClient
from tests.kit.required import requires
from tests.kit.services import EmbeddedMqtt
from tests.kit.wait import until

Broker = EmbeddedMqtt | Mosquitto


@pytest.fixture(params=["embedded", pytest.param("mosquitto", marks=pytest.mark.real)])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A fresh broker, once embedded and once Mosquitto."""
    if request.param == "embedded":
        with EmbeddedMqtt(tmp_path / "run") as embedded:
            yield embedded
    else:
        requires("mosquitto")
        with Mosquitto(tmp_path / "mosquitto") as real:
            yield real


def client(broker: Broker, name: str, **options: object) -> MqttClient:
    """A connected client."""
    return MqttClient(broker.host, broker.port, name, **options)  # type: ignore[arg-type]


def test_every_acknowledged_message_arrives_in_its_publishers_order(broker: Broker) -> None:
    """QoS 1 messages of three publishers of 1 B to 200 KB arrive once each, each publisher's in order, bytes intact."""
    sizes = [1, 100, 127, 128, 16_383, 16_384, 17_000, 200_000]
    with client(broker, "bridge") as subscriber:
        subscriber.subscribe("edgewater/batch/+/+")
        publishers = [client(broker, f"device-{number}") for number in range(3)]
        infos = []
        for at in range(200):
            for number, publisher in enumerate(publishers):
                body = struct.pack("!II", number, at) + bytes([at]) * sizes[at % len(sizes)]
                infos.append(publisher.publish(f"edgewater/batch/{number}/device-{number}", body, wait=False))
        for info in infos:
            info.wait_for_publish(20)
        received = subscriber.wait_received(600)
        for publisher in publishers:
            publisher.close()
    assert len(received) == 600
    for number in range(3):
        mine = [body for _, body in received if struct.unpack_from("!I", body)[0] == number]
        assert [struct.unpack_from("!I", body, 4)[0] for body in mine] == list(range(200))
        assert all(body[8:] == bytes([at]) * sizes[at % len(sizes)] for at, body in enumerate(mine))


def test_a_second_client_of_the_same_id_takes_over(broker: Broker) -> None:
    """The first client of an id is closed when a second one comes, and only the second one receives from then on."""
    with RawClient(broker.host, broker.port, "device") as first:
        first.subscribe("edgewater/ack/device")
        with client(broker, "device") as second, client(broker, "bridge") as bridge:
            assert first.closed()
            second.subscribe("edgewater/ack/device")
            bridge.publish("edgewater/ack/device", b"watermark")
            assert second.wait_received(1) == [("edgewater/ack/device", b"watermark")]
            assert second.disconnects == 0


def test_a_taken_over_subscription_does_not_outlive_its_client(broker: Broker) -> None:
    """A client that comes back with a clean session and does not subscribe again receives nothing."""
    with RawClient(broker.host, broker.port, "device") as first:
        first.subscribe("edgewater/ack/device")
    with client(broker, "device") as again, client(broker, "bridge") as bridge:
        bridge.publish("edgewater/ack/device", b"watermark")
        again.subscribe("marker")
        bridge.publish("marker", b"end")
        assert again.wait_received(1) == [("marker", b"end")]


def test_retained_messages_come_with_the_subscription_until_cleared(broker: Broker) -> None:
    """A retained message reaches a later subscriber of a matching filter, nobody else, and nobody after clearing."""
    with client(broker, "publisher") as publisher, client(broker, "other") as other:
        publisher.publish("home/lamp", b"on", retain=True)
        other.subscribe("home/door")
        with client(broker, "late") as late:
            late.subscribe("home/+")
            assert late.wait_received(1) == [("home/lamp", b"on")]
            assert late.retained == [True]
        publisher.publish("home/lamp", b"", retain=True)
        with client(broker, "later") as later:
            later.subscribe("home/#")
            publisher.publish("home/door", b"shut")
            assert later.wait_received(1) == [("home/door", b"shut")]
            assert other.wait_received(1) == [("home/door", b"shut")]


def test_the_will_is_published_when_a_client_breaks_off(broker: Broker) -> None:
    """A client's will is published when its connection breaks, and not when it says goodbye."""
    with client(broker, "watcher") as watcher:
        watcher.subscribe("gone/+")
        client(broker, "polite", will=("gone/polite", b"x")).close()
        client(broker, "crashed", will=("gone/crashed", b"y")).break_off()
        assert watcher.wait_received(1) == [("gone/crashed", b"y")]


def test_a_silent_client_is_closed_after_its_keep_alive(broker: Broker) -> None:
    """A client that sends nothing for one and a half times its keep-alive of 1 s is closed."""
    with RawClient(broker.host, broker.port, "silent", keep_alive_s=1) as silent:
        assert silent.closed()


def test_levels_of_service_and_wildcards(broker: Broker) -> None:
    """Messages of QoS 0, 1 and 2 arrive; + is one level, # the rest, and topics that do not match stay away."""
    with client(broker, "subscriber") as subscriber, client(broker, "publisher") as publisher:
        subscriber.subscribe("a/+/c")
        subscriber.subscribe("b/#")
        for qos, topic in [(0, "a/x/c"), (1, "a/x/d"), (1, "b"), (2, "b/1/2"), (1, "c/b/1"), (2, "a//c")]:
            publisher.publish(topic, bytes([qos]), qos)
        publisher.publish("b/end", b"")
        received = subscriber.wait_received(5)
    assert sorted(topic for topic, _ in received) == ["a//c", "a/x/c", "b", "b/1/2", "b/end"]


def test_a_message_alone_takes_no_delayed_acknowledgement(broker: Broker) -> None:
    """At concurrency 1 a QoS 1 message takes a few milliseconds: Nagle's 44 ms are switched off."""
    with client(broker, "echo") as echo:
        echo.subscribe("edgewater/ack/echo")
        times = []
        for number in range(30):
            start = time.perf_counter()
            echo.publish("edgewater/ack/echo", bytes(200), wait=False)
            until(lambda wanted=number + 1: len(echo.received) >= wanted, 5, "the echo", poll_s=0.0002)
            times.append(time.perf_counter() - start)
    assert statistics.median(times) < 0.025, times


def test_a_packet_over_the_limit_costs_its_sender_the_connection(broker: Broker) -> None:
    """A client that announces a packet of 2 MB is closed; the broker serves the others as before."""
    with client(broker, "good") as good, RawClient(broker.host, broker.port, "huge") as huge:
        good.subscribe("t")
        huge.socket.sendall(b"\x32" + b"\x80\x80\x7f" + huge.text("t") + bytes(64 * 1024))
        assert huge.closed()
        good.publish("t", b"still here")
        assert good.wait_received(1) == [("t", b"still here")]


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(100),
        b"\xff" * 100,
        b"\x10\xff\xff\xff\x7f",
        b"\x32\x05\x00\x01a\x00\x01hello",
    ],
)
def test_garbage_costs_its_sender_the_connection(embedded_mqtt: EmbeddedMqtt, data: bytes) -> None:
    """Bytes that are no CONNECT are answered by closing, and the broker goes on."""
    with socket.create_connection((embedded_mqtt.host, embedded_mqtt.port), timeout=10) as stranger:
        stranger.sendall(data)
        stranger.shutdown(socket.SHUT_WR)
        assert stranger.recv(100) == b""
    with client(embedded_mqtt, "good") as good:
        good.publish("t", b"x")


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (0x32, b"\x00\x04a/+b\x00\x01x"),
        (0x32, b"\x00\x05$SYS/\x00\x01x"),
        (0x32, b"\x00\x00\x00\x01x"),
        (0x32, b"\xff\xffab"),
        (0x36, b"\x00\x01a\x00\x01x"),
        (0x30, b"\x00\x02\xff\xfe"),
        (0x20, b"\x00\x00"),
        (0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x01x"),
        (0x82, b"\x00\x01\x00\x09ab"),
    ],
)
def test_packets_against_the_protocol_close_the_connection(
    embedded_mqtt: EmbeddedMqtt, first: int, body: bytes
) -> None:
    """Wildcards or $ in a topic, wrong lengths, QoS 3, bad UTF-8 and a second CONNECT close the connection."""
    with RawClient(embedded_mqtt.host, embedded_mqtt.port, "bad") as bad:
        bad.send(first, body)
        assert bad.closed()
    with client(embedded_mqtt, "good") as good:
        good.publish("t", b"x")


def test_a_slow_subscriber_holds_its_publishers_back_and_loses_nothing(tmp_path: Path) -> None:
    """With a queue of 256 KB and a subscriber that reads slowly, 1,000 messages of 8 KB all arrive, and no more than
    the queue's bound ever waits."""
    with EmbeddedMqtt(tmp_path / "run", "--queue-bytes-max", str(256 * 1024)) as broker:
        slow = RawClient(broker.host, broker.port, "slow")
        slow.subscribe("t", qos=0)
        with client(broker, "publisher") as publisher:
            infos = [publisher.publish("t", bytes(8000), wait=False) for _ in range(1000)]
            waiting = []
            total, one = 0, 8000 + 3 + 3
            while total < 1000 * one:
                total += len(slow.socket.recv(65536))
                waiting.append(broker.status().get("bytes_waiting", 0))
            for info in infos:
                info.wait_for_publish(10)
        assert total == 1000 * one
        assert max(waiting) <= 256 * 1024 + 8000
        slow.close()


def test_a_subscriber_that_takes_nothing_is_cut_off(tmp_path: Path) -> None:
    """A subscriber that stops reading is closed after stall_timeout_s, and its publisher gets through to the others."""
    options = ["--queue-bytes-max", str(256 * 1024), "--stall-timeout-s", "0.5"]
    with EmbeddedMqtt(tmp_path / "run", *options) as broker, client(broker, "awake") as awake:
        asleep = RawClient(broker.host, broker.port, "asleep")
        asleep.subscribe("t")
        awake.subscribe("t")
        with client(broker, "publisher", timeout_s=30.0) as publisher:
            infos = [publisher.publish("t", bytes(100_000), wait=False) for _ in range(200)]
            for info in infos:
                info.wait_for_publish(30)
        awake.timeout_s = 30.0
        awake.wait_received(200)
        until(lambda: broker.status().get("subscribers_cut_off") == 1, 5, "the counter")
        asleep.close()


def test_memory_stays_bounded_with_many_publishers_and_nobody_reading(tmp_path: Path) -> None:
    """Twenty publishers that send as fast as they can to a subscriber that sleeps leave the broker under 100 MB."""
    with EmbeddedMqtt(tmp_path / "run", "--stall-timeout-s", "60") as broker:
        asleep = RawClient(broker.host, broker.port, "asleep")
        asleep.subscribe("t")
        publishers = [RawClient(broker.host, broker.port, f"p{number}") for number in range(20)]
        body = RawClient.text("t") + b"\x00\x01" + bytes(64 * 1024)
        sent = 0
        for publisher in publishers:
            publisher.socket.settimeout(0.1)
            try:
                while True:
                    publisher.send(0x32, body)
                    sent += len(body)
            except TimeoutError:
                continue
        peak_kib = next(
            int(line.split()[1])
            for line in Path(f"/proc/{broker.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        for one in [asleep, *publishers]:
            one.close()
    assert sent > 10_000_000, "the publishers were held back before the queue was full"
    assert peak_kib < 100 * 1024, f"{peak_kib} KiB after {sent} bytes"


def test_more_connections_than_allowed_are_closed(tmp_path: Path) -> None:
    """With connections_max 2 a third client is closed at once, and may come when another has gone."""
    with EmbeddedMqtt(tmp_path / "run", "--connections-max", "2") as broker:
        first, second = (RawClient(broker.host, broker.port, name) for name in ("a", "b"))
        with pytest.raises((AssertionError, ConnectionError)):
            RawClient(broker.host, broker.port, "c")
        first.close()
        until(lambda: broker.status().get("connections") == 1, 5, "the connection to be gone")
        RawClient(broker.host, broker.port, "c").close()
        second.close()


def test_termination_is_quick_with_stalled_clients(tmp_path: Path) -> None:
    """SIGTERM ends the broker with status 0 within 5 s while a subscriber sleeps and a publisher waits."""
    with EmbeddedMqtt(tmp_path / "run", "--queue-bytes-max", "65536", "--stall-timeout-s", "60") as broker:
        asleep = RawClient(broker.host, broker.port, "asleep")
        asleep.subscribe("t")
        publisher = RawClient(broker.host, broker.port, "publisher")
        publisher.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            publisher.socket.sendall((b"\x32\x85\x80\x04" + RawClient.text("t") + b"\x00\x01" + bytes(65536)) * 1000)
        start = time.monotonic()
        assert broker.process.terminate() == 0
        assert time.monotonic() - start < 5
        assert "Traceback" not in broker.process.tail()
        asleep.close()
        publisher.close()


def test_a_killed_broker_comes_back_at_its_port(embedded_mqtt: EmbeddedMqtt) -> None:
    """After kill -9 and a new start at the same port clients connect and messages pass."""
    for round_number in range(3):
        with client(embedded_mqtt, "client") as one:
            one.subscribe("t")
            one.publish("t", bytes([round_number]))
            one.wait_received(1)
        embedded_mqtt.kill()
        embedded_mqtt.start()


def test_many_clients_come_and_go(embedded_mqtt: EmbeddedMqtt) -> None:
    """Two hundred clients that connect, subscribe and break off leave no connection and no waiting byte behind."""
    for number in range(200):
        one = RawClient(embedded_mqtt.host, embedded_mqtt.port, f"client-{number % 7}")
        one.subscribe(f"edgewater/ack/client-{number}")
        one.close()
    until(lambda: embedded_mqtt.status().get("connections") == 0, 10, "all connections to be gone")
    assert embedded_mqtt.status()["bytes_waiting"] == 0
    assert "Traceback" not in embedded_mqtt.process.tail()
