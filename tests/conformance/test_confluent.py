"""librdkafka (confluent-kafka) on both logs: its admin, its idempotent producer, its groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tests.kit.wait import until

from .conftest import Log

Fresh = Callable[[str], str]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def made(log: Log, name: str, partitions: int = 1, **configs: str) -> str:
    """A topic with settings (underscores stand for dots)."""
    admin = AdminClient({"bootstrap.servers": log.bootstrap})
    config = {key.replace("_", "."): value for key, value in configs.items()}
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(20)
    until(lambda: len(admin.list_topics(name, timeout=5).topics[name].partitions) == partitions, 10)
    return name


def sent(log: Log, topic: str, values: list[bytes], **options: Any) -> list[Any]:
    """Send all to partition 0; the delivery reports in order: offset, or error."""
    producer = Producer({"bootstrap.servers": log.bootstrap, "enable.idempotence": True, **options})
    reports: list[Any] = []
    for value in values:
        producer.produce(
            topic, value, partition=0, on_delivery=lambda error, message: reports.append(error or message.offset())
        )
    assert producer.flush(30) == 0
    return reports


def read(log: Log, topic: str, count: int) -> list[Any]:
    """The first `count` messages of partition 0, by assignment."""
    consumer = Consumer({"bootstrap.servers": log.bootstrap, "group.id": "assigned", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    found: list[Any] = []

    def enough() -> bool:
        found.extend(message for message in consumer.consume(500, 0.5) if not message.error())
        return len(found) >= count

    try:
        until(enough, 20, f"{count} messages")
    finally:
        consumer.close()
    return found


@pytest.mark.parametrize("codec", CODECS)
def test_records_of_every_codec(any_log: Log, fresh: Fresh, codec: str) -> None:
    """What the idempotent producer sends is read back in order, whatever compresses it."""
    name = made(any_log, fresh(f"codec-{codec}"))
    values = [b"%d " % number * 20 for number in range(400)]
    options = {"compression.type": codec, "linger.ms": 20}
    assert sent(any_log, name, values, **options) == list(range(400))
    assert [message.value() for message in read(any_log, name, 400)] == values


def test_a_message_that_is_too_large(any_log: Log, fresh: Fresh) -> None:
    """The delivery report says so, and the next message goes on."""
    name = made(any_log, fresh("small"), max_message_bytes="1000")
    (report,) = sent(any_log, name, [b"x" * 5000], **{"enable.idempotence": False})
    assert report.code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert sent(any_log, name, [b"x"]) == [0]


def test_topics_that_cannot_be(any_log: Log, fresh: Fresh) -> None:
    """Wrong settings and doubles have their codes."""
    admin = AdminClient({"bootstrap.servers": any_log.bootstrap})
    name = made(any_log, fresh("made"))
    for topic, code in (
        (NewTopic(name, 1, 1), KafkaError.TOPIC_ALREADY_EXISTS),
        (NewTopic("no spaces", 1, 1), KafkaError.TOPIC_EXCEPTION),
        (NewTopic(fresh("bad"), 1, 1, config={"retention.ms": "soon"}), KafkaError.INVALID_CONFIG),
        (NewTopic(fresh("bad"), 1, 5), KafkaError.INVALID_REPLICATION_FACTOR),
    ):
        with pytest.raises(KafkaException) as raised:
            admin.create_topics([topic])[topic.topic].result(20)
        assert raised.value.args[0].code() == code
    admin.create_partitions([NewPartitions(name, 3)])[name].result(20)
    until(lambda: len(admin.list_topics(name, timeout=5).topics[name].partitions) == 3, 10)
    admin.delete_topics([name])[name].result(20)
    until(lambda: name not in admin.list_topics(timeout=5).topics, 10)


def test_a_group_goes_on_where_it_committed(any_log: Log, fresh: Fresh) -> None:
    """Subscribed, committed by hand, closed: the next member gets the rest; the lag can be computed."""
    name, group = made(any_log, fresh("group"), 2), fresh("group")
    producer = Producer({"bootstrap.servers": any_log.bootstrap})
    for number in range(20):
        producer.produce(name, b"%d" % number, partition=number % 2)
    assert producer.flush(20) == 0
    options = {
        "bootstrap.servers": any_log.bootstrap, "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "session.timeout.ms": 6000,
    }  # fmt: skip
    first = Consumer(options)
    first.subscribe([name])
    seen: list[Any] = []

    def eight() -> bool:
        message = first.poll(0.5)
        if message is not None and not message.error():
            seen.append(message)
        return len(seen) == 8

    until(eight, 30, "8 messages")
    for message in seen:
        first.commit(message, asynchronous=False)
    committed = first.committed([TopicPartition(name, 0), TopicPartition(name, 1)], timeout=10)
    assert sum(max(0, each.offset) for each in committed) == 8
    assert first.get_watermark_offsets(TopicPartition(name, 0), timeout=10) == (0, 10)
    first.close()
    second = Consumer(options)
    second.subscribe([name])
    rest: list[bytes] = []

    def twelve() -> bool:
        message = second.poll(0.5)
        if message is not None and not message.error():
            rest.append(message.value())
        return len(rest) == 12

    until(twelve, 30, "12 messages")
    second.close()
    assert sorted(map(int, [message.value() for message in seen] + rest)) == list(range(20))


def test_transactions_are_refused_by_the_embedded_log(any_log: Log, fresh: Fresh) -> None:
    """Where the embedded log differs it says so with an error that ends the attempt; Kafka commits."""
    name = made(any_log, fresh("transactions"))
    producer = Producer({"bootstrap.servers": any_log.bootstrap, "transactional.id": fresh("t")})
    if any_log.kind == "embedded":
        with pytest.raises(KafkaException) as raised:
            producer.init_transactions(10)
        assert not raised.value.args[0].retriable()
        return
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(name, b"x", partition=0)
    producer.commit_transaction(20)
    assert [message.value() for message in read(any_log, name, 1)] == [b"x"]
