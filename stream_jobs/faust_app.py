"""Faust as Edgewater uses it: membership, assignment and consumption of `edgewater.batches`; the only module that
imports it.

Faust hands raw bytes on, one event a message. What it reads next after an assignment comes from the lake, not from
the group's offsets: `perform_seek`, which Faust calls when a rebalance is over, takes the partitions up and seeks.
What it commits to the group, for lag displays, is what the lake has. No tables, no changelogs, no web server, no
producer, and no codec that could run what a message says: the pickle codecs are removed before anything is read.

**Delivery**: whatever Faust repeats or skips, the buffer takes a record only at the offset expected, and seeks back for
it. When the log goes away and comes back the consumer connects again by itself; when Faust itself fails, `run` ends
with StopError, so that a supervisor starts the process again.
**Bounds**: QUEUED_MESSAGES_MAX messages in Faust's queue and one fetch of at most FETCH_BYTES_MAX a partition, beyond
what the worker buffers; `close` ends within its timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import faust
from aiokafka.errors import KafkaError  # type: ignore[import-untyped,unused-ignore]
from faust.serializers import codecs
from faust.transport.drivers.aiokafka import Consumer, Transport
from faust.types import TP
from yarl import URL

from edge_agent.contract import limits
from edge_agent.contract.errors import StopError
from edge_agent.contract.topics import LOG_BATCHES

from .worker.batching import Record
from .worker.settings import WorkerSettings

__all__ = ["FaustSource", "Taker", "group_of", "remove_pickle"]

QUEUED_MESSAGES_MAX = 64
FETCH_BYTES_MAX = 4 * limits.MIB
_COMMIT_INTERVAL_S = 2.0
_REQUEST_TIMEOUT_S = 90.0
_POLL_INTERVAL_MAX_S = 24 * 3600.0
_HEARTBEATS_A_SESSION = 5

_log = logging.getLogger("edgewater.worker")


class Taker(Protocol):
    """Who takes the records; see `worker.service.WorkerService`."""

    def revoked(self) -> None: ...

    async def assigned(self, numbers: Sequence[int]) -> dict[int, int]: ...

    def positions(self, numbers: Sequence[int]) -> dict[int, int]: ...

    async def offer(self, record: Record) -> None: ...


def remove_pickle() -> None:
    """Take every codec out of Faust's registry that unpickles; asking for one is then a LookupError."""
    for name in [name for name in codecs.codecs if "pickle" in name]:
        del codecs.codecs[name]


class _Unread(dict[TP, "int | None"]):
    """Faust's memory of what it read, which forgets: after a seek it would drop records that are wanted again."""

    def __missing__(self, key: TP) -> None:
        return None

    def __setitem__(self, key: TP, value: int | None) -> None:
        return

    def update(self, *_: Any, **__: Any) -> None:
        return


class _LakeConsumer(Consumer):  # type: ignore[misc,unused-ignore]
    """Faust's consumer, whose positions are the lake's."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.taker: Taker = self.app.taker  # type: ignore[attr-defined]
        self._read_offset = _Unread()
        self._taking_up = asyncio.Lock()
        self._taken_generation: int | None = None
        self._group_offsets: dict[int, int] = {}

    async def perform_seek(self) -> None:
        """Seek to what the lake has not consumed yet; taken up once an assignment."""
        async with self._taking_up:
            generation = self.app.consumer_generation_id
            numbers = [tp.partition for tp in self.assignment() if tp.topic == LOG_BATCHES]
            if generation == self._taken_generation or not numbers:
                return
            positions = await self.taker.assigned(numbers)
            if positions:
                self._taken_generation = generation
                self._group_offsets = {}
                await self.seek_all(positions)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Drop what is in hand before anything else: it may be somebody else's from now on."""
        self._taken_generation = None
        self.taker.revoked()
        await super().on_partitions_revoked(revoked)

    async def seek_all(self, positions: Mapping[int, int]) -> None:
        """Read on at these offsets; those of partitions lost meanwhile are passed over."""
        assigned = {tp.partition: tp for tp in self.assignment() if tp.topic == LOG_BATCHES}
        for number, offset in positions.items():
            if number in assigned:
                await self._seek(assigned[number], offset)

    async def force_commit(self, *_: Any, **__: Any) -> bool:
        """Tell the group how far the lake is."""
        assigned = {tp.partition: tp for tp in self.assignment() if tp.topic == LOG_BATCHES}
        news = {
            number: offset
            for number, offset in self.taker.positions(list(assigned)).items()
            if self._group_offsets.get(number) != offset
        }
        if not news or not await self._commit({assigned[number]: offset for number, offset in news.items()}):
            return False
        self._group_offsets.update(news)
        return True

    async def verify_all_partitions_active(self) -> None:
        """Nothing: Faust's watchdog counts acknowledgements, which are the lake's here."""


class _LakeTransport(Transport):  # type: ignore[misc,unused-ignore]
    """Faust's Kafka transport with our consumer."""

    Consumer = _LakeConsumer


class _App(faust.App):  # type: ignore[misc,unused-ignore]
    """Faust's application, which keeps nothing on this machine."""

    taker: Taker

    def _create_directories(self) -> None:
        return


def group_of(job: str) -> str:
    """The consumer group of a job's workers."""
    return f"edgewater-{job}"


class FaustSource:
    """Records of the partitions that the group gives this worker, one at a time to the taker."""

    def __init__(self, settings: WorkerSettings, job: str) -> None:
        remove_pickle()
        self._stopped = asyncio.Event()
        self._failure: BaseException | None = None
        self._app = _app(settings, job)
        self._app.transport = _LakeTransport(self._app.conf.broker, self._app)

    def attach(self, taker: Taker) -> None:
        """Who takes the records; once, before `run`."""
        self._app.taker = taker
        topic = self._app.topic(
            LOG_BATCHES, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
        )

        async def take(stream: Any) -> None:
            async for event in stream.noack().events():
                message = event.message
                # Faust turns milliseconds into seconds as float; exact to the millisecond for the next 200,000 years.
                append_time_ms = round((message.timestamp or 0.0) * 1000)
                value = message.value or b""
                try:
                    await taker.offer(Record(message.partition, message.offset, append_time_ms, value))
                except Exception as error:
                    self._fail(error)
                    raise

        self._app.agent(topic, name="edgewater-take")(take)

        async def assigned(_: Any, assigned: set[TP], **__: Any) -> None:
            if not assigned:
                await taker.assigned([])

        self._app.on_partitions_assigned.connect(assigned, weak=False)

    async def run(self) -> None:
        """Until `close`; StopError when Faust fails."""
        self._app.on_startup_finished = None
        await self._app.start()
        stopped = asyncio.create_task(self._app.wait_until_stopped())
        failed = asyncio.create_task(self._stopped.wait())
        await asyncio.wait({stopped, failed}, return_when=asyncio.FIRST_COMPLETED)
        for task in (stopped, failed):
            task.cancel()
        failure = self._failure or self._app.crash_reason
        if isinstance(failure, StopError):
            raise failure
        if failure is not None:
            raise StopError(
                f"the log's consumer failed ({type(failure).__name__}: {failure}); it must be started again"
            )

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._stopped.set()

    async def close(self, timeout_s: float) -> None:
        """Leave the log. What does not end in time is left to the end of the process."""
        self._stopped.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._app.stop(), timeout_s)

    async def seek(self, positions: Mapping[int, int]) -> None:
        """Go on at these offsets."""
        await self._app.consumer.seek_all(positions)

    def end_offset(self, partition: int) -> int | None:
        """The offset after the partition's last record, as far as known."""
        try:
            found = self._app.consumer.highwater(TP(LOG_BATCHES, partition))
        except (KafkaError, faust.exceptions.FaustError, AssertionError):
            return None  # not assigned now
        return None if found is None else int(found)


def _app(settings: WorkerSettings, job: str) -> Any:
    broker = [URL(f"kafka://{server.strip()}") for server in settings.bootstrap_servers.split(",")]
    app = _App(
        group_of(job),
        broker=broker,
        broker_client_id=f"edgewater-{settings.name}",
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=settings.session_timeout_s / _HEARTBEATS_A_SESSION,
        broker_rebalance_timeout=max(10.0, settings.session_timeout_s),
        broker_request_timeout=max(_REQUEST_TIMEOUT_S, settings.session_timeout_s, settings.lake_timeout_s + 30),
        # How long a lake that cannot may hold consumption up before the worker gives its partitions back.
        broker_max_poll_interval=_POLL_INTERVAL_MAX_S,
        broker_commit_interval=_COMMIT_INTERVAL_S,
        broker_check_crcs=True,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=FETCH_BYTES_MAX,
        stream_buffer_maxsize=QUEUED_MESSAGES_MAX,
        stream_recovery_delay=0.0,
        stream_wait_empty=False,
        store="memory://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        key_serializer="raw",
        value_serializer="raw",
    )
    app.boot_strategy.enable_kafka_producer = False
    return app
