"""The embedded log with real clients: kafka-python and aiokafka, unmodified."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import KafkaError, MessageSizeTooLargeError, TopicAlreadyExistsError

from tests.kit.wait import until

from .log_server import LogServer


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogServer]:
    """One log for the tests of this file; each uses its own topics."""
    with LogServer(tmp_path_factory.mktemp("log"), segment_bytes=65536, message_bytes_max=200_000) as server:
        yield server


@pytest.fixture
def admin(log: LogServer) -> Iterator[KafkaAdminClient]:
    """An admin client."""
    client = KafkaAdminClient(bootstrap_servers=log.bootstrap)
    yield client
    client.close()


def create(admin: KafkaAdminClient, name: str, partitions: int = 1, **configs: str) -> None:
    """A topic; underscores in names of settings are dots."""
    topic_configs = {key.replace("_", "."): value for key, value in configs.items()}
    admin.create_topics([NewTopic(name, partitions, 1, topic_configs=topic_configs)])


def send(log: LogServer, topic: str, values: list[bytes], **options: object) -> list[int]:
    """Send to partition 0 with acks=all; the offsets."""
    producer = KafkaProducer(bootstrap_servers=log.bootstrap, acks="all", **options)
    try:
        futures = [producer.send(topic, value, partition=0) for value in values]
        return [future.get(20).offset for future in futures]
    finally:
        producer.close()


def read(log: LogServer, topic: str, count: int, start: int | None = None) -> list[bytes]:
    """The first `count` values of partition 0 from `start` on."""
    consumer = KafkaConsumer(bootstrap_servers=log.bootstrap, auto_offset_reset="earliest")
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        if start is not None:
            consumer.seek(partition, start)
        values: list[bytes] = []

        def enough() -> bool:
            for records in consumer.poll(200).values():
                values.extend(record.value for record in records)
            return len(values) >= count

        until(enough, 15, f"{count} records of {topic}")
        return values
    finally:
        consumer.close()


def test_topics_are_made_listed_described_and_deleted(log: LogServer, admin: KafkaAdminClient) -> None:
    """An admin client finds what it made, with ids and settings, and is refused what cannot be."""
    create(admin, "made", 3, cleanup_policy="compact", max_message_bytes="12345")
    assert "made" in admin.list_topics()
    (described,) = admin.describe_topics(["made"])
    assert len(described["partitions"]) == 3
    assert described["topic_id"]
    with pytest.raises(TopicAlreadyExistsError):
        create(admin, "made")
    admin.create_partitions({"made": NewPartitions(5)})
    assert len(admin.describe_topics(["made"])[0]["partitions"]) == 5
    cluster = admin.describe_cluster()
    assert [broker["port"] for broker in cluster["brokers"]] == [log.port]
    admin.delete_topics(["made"])
    assert "made" not in admin.list_topics()


def test_an_idempotent_producer_and_a_reader(log: LogServer, admin: KafkaAdminClient) -> None:
    """What kafka-python's default producer sends is read back in order, compressed or not, with keys and headers."""
    create(admin, "plain")
    values = [b"%d" % number for number in range(500)]
    assert send(log, "plain", values[:250]) == list(range(250))
    assert send(log, "plain", values[250:], compression_type="gzip") == list(range(250, 500))
    assert read(log, "plain", 500) == values
    assert read(log, "plain", 100, start=400) == values[400:]


def test_log_append_time(log: LogServer, admin: KafkaAdminClient) -> None:
    """With LogAppendTime the log's clock counts, in the producer's answer and in the record; a search finds it."""
    create(admin, "timed", message_timestamp_type="LogAppendTime")
    producer = KafkaProducer(bootstrap_servers=log.bootstrap, acks="all")
    sent = producer.send("timed", b"x", partition=0, timestamp_ms=1000).get(10)
    producer.close()
    assert sent.timestamp > 1_600_000_000_000
    consumer = KafkaConsumer(bootstrap_servers=log.bootstrap)
    partition = TopicPartition("timed", 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    (records,) = until(lambda: consumer.poll(200), 10, "the record").values()
    assert (records[0].timestamp, records[0].timestamp_type) == (sent.timestamp, 1)
    found = consumer.offsets_for_times({partition: sent.timestamp})[partition]
    assert (found.offset, found.timestamp) == (0, sent.timestamp)
    assert consumer.offsets_for_times({partition: sent.timestamp + 1})[partition] is None
    consumer.close()


def test_a_message_that_is_too_large(log: LogServer, admin: KafkaAdminClient) -> None:
    """It is refused for good; the producer goes on with the next."""
    create(admin, "small", max_message_bytes="1000")
    producer = KafkaProducer(bootstrap_servers=log.bootstrap, acks="all", retries=0)
    with pytest.raises(MessageSizeTooLargeError):
        producer.send("small", b"x" * 2000, partition=0).get(10)
    producer.close()
    assert send(log, "small", [b"x"]) == [0]


def test_deleted_records_are_gone(log: LogServer, admin: KafkaAdminClient) -> None:
    """DeleteRecords removes whole files, moves the start, and a restart remembers it."""
    create(admin, "deleted")
    send(log, "deleted", [b"x" * 10_000] * 40)
    directory = log.directory / "log" / "deleted-0"
    before = len(list(directory.glob("*.log")))
    assert before > 3
    partition = TopicPartition("deleted", 0)
    admin.delete_records({partition: 30})
    assert len(list(directory.glob("*.log"))) < before - 1
    assert len(read(log, "deleted", 10)) == 10
    consumer = KafkaConsumer(bootstrap_servers=log.bootstrap)
    assert consumer.beginning_offsets([partition]) == {partition: 30}
    log.kill()
    log.start()
    assert until(lambda: consumer.beginning_offsets([partition]), 10) == {partition: 30}
    assert consumer.end_offsets([partition]) == {partition: 40}
    consumer.close()
    assert send(log, "deleted", [b"next"]) == [40]


def test_settings_are_changed_and_described(log: LogServer, admin: KafkaAdminClient) -> None:
    """IncrementalAlterConfigs changes a topic, DescribeConfigs tells it; wrong values are refused."""
    create(admin, "configured")
    changed = ConfigResource(ConfigResourceType.TOPIC, "configured", configs={"retention.ms": "1234"})
    admin.alter_configs([changed])
    told = str(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "configured")]))
    assert "1234" in told
    wrong = ConfigResource(ConfigResourceType.TOPIC, "configured", configs={"retention.ms": "soon"})
    assert "'soon' is not a whole number" in str(admin.alter_configs([wrong]))


def test_transactions_are_refused(log: LogServer) -> None:
    """A transactional producer fails at once with an error that no client retries."""
    producer = KafkaProducer(bootstrap_servers=log.bootstrap, transactional_id="t")
    with pytest.raises(KafkaError):
        producer.init_transactions()
    producer.close(timeout=1)


def test_aiokafka(log: LogServer, admin: KafkaAdminClient) -> None:
    """aiokafka's idempotent producer and its group consumer, as Faust uses them."""
    create(admin, "aio", 2)

    async def story() -> list[bytes]:
        async with AIOKafkaProducer(bootstrap_servers=log.bootstrap, enable_idempotence=True) as producer:
            for number in range(100):
                await producer.send_and_wait("aio", b"%d" % number, partition=number % 2)
        values: list[bytes] = []
        async with AIOKafkaConsumer(
            "aio", bootstrap_servers=log.bootstrap, group_id="aio", auto_offset_reset="earliest"
        ) as consumer:
            async with asyncio.timeout(15):
                while len(values) < 100:
                    values.append((await consumer.getone()).value)
            await consumer.commit()
        return values

    assert sorted(map(int, asyncio.run(story()))) == list(range(100))
    assert {each.offset for each in admin.list_group_offsets("aio")["aio"].values()} == {50}


def test_malformed_bytes_cost_one_connection(log: LogServer, admin: KafkaAdminClient) -> None:
    """A client that sends nonsense is cut off; the others do not notice, and it is counted."""
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack(">i", 2**30) + b"x" * 100,
        b"\0\0\0\x0a\0\0\0\x08" + b"\xff" * 6,
    ):
        with socket.create_connection(("127.0.0.1", log.port), timeout=5) as connection:
            connection.sendall(data)
            assert connection.recv(1) == b""
    assert admin.list_topics() is not None
    until(lambda: log.status()["requests_malformed"] >= 3, 5, "the counter")


def test_a_second_process_is_told_who_holds_the_directory(log: LogServer) -> None:
    """It ends with status 1 and says what to do."""
    second = LogServer(log.directory)
    second.run_dir = log.directory / "run2"
    with pytest.raises(AssertionError, match=r"in use by process \d+"):
        second.start()


def test_a_full_log_refuses_until_records_are_deleted(tmp_path: Path) -> None:
    """At bytes_max the producer retries, an alarm is raised, and deleting records lets it through."""
    with LogServer(tmp_path, bytes_max=100_000, segment_bytes=20_000) as full:
        admin = KafkaAdminClient(bootstrap_servers=full.bootstrap)
        create(admin, "t")
        assert len(send(full, "t", [b"x" * 12_000] * 9, batch_size=0)) == 9
        producer = KafkaProducer(bootstrap_servers=full.bootstrap, acks="all", retry_backoff_ms=50)
        future = producer.send("t", b"late", partition=0)
        until(lambda: full.status()["alarms"], 5, "the alarm")
        assert not future.is_done
        admin.delete_records({TopicPartition("t", 0): 9})
        assert future.get(20).offset == 9
        until(lambda: not full.status()["alarms"], 5, "the end of the alarm")
        producer.close()
        admin.close()
