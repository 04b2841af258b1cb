"""Requests that carry records: Produce, Fetch, ListOffsets.

**Delivery**: acks=all is answered after the sync that covers it, also for a repeated batch whose first append is not
yet synced; acks=1 after the append, acks=0 never. Fetch and ListOffsets know synced records only.
**Bounds**: a fetch answers at most fetch_bytes_max, or one whole batch where that is larger, and waits at most
WAIT_MAX_S.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edge_agent.contract.errors import DecodeError
from stream_jobs.log.codec import FetchResponse, ListOffsetsResponse, ProduceResponse, Request
from stream_jobs.log.codes import Code, ProtocolError
from stream_jobs.log.partition import Partition

from .broker import LEADER_EPOCH, Answer, Broker

__all__ = ["fetch", "list_offsets", "produce"]

_LOG = logging.getLogger(__name__)
WAIT_MAX_S = 60.0
_ACKS_ALL, _ACKS_NONE, _ACKS_LEADER = -1, 0, 1
_LATEST, _EARLIEST = -1, -2

_PartitionResponse = ProduceResponse.TopicProduceResponse.PartitionProduceResponse
_PartitionData = FetchResponse.FetchableTopicResponse.PartitionData


class _Produced:
    """One produce request under way: its response, and how many of its partitions still wait for their sync."""

    def __init__(self, broker: Broker, body: Any) -> None:
        self.body = body
        self.now_ms = broker.now_ms()
        self._future: asyncio.Future[Answer] = broker.loop.create_future()
        self._open = 1
        self.response = ProduceResponse(responses=[], throttle_time_ms=0)

    def wait_for(self, partition: Partition, next_offset: int, entry: Any) -> None:
        """Answer only after everything below `next_offset` is synced."""
        self._open += 1

        def synced(code: Code) -> None:
            if code is not Code.NONE:
                entry.error_code, entry.base_offset = code, -1
                entry.error_message = partition.failure
            self._close_one()

        partition.when_synced(next_offset, synced)

    def _close_one(self) -> None:
        self._open -= 1
        if not self._open and not self._future.done():
            self._future.set_result(self.response)

    def answer(self) -> asyncio.Future[Answer]:
        """The response, once nothing is waited for any more."""
        self._close_one()
        return self._future


def produce(broker: Broker, request: Request) -> Any:
    """Append each partition's batch."""
    body = request.body
    produced = _Produced(broker, body)
    for topic in body.topic_data:
        entries = [_produce_one(broker, topic.name, each, produced) for each in topic.partition_data]
        produced.response.responses.append(
            ProduceResponse.TopicProduceResponse(name=topic.name, partition_responses=entries)
        )
    if body.acks == _ACKS_NONE:
        return None
    return produced.answer()


def _produce_one(broker: Broker, topic: str, data: Any, produced: _Produced) -> Any:
    body = produced.body
    entry = _PartitionResponse(
        index=data.index,
        error_code=Code.NONE,
        base_offset=-1,
        log_append_time_ms=-1,
        log_start_offset=-1,
        record_errors=[],
        error_message=None,
    )
    try:
        _check_produce(body)
        partition, appended = broker.store.append(topic, data.index, data.records or b"", produced.now_ms)
    except ProtocolError as error:
        if body.acks == _ACKS_NONE:
            raise
        entry.error_code, entry.error_message = error.code, str(error)
        return entry
    entry.base_offset, entry.log_append_time_ms = appended.base_offset, appended.append_time_ms
    entry.log_start_offset = partition.log_start_offset
    if body.acks == _ACKS_ALL:
        produced.wait_for(partition, appended.next_offset, entry)
    return entry


def _check_produce(body: Any) -> None:
    if body.transactional_id is not None:
        message = "transactions are not supported by this log"
        raise ProtocolError(Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, message)
    if body.acks not in {_ACKS_ALL, _ACKS_NONE, _ACKS_LEADER}:
        raise ProtocolError(Code.INVALID_REQUIRED_ACKS, f"acks of {body.acks}; use 0, 1 or -1 (all)")


@dataclass
class _Read:
    """What one partition of a fetch gives now."""

    topic: str
    number: int
    code: Code
    records: bytes = b""
    partition: Partition | None = None


def fetch(broker: Broker, request: Request) -> Any:
    """Records of each partition from its offset on; waits for min_bytes up to max_wait_ms."""
    reads = _read_all(broker, request.body)
    wait_s = min(request.body.max_wait_ms / 1000, WAIT_MAX_S)
    if wait_s <= 0 or _enough(broker, request.body, reads):
        return _fetched(reads)
    return broker.loop.create_task(_wait_and_fetch(broker, request.body, reads, broker.loop.time() + wait_s))


async def _wait_and_fetch(broker: Broker, body: Any, reads: list[_Read], deadline_s: float) -> Any:
    while not _enough(broker, body, reads) and broker.loop.time() < deadline_s:
        await _any_moved(broker.loop, [read.partition for read in reads if read.partition], deadline_s)
        reads = _read_all(broker, body)
    return _fetched(reads)


async def _any_moved(loop: asyncio.AbstractEventLoop, partitions: list[Partition], deadline_s: float) -> None:
    """Return when a partition has something new, or at the deadline."""
    moved: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not moved.done():
            moved.set_result(None)

    watcher: Callable[[], None] = wake
    timer = loop.call_at(deadline_s, wake)
    for partition in partitions:
        partition.watchers.add(watcher)
    try:
        await moved
    finally:
        timer.cancel()
        for partition in partitions:
            partition.watchers.discard(watcher)


def _read_all(broker: Broker, body: Any) -> list[_Read]:
    left = min(max(body.max_bytes, 0), broker.settings.fetch_bytes_max)
    reads: list[_Read] = []
    empty = True
    for topic in body.topics:
        for each in topic.partitions:
            bytes_max = min(left, max(each.partition_max_bytes, 0))
            read = _read_one(broker, topic.topic, each, bytes_max, whole_first=empty)
            left = max(0, left - len(read.records))
            empty = empty and not read.records
            reads.append(read)
    return reads


def _read_one(broker: Broker, topic: str, wanted: Any, bytes_max: int, *, whole_first: bool) -> _Read:
    try:
        partition = broker.store.partition(topic, wanted.partition)
    except ProtocolError as error:
        return _Read(topic, wanted.partition, error.code)
    try:
        records = partition.read(wanted.fetch_offset, bytes_max, whole_first=whole_first)
    except ProtocolError as error:
        return _Read(topic, wanted.partition, error.code, partition=partition)
    except (OSError, DecodeError) as error:
        _LOG.error("read of %s-%d at offset %d failed: %s", topic, wanted.partition, wanted.fetch_offset, error)
        return _Read(topic, wanted.partition, Code.KAFKA_STORAGE_ERROR, partition=partition)
    return _Read(topic, wanted.partition, Code.NONE, records, partition)


def _enough(broker: Broker, body: Any, reads: list[_Read]) -> bool:
    """Whether to answer now: enough bytes, or an error that the client should see."""
    wanted = min(body.min_bytes, body.max_bytes, broker.settings.fetch_bytes_max)
    return sum(len(read.records) for read in reads) >= wanted or any(read.code is not Code.NONE for read in reads)


def _fetched(reads: list[_Read]) -> Any:
    topics: dict[str, list[Any]] = {}
    for read in reads:
        synced, start = -1, -1
        if read.partition is not None:
            synced, start = read.partition.synced_offset, read.partition.log_start_offset
        data = _PartitionData(
            partition_index=read.number,
            error_code=read.code,
            high_watermark=synced,
            last_stable_offset=synced,
            log_start_offset=start,
            aborted_transactions=None,
            preferred_read_replica=-1,
            records=read.records,
        )
        topics.setdefault(read.topic, []).append(data)
    responses = [
        FetchResponse.FetchableTopicResponse(topic=name, partitions=partitions) for name, partitions in topics.items()
    ]
    return FetchResponse(throttle_time_ms=0, error_code=Code.NONE, session_id=0, responses=responses)


def list_offsets(broker: Broker, request: Request) -> Any:
    """Earliest, latest, or the first offset not older than a time."""
    topics = [
        ListOffsetsResponse.ListOffsetsTopicResponse(
            name=topic.name, partitions=[_list_one(broker, topic.name, each) for each in topic.partitions]
        )
        for topic in request.body.topics
    ]
    return ListOffsetsResponse(topics=topics)


def _list_one(broker: Broker, topic: str, wanted: Any) -> Any:
    code, offset, timestamp_ms = Code.NONE, -1, -1
    try:
        partition = broker.store.partition(topic, wanted.partition_index)
        if wanted.timestamp == _LATEST:
            offset = partition.synced_offset
        elif wanted.timestamp == _EARLIEST:
            offset = partition.log_start_offset
        elif wanted.timestamp < 0:
            code = Code.UNSUPPORTED_VERSION
        else:
            offset, timestamp_ms = partition.offset_at(wanted.timestamp) or (-1, -1)
    except ProtocolError as error:
        code = error.code
    except (OSError, DecodeError) as error:
        _LOG.error("search of %s-%d by time failed: %s", topic, wanted.partition_index, error)
        code = Code.KAFKA_STORAGE_ERROR
    return ListOffsetsResponse.ListOffsetsTopicResponse.ListOffsetsPartitionResponse(
        partition_index=wanted.partition_index,
        error_code=code,
        timestamp=timestamp_ms,
        offset=offset,
        leader_epoch=LEADER_EPOCH if offset >= 0 else -1,
    )
