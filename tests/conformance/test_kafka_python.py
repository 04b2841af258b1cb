"""kafka-python on both logs: admin, producer, consumer and groups end with the same outcomes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic

from tests.kit.wait import until

from .conftest import Log

Fresh = Callable[[str], str]


@pytest.fixture
def admin(any_log: Log) -> Iterator[KafkaAdminClient]:
    """An admin client."""
    client = KafkaAdminClient(bootstrap_servers=any_log.bootstrap)
    yield client
    client.close()


@contextlib.contextmanager
def producing(log: Log, **options: Any) -> Iterator[KafkaProducer]:
    """A producer with acks=all."""
    producer = KafkaProducer(bootstrap_servers=log.bootstrap, acks="all", **options)
    try:
        yield producer
    finally:
        producer.close(timeout=5)


@contextlib.contextmanager
def consuming(log: Log, *topics: str, **options: Any) -> Iterator[KafkaConsumer]:
    """A consumer."""
    consumer = KafkaConsumer(*topics, bootstrap_servers=log.bootstrap, **options)
    try:
        yield consumer
    finally:
        consumer.close()


def made(admin: KafkaAdminClient, name: str, partitions: int = 1, **configs: str) -> str:
    """A topic with settings (underscores stand for dots), once everybody knows it."""
    topic_configs = {key.replace("_", "."): value for key, value in configs.items()}
    admin.create_topics([NewTopic(name, partitions, 1, topic_configs=topic_configs)])
    admin.wait_for_topics([name], timeout_ms=10_000)
    return name


def values_of(consumer: KafkaConsumer, count: int) -> list[Any]:
    """The next `count` records."""
    found: list[Any] = []

    def enough() -> bool:
        for records in consumer.poll(200).values():
            found.extend(records)
        return len(found) >= count

    until(enough, 20, f"{count} records")
    return found


def test_topics(any_log: Log, admin: KafkaAdminClient, fresh: Fresh) -> None:
    """What is made is listed and described, grows, and is gone when deleted."""
    name = made(admin, fresh("made"), 3, max_message_bytes="12345")
    (described,) = admin.describe_topics([name])
    assert [part["partition_index"] for part in described["partitions"]] == [0, 1, 2]
    admin.create_partitions({name: NewPartitions(5)})
    until(lambda: len(admin.describe_topics([name])[0]["partitions"]) == 5, 10)
    configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])["topic"][name]
    assert str(configs["max.message.bytes"]["value"]) == "12345"
    admin.delete_topics([name])
    until(lambda: name not in admin.list_topics(), 10)


@pytest.mark.parametrize(
    ("partitions", "replicas", "configs", "error"),
    [
        (0, 1, {}, kafka_errors.InvalidPartitionsError),
        (1, 3, {}, kafka_errors.InvalidReplicationFactorError),
        (1, 1, {"no.such.setting": "1"}, kafka_errors.InvalidConfigurationError),
        (1, 1, {"retention.ms": "soon"}, kafka_errors.InvalidConfigurationError),
        (1, 1, {"cleanup.policy": "burn"}, kafka_errors.InvalidConfigurationError),
    ],
)
def test_topics_that_cannot_be(
    any_log: Log,
    admin: KafkaAdminClient,
    fresh: Fresh,
    partitions: int,
    replicas: int,
    configs: dict[str, str],
    error: type[Exception],
) -> None:
    """Each is refused with the protocol's own error for it."""
    with pytest.raises(error):
        admin.create_topics([NewTopic(fresh("bad"), partitions, replicas, topic_configs=configs)])


def test_names_that_cannot_be(any_log: Log, admin: KafkaAdminClient, fresh: Fresh) -> None:
    """A name with other characters, one that exists, one that does not."""
    with pytest.raises(kafka_errors.InvalidTopicError):
        admin.create_topics([NewTopic("no spaces", 1, 1)])
    name = made(admin, fresh("twice"))
    with pytest.raises(kafka_errors.TopicAlreadyExistsError):
        admin.create_topics([NewTopic(name, 1, 1)])
    with pytest.raises(kafka_errors.InvalidPartitionsError):
        admin.create_partitions({name: NewPartitions(1)})
    with pytest.raises(kafka_errors.UnknownTopicOrPartitionError):
        admin.delete_topics([fresh("never-made")])


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_records_come_back_as_sent(
    any_log: Log, admin: KafkaAdminClient, fresh: Fresh, compression: str | None
) -> None:
    """Keys, values, nulls, headers, times and offsets, compressed or not."""
    name = made(admin, fresh("records"))
    with producing(any_log, compression_type=compression) as producer:
        sent = [
            producer.send(name, b"v%d" % i, key=b"k" if i % 2 else None, partition=0, timestamp_ms=1_000 + i,
                          headers=[("h", b"%d" % i)])
            for i in range(300)
        ]  # fmt: skip
        tombstone = producer.send(name, None, key=b"k", partition=0, timestamp_ms=9_999)
        assert [future.get(20).offset for future in sent] == list(range(300))
        assert tombstone.get(20).offset == 300
    with consuming(any_log, name, auto_offset_reset="earliest") as consumer:
        found = values_of(consumer, 301)
    assert [record.value for record in found] == [b"v%d" % i for i in range(300)] + [None]
    assert [record.timestamp for record in found] == [1_000 + i for i in range(300)] + [9_999]
    assert {record.timestamp_type for record in found} == {0}
    assert found[7].key == b"k"
    assert found[8].key is None
    assert list(found[7].headers) == [("h", b"7")]


def test_a_message_that_is_too_large(any_log: Log, admin: KafkaAdminClient, fresh: Fresh) -> None:
    """It is refused for good, which ends an idempotent producer of kafka-python; the next one goes on."""
    name = made(admin, fresh("small"), max_message_bytes="1000")
    with producing(any_log) as producer, pytest.raises(kafka_errors.MessageSizeTooLargeError):
        producer.send(name, b"x" * 5000, partition=0).get(20)
    with producing(any_log) as producer:
        assert producer.send(name, b"x", partition=0).get(20).offset == 0


def test_offsets(any_log: Log, admin: KafkaAdminClient, fresh: Fresh) -> None:
    """First, last and by time; a search beyond the last finds nothing."""
    name = made(admin, fresh("offsets"))
    partition = TopicPartition(name, 0)
    with producing(any_log) as producer:
        for i in range(10):
            producer.send(name, b"x", partition=0, timestamp_ms=1_000 * (i + 1)).get(20)
    with consuming(any_log) as consumer:
        assert consumer.beginning_offsets([partition]) == {partition: 0}
        assert consumer.end_offsets([partition]) == {partition: 10}
        found = consumer.offsets_for_times({partition: 3_500})[partition]
        assert (found.offset, found.timestamp) == (3, 4_000)
        assert consumer.offsets_for_times({partition: 99_000})[partition] is None


def test_delete_records(any_log: Log, admin: KafkaAdminClient, fresh: Fresh) -> None:
    """The start moves and reading begins there; deleting beyond the end is out of range."""
    name = made(admin, fresh("deleted"))
    partition = TopicPartition(name, 0)
    with producing(any_log) as producer:
        for i in range(20):
            producer.send(name, b"%d" % i, partition=0).get(20)
    admin.delete_records({partition: 12})
    with pytest.raises(kafka_errors.OffsetOutOfRangeError):
        admin.delete_records({partition: 21})
    with consuming(any_log, name, auto_offset_reset="earliest") as consumer:
        assert consumer.beginning_offsets([partition]) == {partition: 12}
        assert [record.value for record in values_of(consumer, 8)] == [b"%d" % i for i in range(12, 20)]
    with consuming(any_log, auto_offset_reset="none") as strict:
        strict.assign([partition])
        strict.seek(partition, 3)
        with pytest.raises(kafka_errors.OffsetOutOfRangeError):
            until(lambda: strict.poll(200), 10, "an error")


def test_log_append_time(any_log: Log, admin: KafkaAdminClient, fresh: Fresh) -> None:
    """The log's clock counts, in the answer and in the record."""
    name = made(admin, fresh("timed"), message_timestamp_type="LogAppendTime")
    with producing(any_log) as producer:
        answered = producer.send(name, b"x", partition=0, timestamp_ms=1_000).get(20)
    with consuming(any_log, name, auto_offset_reset="earliest") as consumer:
        (record,) = values_of(consumer, 1)
    assert (record.timestamp, record.timestamp_type) == (answered.timestamp, 1)
    assert record.timestamp > 1_600_000_000_000


def test_a_long_poll_ends_when_a_record_comes(any_log: Log, admin: KafkaAdminClient, fresh: Fresh) -> None:
    """A reader that waits for up to 20 s is answered as soon as there is something."""
    name = made(admin, fresh("poll"))
    options = {"fetch_max_wait_ms": 20_000, "fetch_min_bytes": 1, "request_timeout_ms": 40_000}
    with ThreadPoolExecutor(1) as pool, producing(any_log) as producer, consuming(any_log, **options) as consumer:
        consumer.assign([TopicPartition(name, 0)])
        consumer.seek_to_beginning()
        consumer.position(TopicPartition(name, 0))
        waiting = pool.submit(consumer.poll, 15_000)
        assert not waiting.done()
        producer.send(name, b"now", partition=0).get(20)
        (records,) = waiting.result(10).values()
    assert [record.value for record in records] == [b"now"]


def group_member(log: Log, topic: str, group: str, **options: Any) -> KafkaConsumer:
    """A member of a group."""
    return KafkaConsumer(
        topic, bootstrap_servers=log.bootstrap, group_id=group, auto_offset_reset="earliest",
        session_timeout_ms=6_000, heartbeat_interval_ms=500, **options,
    )  # fmt: skip


def has(consumer: KafkaConsumer, partitions: int) -> None:
    """Poll until the member has that many partitions."""

    def assigned() -> bool:
        consumer.poll(500)
        return len(consumer.assignment()) == partitions

    until(assigned, 30, f"{partitions} partitions")


def test_a_group_shares_and_takes_over(any_log: Log, admin: KafkaAdminClient, fresh: Fresh) -> None:
    """Two members have half each; when one leaves the other has all."""
    name, group = made(admin, fresh("shared"), 4), fresh("group")
    first, second = group_member(any_log, name, group), group_member(any_log, name, group)
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(has, second, 2)
        has(first, 2)
        joined.result(30)
        described = admin.describe_groups([group])[group]
        assert (described["group_state"], len(described["members"])) == ("Stable", 2)
        assert admin.delete_groups([group])[group] == "NonEmptyGroupError"
        left = pool.submit(second.close)
        has(first, 4)
        left.result(30)
    first.close()
    until(lambda: admin.describe_groups([group])[group]["group_state"] == "Empty", 10)


def test_commits_are_kept(any_log: Log, admin: KafkaAdminClient, fresh: Fresh) -> None:
    """The next member goes on where the group committed; offsets and metadata can be asked for."""
    name, group = made(admin, fresh("commits")), fresh("group")
    partition = TopicPartition(name, 0)
    with producing(any_log) as producer:
        for i in range(10):
            producer.send(name, b"%d" % i, partition=0).get(20)
    first = group_member(any_log, name, group, enable_auto_commit=False)
    has(first, 1)
    first.commit({partition: OffsetAndMetadata(4, "note", -1)})
    first.close(autocommit=False)
    offsets = admin.list_group_offsets(group)[group]
    assert [(offset.offset, offset.metadata) for offset in offsets.values()] == [(4, "note")]
    second = group_member(any_log, name, group, enable_auto_commit=False)
    assert values_of(second, 6)[0].value == b"4"
    second.close(autocommit=False)


def test_a_group_that_never_was(any_log: Log, admin: KafkaAdminClient, fresh: Fresh) -> None:
    """It is dead when described, and cannot be deleted."""
    group = fresh("nobody")
    assert admin.delete_groups([group])[group] == "GroupIdNotFoundError"
