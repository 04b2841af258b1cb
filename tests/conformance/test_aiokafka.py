"""aiokafka on both logs, as Faust uses it: idempotent producer, group consumer, two members, a seek."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from .conftest import Log

Fresh = Callable[[str], str]


async def made(log: Log, name: str, partitions: int) -> None:
    """A topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=log.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1)])
    finally:
        await admin.close()


def test_two_members_read_all_between_them(any_log: Log, fresh: Fresh) -> None:
    """What was sent is read once in all, and both take part; commits are there afterwards."""
    name, group = fresh("aio"), fresh("group")

    async def story() -> tuple[list[int], set[int], dict[int, int]]:
        await made(any_log, name, 4)
        options = {"bootstrap_servers": any_log.bootstrap, "group_id": group, "auto_offset_reset": "earliest"}
        consumers = [AIOKafkaConsumer(name, **options, enable_auto_commit=False) for _ in range(2)]
        for consumer in consumers:
            await consumer.start()
        async with asyncio.timeout(30):
            while {len(consumer.assignment()) for consumer in consumers} != {2}:
                await asyncio.gather(*(consumer.getmany(timeout_ms=100) for consumer in consumers))
        async with AIOKafkaProducer(bootstrap_servers=any_log.bootstrap, enable_idempotence=True) as producer:
            for number in range(200):
                await producer.send_and_wait(name, b"%d" % number, partition=number % 4)
        seen: list[int] = []
        members: set[int] = set()
        async with asyncio.timeout(30):
            while len(seen) < 200:
                for index, consumer in enumerate(consumers):
                    for records in (await consumer.getmany(timeout_ms=100)).values():
                        members.add(index)
                        seen += [int(record.value) for record in records]
        for consumer in consumers:
            await consumer.commit()
        committed = {}
        for partition in range(4):
            offset = await consumers[0].committed(TopicPartition(name, partition))
            committed[partition] = int(offset or 0)
        for consumer in consumers:
            await consumer.stop()
        return sorted(seen), members, committed

    seen, members, committed = asyncio.run(story())
    assert seen == list(range(200))
    assert members == {0, 1}
    assert committed == dict.fromkeys(range(4), 50)


def test_a_seek_reads_again(any_log: Log, fresh: Fresh) -> None:
    """Seeking back gives the same records at the same offsets."""
    name = fresh("seek")

    async def story() -> list[list[tuple[int, bytes]]]:
        await made(any_log, name, 1)
        async with AIOKafkaProducer(bootstrap_servers=any_log.bootstrap) as producer:
            for number in range(30):
                await producer.send_and_wait(name, b"%d" % number, partition=0)
        partition = TopicPartition(name, 0)
        consumer = AIOKafkaConsumer(bootstrap_servers=any_log.bootstrap)
        await consumer.start()
        consumer.assign([partition])
        rounds = []
        for _ in range(2):
            consumer.seek(partition, 10)
            found: list[tuple[int, bytes]] = []
            async with asyncio.timeout(20):
                while len(found) < 20:
                    records = (await consumer.getmany(partition, timeout_ms=200)).get(partition, [])
                    found += [(record.offset, record.value) for record in records]
            rounds.append(found)
        await consumer.stop()
        return rounds

    first, again = asyncio.run(story())
    assert first == again == [(number, b"%d" % number) for number in range(10, 30)]
