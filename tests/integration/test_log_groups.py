"""Consumer groups on the embedded log: rebalances, a killed member, static membership, commits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.admin import NewTopic

from tests.kit.wait import until

from .log_server import LogServer

PARTITIONS = 4
MEMBER = """
import sys
from kafka import KafkaConsumer
consumer = KafkaConsumer("t", bootstrap_servers=sys.argv[1], group_id=sys.argv[2], session_timeout_ms=1500,
    heartbeat_interval_ms=300, group_instance_id=sys.argv[3] or None)
told = False
while True:
    consumer.poll(100)
    if consumer.assignment() and not told:
        told = True
        print("assigned", len(consumer.assignment()), flush=True)
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LogServer]:
    """A log with one topic of four partitions."""
    with LogServer(tmp_path_factory.mktemp("log")) as server:
        admin = KafkaAdminClient(bootstrap_servers=server.bootstrap)
        admin.create_topics([NewTopic("t", PARTITIONS, 1)])
        admin.close()
        yield server


def consumer_of(log: LogServer, group: str, instance: str | None = None) -> KafkaConsumer:
    """A group consumer with short timeouts."""
    return KafkaConsumer(
        "t",
        bootstrap_servers=log.bootstrap,
        group_id=group,
        session_timeout_ms=1500,
        heartbeat_interval_ms=300,
        group_instance_id=instance,
        auto_offset_reset="earliest",
    )


def has(consumer: KafkaConsumer, partitions: int, timeout_s: float = 10) -> None:
    """Poll until the consumer has that many partitions.

    A poll that ends in the middle of a rebalance makes kafka-python join once more, so polls are long here.
    """

    def assigned() -> bool:
        consumer.poll(500)
        return len(consumer.assignment()) == partitions

    until(assigned, timeout_s, f"{partitions} partitions")


def member(log: LogServer, group: str, instance: str = "") -> subprocess.Popen[str]:
    """A member in a process of its own, so that it can be killed."""
    command = [sys.executable, "-c", MEMBER, log.bootstrap, group, instance]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_members_share_and_one_takes_over(log: LogServer) -> None:
    """Two members get half each; when one is killed with kill -9 the other gets all after the session timeout."""
    first = consumer_of(log, "share")
    has(first, PARTITIONS)
    other = member(log, "share")
    try:
        has(first, PARTITIONS // 2)
        assert other.stdout is not None
        assert other.stdout.readline() == f"assigned {PARTITIONS // 2}\n"
    finally:
        other.kill()
        other.communicate(timeout=10)
    has(first, PARTITIONS, timeout_s=8)
    first.close()


def test_a_killed_static_member_is_back_before_anyone_notices(log: LogServer) -> None:
    """Killed and started again within its session timeout it has its partitions at once, without a rebalance."""
    first = consumer_of(log, "static", "one")
    has(first, PARTITIONS)
    other = member(log, "static", "two")
    has(first, PARTITIONS // 2)
    assert other.stdout is not None
    assert other.stdout.readline()
    other.kill()
    other.communicate(timeout=10)
    admin = KafkaAdminClient(bootstrap_servers=log.bootstrap)
    back = member(log, "static", "two")
    try:
        assert back.stdout is not None
        assert back.stdout.readline() == f"assigned {PARTITIONS // 2}\n"
        first.poll(500)
        assert len(first.assignment()) == PARTITIONS // 2
        described = admin.describe_groups(["static"])["static"]
        assert described["group_state"] == "Stable"
        assert {each["group_instance_id"] for each in described["members"]} == {"one", "two"}
    finally:
        back.kill()
        back.communicate(timeout=10)
        admin.close()
        first.close()


def test_a_member_that_leaves_is_replaced_at_once(log: LogServer) -> None:
    """Closing a consumer gives its partitions to the other without waiting for a timeout."""
    first, second = consumer_of(log, "leave"), consumer_of(log, "leave")
    with ThreadPoolExecutor(1) as pool:
        joined = pool.submit(has, second, PARTITIONS // 2)
        has(first, PARTITIONS // 2)
        joined.result(10)
        left = pool.submit(second.close)
        has(first, PARTITIONS)
        left.result(10)
    first.close()


def test_commits_survive_kill_9(log: LogServer) -> None:
    """A group's offsets are there after a restart of the log, and its next member goes on from them."""
    producer = KafkaProducer(bootstrap_servers=log.bootstrap, acks="all")
    for number in range(10):
        producer.send("t", b"%d" % number, partition=0).get(10)
    producer.close()
    partition = TopicPartition("t", 0)
    first = consumer_of(log, "commits")
    has(first, PARTITIONS)
    first.commit({partition: OffsetAndMetadata(4, "note", -1)})
    log.kill()
    log.start()
    assert first.committed(partition) == 4
    first.close(autocommit=False)
    second = consumer_of(log, "commits")
    seen: list[bytes] = []

    def next_value() -> bool:
        for records in second.poll(50).values():
            seen.extend(record.value for record in records if record.partition == 0)
        return bool(seen)

    until(next_value, 15, "a record")
    assert seen[0] == b"4"
    second.close()


def test_groups_are_listed_and_deleted(log: LogServer) -> None:
    """An admin client sees a group, cannot delete it while it has members, and can afterwards."""
    admin = KafkaAdminClient(bootstrap_servers=log.bootstrap)
    consumer = consumer_of(log, "listed")
    has(consumer, PARTITIONS)
    consumer.commit({TopicPartition("t", 1): OffsetAndMetadata(0, "", -1)})
    assert "listed" in {group["group_id"] for group in admin.list_groups()}
    assert admin.delete_groups(["listed"]) == {"listed": "NonEmptyGroupError"}
    consumer.close()
    until(lambda: admin.describe_groups(["listed"])["listed"]["group_state"] == "Empty", 5, "the group to be empty")
    admin.delete_groups(["listed"])
    assert "listed" not in {group["group_id"] for group in admin.list_groups()}
    admin.close()
