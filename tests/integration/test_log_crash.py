"""kill -9 under load: what was acknowledged is read, once, in order."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError

from tests.kit.wait import until

from .log_server import LogServer

PARTITIONS = 3
KILLS = 5


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LogServer]:
    """A log with small segments, so that kills meet rolls too."""
    with LogServer(tmp_path, segment_bytes=65536) as server:
        admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
        admin.create_topics([NewTopic("t", PARTITIONS, 1)])
        admin.close()
        yield server


def read_all(log: LogServer) -> list[list[bytes]]:
    """All values of each partition."""
    consumer = KafkaConsumer(bootstrap_servers=log.bootstrap)
    partitions = [TopicPartition("t", number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(partitions)
    values: list[list[bytes]] = [[] for _ in partitions]

    def complete() -> bool:
        for records in consumer.poll(200).values():
            for record in records:
                values[record.partition].append(record.value)
        return all(len(values[each.partition]) >= end for each, end in ends.items())

    until(complete, 20, "all records")
    consumer.close()
    return values


def test_nothing_acknowledged_is_lost_or_doubled(log: LogServer) -> None:
    """An idempotent producer sends through five kills, some with a torn batch left behind; acked equals read."""
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)
    producer = KafkaProducer(
        bootstrap_servers=log.bootstrap,
        acks="all",
        retries=1000,
        retry_backoff_ms=50,
        reconnect_backoff_ms=50,
        reconnect_backoff_max_ms=200,
        request_timeout_ms=5000,
        delivery_timeout_ms=60_000,
        linger_ms=1,
    )
    sent: list[list[bytes]] = [[] for _ in range(PARTITIONS)]
    acked: list[set[bytes]] = [set() for _ in range(PARTITIONS)]
    failed: list[BaseException] = []
    stop = threading.Event()

    def note(partition: int, value: bytes) -> None:
        acked[partition].add(value)

    def load() -> None:
        number = 0
        while not stop.is_set():
            partition = number % PARTITIONS
            value = b"%d " % number + b"x" * (number * 37 % 900)
            sent[partition].append(value)
            future = producer.send("t", value, partition=partition)
            future.add_callback(lambda _, p=partition, v=value: note(p, v))
            future.add_errback(failed.append)
            number += 1
            if number % 50 == 0:
                time.sleep(0.005)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for kill in range(KILLS):
            before = sum(map(len, acked))
            until(lambda before=before: sum(map(len, acked)) > before + 200, 20, "traffic")
            time.sleep(chance.uniform(0, 0.1))
            until(lambda: sum(map(len, sent)) > sum(map(len, acked)), 5, "records in flight", 0.0005)
            log.kill()
            if kill % 2:
                last = max((log.directory / "log" / f"t-{chance.randrange(PARTITIONS)}").glob("*.log"))
                with last.open("ab") as file:
                    file.write(chance.randbytes(chance.randint(1, 200)))
            log.start()
    finally:
        stop.set()
        thread.join(30)
        try:
            producer.flush(timeout=40)
        finally:
            producer.close(timeout=5)
    assert not failed, f"seed {seed}: {failed[0]!r}"
    values = read_all(log)
    for partition in range(PARTITIONS):
        lost = acked[partition] - set(values[partition])
        assert not lost, f"seed {seed}: {len(lost)} acknowledged records are lost"
        assert values[partition] == sent[partition], f"seed {seed}: not once, or not in order"


def test_a_restart_changes_nothing_for_an_open_consumer(log: LogServer) -> None:
    """A consumer that waits at the end gets what comes after a clean restart, from the same offsets."""
    consumer = KafkaConsumer(bootstrap_servers=log.bootstrap, reconnect_backoff_ms=50, reconnect_backoff_max_ms=200)
    consumer.assign([TopicPartition("t", 0)])
    consumer.seek_to_beginning()
    consumer.poll(100)
    assert log.stop() == 0
    log.start()
    producer = KafkaProducer(bootstrap_servers=log.bootstrap, acks="all")
    producer.send("t", b"after", partition=0).get(10)
    producer.close()

    def received() -> list[bytes]:
        try:
            return [record.value for records in consumer.poll(200).values() for record in records]
        except KafkaError:
            return []

    assert until(received, 15, "the record") == [b"after"]
    consumer.close()
