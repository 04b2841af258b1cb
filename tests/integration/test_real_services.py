"""Apache Kafka and Mosquitto as the kit and `edgewater kafka run` start them."""

from __future__ import annotations

import os
import signal
import uuid
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError

from deploy.kafka import cluster
from edge_agent.contract.status import read_status
from tests.kit.mosquitto import Mosquitto
from tests.kit.mqtt_client import MqttClient
from tests.kit.required import requires
from tests.kit.services import Kafka
from tests.kit.wait import until

pytestmark = pytest.mark.timeout(300)


def create_topic(servers: str, name: str, replicas: int = 1) -> None:
    """A topic of one partition."""
    admin = KafkaAdminClient(bootstrap_servers=servers)
    admin.create_topics([NewTopic(name, 1, replicas)])
    admin.close()


def produce(servers: str, topic: str, values: list[bytes]) -> None:
    """Append `values` with acks=all, and wait for each."""
    producer = KafkaProducer(bootstrap_servers=servers, acks="all")
    for future in [producer.send(topic, value) for value in values]:
        future.get(30)
    producer.close()


def consume(servers: str, topic: str, count: int) -> list[bytes]:
    """The first `count` values of a topic."""
    consumer = KafkaConsumer(bootstrap_servers=servers, consumer_timeout_ms=30_000, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, 0)])
    values = []
    for record in consumer:
        values.append(record.value)
        if len(values) == count:
            break
    consumer.close()
    return values


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_kafka_keeps_acknowledged_records_over_kill_9(kafka: Kafka) -> None:
    """After kill -9 of node and starter the same directory serves the same records at the same port."""
    create_topic(kafka.bootstrap_servers, "kept")
    produce(kafka.bootstrap_servers, "kept", [b"1", b"2"])
    port, node = kafka.port, int(kafka.status()["pids"]["1"])
    kafka.kill()
    until(lambda: not alive(node), 10, "the node to die with its starter")
    kafka.start()
    assert kafka.port == port
    produce(kafka.bootstrap_servers, "kept", [b"3"])
    assert consume(kafka.bootstrap_servers, "kept", 3) == [b"1", b"2", b"3"]


def test_kafka_ends_on_sigterm_with_its_nodes(kafka: Kafka) -> None:
    """SIGTERM: status 0, and no Java process left."""
    node = int(kafka.status()["pids"]["1"])
    assert kafka.process.terminate() == 0
    assert not alive(node)


def test_kafka_makes_no_topic_by_itself(kafka_session: Kafka) -> None:
    """A producer to a topic that nobody created gets an error, not a topic."""
    producer = KafkaProducer(bootstrap_servers=kafka_session.bootstrap_servers, max_block_ms=2000)
    with pytest.raises(KafkaError):
        producer.send("misspelt", b"x").get(5)
    producer.close()
    admin = KafkaAdminClient(bootstrap_servers=kafka_session.bootstrap_servers)
    assert "misspelt" not in admin.list_topics()
    admin.close()


@pytest.mark.real
def test_a_cluster_id_that_begins_with_a_dash_is_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One random id in 64 looks like an option to Kafka's formatter; the node starts all the same."""
    requires("kafka")
    monkeypatch.setattr(cluster.uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xfb" + bytes(15)))
    made = cluster.Cluster(tmp_path, cluster.KafkaSettings())
    assert made.cluster_id.startswith("-")
    made.start()
    made.stop()


@pytest.mark.long
@pytest.mark.real
def test_three_nodes_survive_the_loss_of_one(tmp_path: Path) -> None:
    """With replication 3 and a node killed, acknowledged records are there and new ones are accepted."""
    requires("kafka")
    with Kafka(tmp_path / "kafka", tmp_path / "run", "--nodes", "3", "--heap-mib", "256") as cluster:
        servers = cluster.bootstrap_servers
        create_topic(servers, "replicated", 3)
        produce(servers, "replicated", [b"1"])
        pids = cluster.status()["pids"]
        assert len(pids) == 3
        os.kill(int(pids["1"]), signal.SIGKILL)
        until(lambda: len((read_status(tmp_path / "run", "kafka") or {})["pids"]) == 2, 10, "two nodes left")
        rest = ",".join(servers.split(",")[1:])
        produce(rest, "replicated", [b"2"])
        assert consume(rest, "replicated", 2) == [b"1", b"2"]


def test_mosquitto_comes_back_at_its_port(mosquitto: Mosquitto) -> None:
    """After kill -9 the same port serves again, and nothing of before is kept."""
    with MqttClient(mosquitto.host, mosquitto.port, "one") as one:
        one.publish("t", b"x", retain=True)
    port = mosquitto.port
    mosquitto.kill()
    mosquitto.start()
    assert mosquitto.port == port
    with MqttClient(mosquitto.host, mosquitto.port, "two") as two:
        two.subscribe("#")
        two.publish("t", b"y")
        assert two.wait_received(1) == [("t", b"y")]
