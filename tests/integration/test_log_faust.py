"""Faust on the embedded log, unmodified: an agent with a table, its own commits and its changelog topic."""

from __future__ import annotations

import sys
from pathlib import Path

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic

from tests.kit.processes import Product
from tests.kit.wait import until

from .log_server import LogServer

APP = """
import sys
import faust

app = faust.App("tried", broker="kafka://" + sys.argv.pop(1), store="memory://", topic_partitions=2, web_enabled=False,
    broker_commit_interval=0.2)
numbers = app.topic("numbers", value_type=bytes, value_serializer="raw", key_serializer="raw", partitions=2)
seen = app.topic("seen", value_type=bytes, value_serializer="raw", partitions=1)
counts = app.Table("counts", default=int)

@app.agent(numbers)
async def count(stream):
    async for value in stream:
        counts[value.decode()] += 1
        await seen.send(value=value)

app.main()
"""


def test_a_faust_worker(tmp_path: Path) -> None:
    """It joins, creates its compacted changelog, consumes both partitions, produces, commits, and leaves."""
    (tmp_path / "app.py").write_text(APP)
    with LogServer(tmp_path / "server") as log:
        admin = KafkaAdminClient(bootstrap_servers=log.bootstrap)
        admin.create_topics([NewTopic("numbers", 2, 1), NewTopic("seen", 1, 1)])
        producer = KafkaProducer(bootstrap_servers=log.bootstrap, acks="all")
        for number in range(100):
            producer.send("numbers", b"%d" % number, partition=number % 2)
        producer.flush()
        producer.close()
        command = [sys.executable, tmp_path / "app.py", log.bootstrap, "--datadir", tmp_path, "worker", "-l", "warn"]
        worker = Product(tmp_path / "worker", "worker", command).start()
        try:
            consumer = KafkaConsumer(bootstrap_servers=log.bootstrap)
            consumer.assign([TopicPartition("seen", 0)])
            consumer.seek_to_beginning()
            values: list[bytes] = []

            def complete() -> bool:
                assert worker.alive, worker.tail()
                for records in consumer.poll(100).values():
                    values.extend(record.value for record in records)
                return len(values) >= 100

            until(complete, 30, "all numbers")
            assert sorted(map(int, values)) == list(range(100))
            until(
                lambda: {50} == {each.offset for each in admin.list_group_offsets("tried")["tried"].values()},
                10,
                "commits of both partitions",
            )
            assert "tried-counts-changelog" in admin.list_topics()
            consumer.close()
        finally:
            worker.terminate()
        admin.close()
