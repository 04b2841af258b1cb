"""The mapping's side towards the log: appends in order, answered in order, everything again after a failure.

**Delivery**: an entry is done when the log has it (acks=all) and, for a batch, everything before it of its device: so
that the fold has accepted it. After a failed append the producer is replaced and everything not done is appended
again in the same order under the same (device, epoch, seq); what got there twice the fold passes over. Where the log
was made anew or ends before what it had, devices get new epochs. **Bounds**: the caller bounds `bytes`; every call to
the log has its timeout; a log that does not answer is asked again after 0.1 to 5 s.
"""

from __future__ import annotations

import contextlib
import logging
import os
import zlib
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from edge_agent.contract.clock import Clock
from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import RetryError, StopError
from edge_agent.contract.ring import shard_of
from edge_agent.contract.tables import Table
from edge_agent.contract.topics import LOG_BATCHES
from stream_jobs.kafka_client import LogClient, LogProducer, Producer

from .acknowledgements import Taken
from .collector import Batch, Numbers
from .settings import MappingSettings

__all__ = ["Client", "Entry", "Letter", "LogSide"]

_log = logging.getLogger(__name__)

_RETRY_S = (0.1, 5.0)
APPENDS_AT_ONCE_MAX = 500


class Client(Protocol):
    """What is needed of `kafka_client.LogClient`."""

    def ensure_topics(self, partitions: int) -> None: ...

    def ensure_tables(self, partitions: int, producer: Producer) -> tuple[Table, Table]: ...

    def topic_id(self, topic: str) -> str: ...

    def offsets(self, topic: str, partition: int) -> tuple[int, int]: ...

    def close(self) -> None: ...


class Letter(NamedTuple):
    """A dead letter (`device` is "") or a close record, ready for the log."""

    device: str
    topic: str
    value: bytes
    taken: Taken | None

    @property
    def bytes(self) -> int:
        """Its size."""
        return len(self.value)


Entry = Batch | Letter


def _client(settings: MappingSettings) -> Client:
    return LogClient(
        settings.bootstrap_servers, client_id=f"edgewater-{settings.name}", timeout_s=settings.log_timeout_s
    )


def _producer(settings: MappingSettings) -> Producer:
    return LogProducer(
        settings.bootstrap_servers,
        client_id=f"edgewater-{settings.name}",
        linger_s=settings.linger_s,
        delivery_timeout_s=settings.delivery_timeout_s,
    )


class _Answer(NamedTuple):
    generation: int
    number: int
    partition: int
    offset: int
    error: Exception | None


class LogSide:
    """For the mapping's one thread; `fileno` is readable when answers wait."""

    def __init__(
        self,
        settings: MappingSettings,
        numbers: Numbers,
        clock: Clock,
        on_done: Callable[[Entry], None],
        alarm: Callable[[str], None],
        *,
        connect: Callable[[MappingSettings], Client] = _client,
        connect_producer: Callable[[MappingSettings], Producer] = _producer,
    ) -> None:
        self._settings = settings
        self._numbers = numbers
        self._clock = clock
        self._on_done = on_done
        self._alarm = alarm
        self._connect_client = connect
        self._connect_producer = connect_producer
        self._producer: Producer | None = None
        self._table: Table | None = None
        self._topic_id = ""
        self._ends: dict[int, int] = {}
        self._entries: dict[int, Entry] = {}
        self._unsent: deque[int] = deque()
        self._last_number = 0
        self._generation = 0
        self._answers: deque[_Answer] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._woken = False
        self._retry_at_s = 0.0
        self._retry_s = _RETRY_S[0]
        self.bytes = 0
        self.failed_appends = 0
        self.state = "connecting"

    @property
    def entries(self) -> int:
        """How many are not done."""
        return len(self._entries)

    @property
    def ready(self) -> bool:
        """Whether the log is connected."""
        return self.state == "connected"

    def fileno(self) -> int:
        """Readable when answers wait, or `wake` was called."""
        return self._reader

    def wake(self) -> None:
        """Make `fileno` readable; any thread or signal handler may call it."""
        if not self._woken:
            self._woken = True
            with contextlib.suppress(OSError):
                os.write(self._writer, b"\0")

    def put(self, entry: Entry) -> None:
        """Append it as soon as that is possible, after all that were put before."""
        if isinstance(entry, Batch):
            self._numbers.number(entry, self._clock.time_us())
        self._last_number += 1
        self._entries[self._last_number] = entry
        self._unsent.append(self._last_number)
        self.bytes += entry.bytes

    # Connecting

    def tick(self, now_s: float) -> None:
        """Connect where that is due. StopError where a person has to act."""
        if self.ready or now_s < self._retry_at_s:
            return
        try:
            self._connect()
        except RetryError as error:
            self._failed(error)

    def _connect(self) -> None:
        client = self._connect_client(self._settings)
        try:
            client.ensure_topics(self._settings.partitions)
            self._producer = self._connect_producer(self._settings)
            self._table = client.ensure_tables(self._settings.partitions, self._producer)[1]
            self._check_log(client)
        finally:
            client.close()
        self.state, self._retry_s = "connected", _RETRY_S[0]
        _log.info("connected to the log at %s", self._settings.bootstrap_servers)

    def _check_log(self, client: Client) -> None:
        """Records that the log acknowledged must still be there, or the fold knows nothing of our epochs."""
        topic_id = client.topic_id(LOG_BATCHES)
        lost = [p for p, end in self._ends.items() if client.offsets(LOG_BATCHES, p)[1] < end]
        if self._topic_id and (topic_id != self._topic_id or lost):
            self._alarm("the log was made anew or has lost records: devices go on in new epochs")
            self._ends.clear()
            batches = [entry for entry in self._entries.values() if isinstance(entry, Batch)]
            self._numbers.renew(batches, self._clock.time_us())
        self._topic_id = topic_id

    def _failed(self, error: Exception) -> None:
        """Nothing of this producer is trusted any more; everything not done is appended again."""
        if self.state != "disconnected":
            _log.warning("%s", error)
        self.disconnect()
        self._retry_at_s = self._clock.monotonic_s() + self._retry_s
        self._retry_s = min(self._retry_s * 2, _RETRY_S[1])

    def disconnect(self) -> None:
        """Close the producer; what is under way counts as not appended."""
        self.state = "disconnected"
        self._generation += 1
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()
        self._unsent = deque(self._entries)

    # Appending

    def send(self) -> None:
        """Append what was put, as far as so many may be under way."""
        while self.ready and self._unsent and len(self._entries) - len(self._unsent) < APPENDS_AT_ONCE_MAX:
            self._append(self._unsent[0])
            if self.ready:
                self._unsent.popleft()

    def _append(self, number: int) -> None:
        entry = self._entries[number]
        partition = self._partition(entry)
        generation = self._generation
        value = entry.message() if isinstance(entry, Batch) else entry.value

        def done(offset: int, _append_time_ms: int, error: Exception | None) -> None:
            self._answers.append(_Answer(generation, number, partition, offset, error))
            self.wake()

        crash_point("mapping.append.before")
        assert self._producer is not None
        try:
            self._producer.append(LOG_BATCHES, partition, entry.device.encode() or None, value, done)
        except RetryError as error:
            self._failed(error)

    def _partition(self, entry: Entry) -> int:
        assert self._table is not None
        if isinstance(entry, Letter) and not entry.device:
            return zlib.crc32(entry.topic.encode("utf-8", "backslashreplace")) % self._settings.partitions
        return self._table.partitions[shard_of(entry.device)]

    def settle(self) -> None:
        """Take the log's answers: what is done, and what has to be appended again."""
        self._woken = False
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)
        while self._answers:
            answer = self._answers.popleft()
            if answer.generation != self._generation:
                continue
            if answer.error is not None:
                self.failed_appends += 1
                if isinstance(answer.error, StopError):
                    raise answer.error
                self._failed(answer.error)
                continue
            self._done(answer)

    def _done(self, answer: _Answer) -> None:
        entry = self._entries[answer.number]
        if isinstance(entry, Batch) and not self._numbers.durable(entry):
            self._failed(RetryError(f"{LOG_BATCHES}/{answer.partition}: answers out of order; appending again"))
            return
        crash_point("mapping.append.after")
        del self._entries[answer.number]
        self.bytes -= entry.bytes
        if answer.offset >= 0:
            self._ends[answer.partition] = max(self._ends.get(answer.partition, 0), answer.offset + 1)
        self._on_done(entry)

    def close(self) -> None:
        """Close the connections; what is under way is not done."""
        self.disconnect()
        self.state = "closed"
        os.close(self._reader)
        os.close(self._writer)
