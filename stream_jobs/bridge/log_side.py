"""The bridge's side towards the log: connections, partitions taken up, answers settled, records read back, checkpoints.

**Delivery**: a watermark only ever comes from the confirmed fold: of records the log acknowledged (acks=all), in
the order of their offsets, with every hole read back first. Where a hole cannot be read because its records are
deleted, nothing is published and the partition is taken up again from its checkpoint. Checkpoints are written from
that fold only. **Bounds**: answers not settled yet count in the window; each call to the log has its timeout; a log
that does not answer is asked again after 0.1 to 5 s, and MQTT is not read meanwhile.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from edge_agent.contract.clock import Clock
from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import LimitError, RetryError, StopError
from edge_agent.contract.fold import Outcome
from edge_agent.contract.tables import Table
from edge_agent.contract.topics import LOG_BATCHES, LOG_CHECKPOINTS
from edge_agent.contract.wire import Kind
from stream_jobs.kafka_client import LogChangedError, LogClient, LogProducer, LogRecord, Producer

from .checkpoints import encode_checkpoint, highest
from .partition import END, PartitionBridge, Ticket
from .restore import Restored, header_of, read_checkpoints, restore
from .settings import BridgeSettings
from .tally import Tally
from .window import Answered, Window

__all__ = ["Client", "LogSide"]

_log = logging.getLogger(__name__)

_RETRY_S = (0.1, 5.0)


class Client(Protocol):
    """What is needed of `kafka_client.LogClient`."""

    def ensure_topics(self, partitions: int) -> None: ...

    def ensure_tables(self, partitions: int, producer: Producer) -> tuple[Table, Table]: ...

    def topic_id(self, topic: str) -> str: ...

    def offsets(self, topic: str, partition: int) -> tuple[int, int]: ...

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]: ...

    def delete_records(self, topic: str, partition: int, before: int) -> None: ...

    def close(self) -> None: ...


def _client(settings: BridgeSettings) -> Client:
    return LogClient(
        settings.bootstrap_servers, client_id=f"edgewater-{settings.name}", timeout_s=settings.log_timeout_s
    )


def _producer(settings: BridgeSettings) -> Producer:
    return LogProducer(
        settings.bootstrap_servers,
        client_id=f"edgewater-{settings.name}",
        linger_s=settings.linger_s,
        delivery_timeout_s=settings.delivery_timeout_s,
    )


class _Partition:
    """One partition of the log as the process keeps it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.topic_id = ""
        self.bridge: PartitionBridge | None = None
        self.answered: deque[Answered] = deque()
        self.checkpointed_at_s = 0.0
        self.checkpointed_offset = 0
        self.checkpoint_under_way = False


class LogSide:
    """Everything about the log, for the bridge's one thread."""

    def __init__(
        self,
        settings: BridgeSettings,
        window: Window,
        tally: Tally,
        clock: Clock,
        *,
        connect: Callable[[BridgeSettings], Client] = _client,
        connect_producer: Callable[[BridgeSettings], Producer] = _producer,
    ) -> None:
        self._settings = settings
        self._window = window
        self._tally = tally
        self._clock = clock
        self._connect_client = connect
        self._connect_producer = connect_producer
        self._client: Client | None = None
        self._producer: Producer | None = None
        self._table: tuple[Table, Table] | None = None
        self._partitions = [_Partition(number) for number in range(settings.partitions)]
        self._retry_at_s = 0.0
        self._retry_s = _RETRY_S[0]
        self.state = "connecting"

    # What the others ask

    @property
    def ready(self) -> bool:
        """Whether messages can be taken: connected, and every partition taken up."""
        return self.state == "connected"

    def partition_of(self, shard: int) -> int:
        """The partition that owns the shard in the current table; only when `ready` was true once."""
        assert self._table is not None
        return self._table[1].partitions[shard]

    def bridge(self, partition: int) -> PartitionBridge | None:
        """The partition's decisions, or None while it is being taken up."""
        return self._partitions[partition].bridge

    def status(self) -> list[dict[str, int]]:
        """Per partition: the next offset to fold, and that of the last checkpoint."""
        return [
            {
                "partition": part.number,
                "next_offset": part.bridge.fold.next_offset if part.bridge else -1,
                "checkpoint": part.checkpointed_offset,
            }
            for part in self._partitions
        ]

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes, ticket: Ticket | None) -> None:
        """Start an append; what becomes of it comes through the window, also when it cannot even start."""
        done = self._window.started(topic, partition, ticket, len(value))
        if self._producer is None:
            done(-1, -1, RetryError("the log is not connected"))
            return
        crash_point("bridge.append.before")
        try:
            self._producer.append(topic, partition, key, value, done)
        except (RetryError, StopError) as error:
            done(-1, -1, error)

    # Connecting and taking up

    def tick(self, now_s: float) -> None:
        """Connect and take up partitions where that is due. StopError where a person has to act."""
        if self.ready or now_s < self._retry_at_s:
            return
        part = self._partitions[0]
        try:
            self._connect()
            for part in self._partitions:
                if part.bridge is None:
                    self._take_up(part)
                self._settle(part)
        except LogChangedError as error:
            part.bridge = None
            self._not_now(error)
        except RetryError as error:
            self._not_now(error)
            self._disconnect()
        else:
            self.state, self._retry_s = "connected", _RETRY_S[0]

    def _not_now(self, error: Exception) -> None:
        if self.state in ("connected", "connecting"):
            _log.warning("%s", error)
        self.state = "unreachable"
        self._retry_at_s = self._clock.monotonic_s() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _RETRY_S[1])

    def _connect(self) -> None:
        if self._client is None:
            self._client = self._connect_client(self._settings)
            self._client.ensure_topics(self._settings.partitions)
        if self._producer is None:
            self._producer = self._connect_producer(self._settings)
        if self._table is None:
            self._table = self._client.ensure_tables(self._settings.partitions, self._producer)

    def _disconnect(self) -> None:
        """Close both connections; appends under way fail, and the fold tells later what became of them."""
        producer, self._producer = self._producer, None
        client, self._client = self._client, None
        if producer is not None:
            producer.close()
        if client is not None:
            client.close()

    def _take_up(self, part: _Partition) -> None:
        assert self._client is not None
        assert self._table is not None
        started_s = self._clock.monotonic_s()
        found = restore(self._client, part.number, self._table[0])
        for text in found.alarms:
            self._tally.alarm(text, self._clock.time_us() / 1e6)
        part.topic_id = found.topic_id
        if found.replace:
            self._replace_checkpoints(part, found)
        part.bridge = PartitionBridge(found.fold)
        part.checkpointed_offset = found.fold.next_offset - found.records_read
        part.checkpointed_at_s = self._clock.monotonic_s()
        _log.info(
            "partition %d taken up at offset %d: %d records after the checkpoint, %.2f s",
            part.number, found.fold.next_offset, found.records_read, self._clock.monotonic_s() - started_s,
        )  # fmt: skip

    def _replace_checkpoints(self, part: _Partition, found: Restored) -> None:
        assert self._client is not None
        assert self._producer is not None
        value = encode_checkpoint(found.topic_id, found.fold)
        position = self._producer.append_now(LOG_CHECKPOINTS, part.number, None, value)
        self._client.delete_records(LOG_CHECKPOINTS, part.number, position)

    # Answers

    def settle(self, answers: list[Answered]) -> None:
        """Take answers of appends and fold what they confirm, reading back what is between."""
        failed = False
        for answered in answers:
            failed = failed or answered.error is not None
            if answered.topic == LOG_CHECKPOINTS:
                self._checkpoint_answered(self._partitions[answered.partition], answered)
            else:
                self._partitions[answered.partition].answered.append(answered)
        if failed:
            self._append_failed(next(answered.error for answered in answers if answered.error is not None))
        for part in self._partitions:
            if part.answered and part.bridge is not None:
                try:
                    self._settle(part)
                except LogChangedError as error:
                    self._changed(part, error)
                except RetryError as error:
                    self._not_now(error)
                    self._disconnect()

    def _append_failed(self, error: Exception) -> None:
        """A producer that failed once is replaced: the next has a new id, and nothing of the old one is trusted."""
        if self.state == "connected":
            self._not_now(error)
            self._disconnect()

    def _changed(self, part: _Partition, error: LogChangedError) -> None:
        self._tally.alarm(f"partition {part.number} is taken up again: {error}", self._clock.time_us() / 1e6)
        self._tally.reloads += 1
        part.bridge = None
        self.state, self._retry_at_s = "taking up", 0.0

    def _settle(self, part: _Partition) -> None:
        bridge = part.bridge
        while part.answered and bridge is not None:
            answered = part.answered[0]
            if answered.ticket is None:
                self._settle_dead_letter(bridge, answered)
            elif answered.error is not None:
                self._tally.failed_appends += 1
                bridge.fail(answered.ticket)
            else:
                read_to = bridge.read_to(answered.offset, answered.append_time_ms)
                if read_to is not None:
                    latest = max((other.offset for other in part.answered), default=-1) + 1
                    self._read_back(part.number, bridge, read_to if read_to == END else max(read_to, latest))
                crash_point("bridge.append.after")
                bridge.settle(answered.ticket, answered.offset, answered.append_time_ms)
                if answered.ticket.header.kind is Kind.BATCH:
                    self._tally.durable_batches += 1
                    self._tally.durable_rows += answered.ticket.header.rows
            part.answered.popleft()

    def _settle_dead_letter(self, bridge: PartitionBridge, answered: Answered) -> None:
        if answered.error is None:
            self._tally.dead_letters += 1
            bridge.settle_malformed(answered.offset, answered.append_time_ms)

    def _read_back(self, partition: int, bridge: PartitionBridge, until: int) -> None:
        if self._client is None:
            raise RetryError("the log is not connected")
        start, end = self._client.offsets(LOG_BATCHES, partition)
        following = bridge.fold.next_offset
        if start > following:
            raise LogChangedError(f"{LOG_BATCHES}/{partition}: records {following} to {start - 1} are deleted already")
        if end < max(following, until):
            raise LogChangedError(f"{LOG_BATCHES}/{partition} ends at {end}, it had reached {max(following, until)}")
        for record in self._client.read(LOG_BATCHES, partition, following, end if until == END else until):
            header, body = header_of(record.value)
            verdict = bridge.fold_read(
                record.offset, record.append_time_ms, header, bytes(body) if header and not header.device else b""
            )
            self._tally.read_back += 1
            if verdict.outcome is Outcome.MOVED:
                _log.info("partition %d: shard %s moved", partition, header.shard if header else "?")

    def read_to_end(self, partition: int) -> bool:
        """Read what others appended to the partition; False: not now."""
        part = self._partitions[partition]
        if part.bridge is None:
            return False
        try:
            self._read_back(partition, part.bridge, END)
        except LogChangedError as error:
            self._changed(part, error)
            return False
        except RetryError as error:
            self._not_now(error)
            self._disconnect()
            return False
        return True

    # Checkpoints

    def checkpoint(self, now_s: float, *, all_changed: bool = False) -> None:
        """Write a checkpoint of each partition for which one is due (`all_changed`: of each that changed)."""
        settings = self._settings
        for part in self._partitions:
            if part.bridge is None or part.checkpoint_under_way or not self.ready:
                continue
            records = part.bridge.fold.next_offset - part.checkpointed_offset
            late = now_s - part.checkpointed_at_s >= settings.checkpoint_interval_s
            if records and (all_changed or late or records >= settings.checkpoint_records):
                part.checkpointed_at_s = now_s
                self._write_checkpoint(part, part.bridge)

    def _write_checkpoint(self, part: _Partition, bridge: PartitionBridge) -> None:
        assert self._client is not None
        try:
            if self._client.topic_id(LOG_BATCHES) != part.topic_id:
                raise LogChangedError(f"{LOG_BATCHES} was made anew while the bridge was running")
            _, end = self._client.offsets(LOG_BATCHES, part.number)
            if end < bridge.fold.next_offset:
                raise LogChangedError(f"{LOG_BATCHES}/{part.number} ends at {end}, not {bridge.fold.next_offset}")
            value = encode_checkpoint(part.topic_id, bridge.fold)
        except LogChangedError as error:
            self._changed(part, error)
        except RetryError as error:
            self._not_now(error)
            self._disconnect()
        except LimitError as error:
            self._tally.alarm(f"partition {part.number} cannot be checkpointed: {error}", self._clock.time_us() / 1e6)
        else:
            crash_point("bridge.checkpoint.before")
            part.checkpoint_under_way = True
            part.checkpointed_offset = bridge.fold.next_offset
            self.append(LOG_CHECKPOINTS, part.number, None, value, None)

    def _checkpoint_answered(self, part: _Partition, answered: Answered) -> None:
        part.checkpoint_under_way = False
        if answered.error is not None or self._client is None:
            part.checkpointed_offset = 0
            return
        crash_point("bridge.checkpoint.after")
        self._tally.checkpoints += 1
        try:
            kept, _ = read_checkpoints(self._client, part.number)
            _, end = self._client.offsets(LOG_BATCHES, part.number)
            found = highest(kept, part.topic_id, end)
            if found is not None and found.position > kept[0].position:
                self._client.delete_records(LOG_CHECKPOINTS, part.number, found.position)
        except (RetryError, LogChangedError) as error:
            _log.info("older checkpoints of partition %d stay for now: %s", part.number, error)

    def close(self) -> None:
        """Close the connections; what is under way fails."""
        self._disconnect()
