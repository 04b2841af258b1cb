"""The log as Edgewater uses it: topics with their settings, shard tables, appends, ranges of records.

The only module that imports kafka-python's clients. It speaks to `bootstrap_servers` and works the same on the
embedded log and on Apache Kafka. Errors are named after what the caller must do: RetryError (the log cannot be
reached now), StopError (a person has to act), LogChangedError (what is held in memory does not fit the log any more).

**Delivery**: appends are idempotent and acknowledged by all in-sync replicas (acks=all); an append that fails may
still be in the log, or appear there later: the fold makes it harmless. Offsets asked for here are synced ones.
**Bounds**: every call ends within its timeout; a record has at most LOG_RECORD_BYTES_MAX bytes, a checkpoint
CHECKPOINT_BYTES_MAX; the caller bounds what is in flight, since kafka-python does not.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from edge_agent.contract import limits
from edge_agent.contract.errors import FencedError, RetryError, SettingsError, StopError, quoted
from edge_agent.contract.tables import Table, encode_table, first_table, fold_tables
from edge_agent.contract.topics import LOG_BATCHES, LOG_CHECKPOINTS, LOG_TABLES

with warnings.catch_warnings():
    # kafka-python 3.0 reads its schemas through a function that Python 3.11 and 3.12 call deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka import errors as kafka_errors
    from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
    from kafka.net.compat import KafkaNetClient
    from kafka.protocol.consumer import OffsetSpec

__all__ = ["Done", "LogChangedError", "LogClient", "LogProducer", "LogRecord", "Producer", "ensure_topics"]

_DATA_MESSAGE_BYTES_MAX = 1_048_588
"""Of a record batch, frame included: Apache Kafka's default."""
_PRODUCER_BATCH_BYTES = 512 * limits.KIB
_FRAME_BYTES = 64 * limits.KIB
_BOOTSTRAP_TIMEOUT_MS = 5_000
_POLL_MS = 500
_TABLES_MAX = 10_000

Done = Callable[[int, int, Exception | None], None]
"""What happened to an append: (offset or -1, append time in ms or -1, None), or (-1, -1, error). Called in the
producer's own thread; must return at once and raise nothing."""

# kafka-python logs each failed connection attempt; the rooms say once what it means for them.
logging.getLogger("kafka").setLevel(logging.CRITICAL)


class LogChangedError(FencedError):
    """Records that the caller counts on are deleted, or the log ends before them: discard the state, load it again."""


class LogRecord(NamedTuple):
    """One record as it is in the log. `crc32` is zlib's, over the value."""

    offset: int
    append_time_ms: int
    key: bytes | None
    value: bytes

    @property
    def crc32(self) -> int:
        """What a lake offset keeps of the last record consumed."""
        return zlib.crc32(self.value)


_STOP = (
    kafka_errors.AuthorizationError,
    kafka_errors.InvalidConfigurationError,
    kafka_errors.InvalidPartitionsError,
    kafka_errors.InvalidReplicationFactorError,
    kafka_errors.KafkaConfigurationError,
    kafka_errors.MessageSizeTooLargeError,
    kafka_errors.PolicyViolationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedVersionError,
)


def _named(error: Exception, what: str) -> RetryError | StopError:
    text = f"{what}: {type(error).__name__} {error}".rstrip()
    if isinstance(error, _STOP):
        return StopError(f"{text}; check the log's permissions and settings")
    return RetryError(f"{text}; the log at bootstrap_servers does not answer as it should, trying again")


@contextlib.contextmanager
def _mapped(what: str) -> Iterator[None]:
    try:
        yield
    except (kafka_errors.KafkaError, OSError) as error:
        raise _named(error, what) from error


def _connected(make: Callable[..., Any], **configs: Any) -> Any:
    """A client of kafka-python. One that cannot reach the log leaves its thread and sockets open; this closes them."""
    made: list[Any] = []

    def connection(**kwargs: Any) -> Any:
        made.append(KafkaNetClient(**kwargs))
        return made[-1]

    with _mapped(f"connecting to the log at {configs['bootstrap_servers']}"):
        _somebody_listens(configs["bootstrap_servers"])
        try:
            return make(kafka_client=connection, bootstrap_timeout_ms=_BOOTSTRAP_TIMEOUT_MS, **configs)
        except kafka_errors.KafkaError:
            for client in made:
                client.close()
            raise


def _somebody_listens(bootstrap_servers: str) -> None:
    """OSError at once when nobody does; kafka-python would try for its whole timeout."""
    failure: OSError | None = None
    for server in bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
        except ValueError:
            raise SettingsError(f"bootstrap_servers is {quoted(bootstrap_servers)}; write host:port,...") from None
        except OSError as error:
            failure = error
        else:
            return
    if failure is not None:
        raise failure


def _topics(partitions: int) -> dict[str, tuple[int, dict[str, str]]]:
    """Topic -> (partitions, settings)."""
    forever = {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(_DATA_MESSAGE_BYTES_MAX),
    }
    checkpoints = {**forever, "max.message.bytes": str(limits.CHECKPOINT_BYTES_MAX + _FRAME_BYTES)}
    return {
        LOG_BATCHES: (partitions, forever),
        LOG_TABLES: (1, forever),
        LOG_CHECKPOINTS: (partitions, checkpoints),
    }


def ensure_topics(bootstrap_servers: str, partitions: int) -> None:
    """Create the topics that do not exist and check those that do; see `LogClient.ensure_topics`."""
    with contextlib.closing(LogClient(bootstrap_servers, client_id="edgewater-topics")) as client:
        client.ensure_topics(partitions)


class Producer(Protocol):
    """What rooms need of `LogProducer`, and what their tests put in its place."""

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes, done: Done) -> None: ...

    def append_now(self, topic: str, partition: int, key: bytes | None, value: bytes) -> int: ...

    def close(self, timeout_s: float = 0.0) -> None: ...


class LogClient:
    """Topics, tables, offsets and reading. For one thread."""

    def __init__(self, bootstrap_servers: str, *, client_id: str = "edgewater", timeout_s: float = 10.0) -> None:
        """Connects; RetryError when no server answers within 5 s."""
        self._bootstrap_servers = bootstrap_servers
        self._client_id = client_id
        self._timeout_s = timeout_s
        self._consumer: Any = None
        self._read_at: tuple[TopicPartition, int] | None = None
        self._admin = _connected(
            KafkaAdminClient,
            bootstrap_servers=bootstrap_servers,
            client_id=client_id,
            request_timeout_ms=round(timeout_s * 1000),
        )

    def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(kafka_errors.KafkaError, OSError):
            self._admin.close()
        if self._consumer is not None:
            with contextlib.suppress(kafka_errors.KafkaError, OSError):
                self._consumer.close(autocommit=False, timeout_ms=1000)

    # Topics and tables

    def ensure_topics(self, partitions: int) -> None:
        """Create what is missing. StopError where an existing topic has other partitions or unsafe settings."""
        wanted = _topics(partitions)
        with _mapped("creating the log's topics"):
            known = {topic["name"] for topic in self._admin.describe_topics() if topic["error_code"] == 0}
            for name, (count, configs) in wanted.items():
                if name not in known:
                    with contextlib.suppress(kafka_errors.TopicAlreadyExistsError):
                        self._admin.create_topics(
                            {name: {"num_partitions": count, "replication_factor": -1, "configs": configs}}
                        )
            self._admin.wait_for_topics(list(wanted), timeout_ms=round(self._timeout_s * 1000))
        self._check_topics(wanted)

    def _check_topics(self, wanted: dict[str, tuple[int, dict[str, str]]]) -> None:
        for name, (count, _) in wanted.items():
            found = self.partition_count(name)
            if found != count:
                raise StopError(
                    f"log topic {name} has {found} partitions, the settings say {count}; start with "
                    f"--partitions {found} (the number of partitions is fixed when the topics are made)"
                )
        with _mapped("reading the settings of the log's topics"):
            found_configs = self._admin.describe_configs(
                [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted], config_filter="all"
            )["topic"]
        for name, (_, configs) in wanted.items():
            for key, value in configs.items():
                is_value = str(found_configs.get(name, {}).get(key, {}).get("value", value))
                too_small = key == "max.message.bytes" and int(is_value) < int(value)
                if too_small or (key != "max.message.bytes" and is_value != value):
                    raise StopError(
                        f"log topic {name} has {key}={is_value}, Edgewater needs {value}; use kafka-configs --alter"
                    )

    def _described(self, topic: str) -> dict[str, Any]:
        with _mapped(f"asking about log topic {topic}"):
            described: dict[str, Any] = self._admin.describe_topics([topic])[0]
            if described["error_code"]:
                raise kafka_errors.for_code(described["error_code"])(topic)
        return described

    def partition_count(self, topic: str) -> int:
        """How many partitions the topic has."""
        return len(self._described(topic)["partitions"])

    def topic_id(self, topic: str) -> str:
        """The id the log gave the topic when it was created, as hexadecimal digits: a recreated topic has another."""
        return str(self._described(topic)["topic_id"]).replace("-", "")

    def tables(self) -> tuple[Table, Table] | None:
        """(table 1, the current table), or None before the first."""
        _, end = self.offsets(LOG_TABLES, 0)
        values = [record.value for record in self.read(LOG_TABLES, 0, self.offsets(LOG_TABLES, 0)[0], end)]
        if len(values) > _TABLES_MAX:
            raise StopError(f"log topic {LOG_TABLES} has {len(values)} records, more than {_TABLES_MAX}; is it ours?")
        current = fold_tables(values)
        if current is None:
            return None
        first = next(found for count in range(1, len(values) + 1) if (found := fold_tables(values[:count])))
        return first, current

    def ensure_tables(self, partitions: int, producer: Producer) -> tuple[Table, Table]:
        """The tables; whoever comes first writes table 1, and everybody reads back which one counts."""
        found = self.tables()
        if found is None:
            producer.append_now(LOG_TABLES, 0, None, encode_table(first_table(partitions)))
            found = self.tables()
            if found is None:
                raise RetryError("the shard table just written is not in the log yet; reading it again")
        return found

    # Groups

    def unowned_partitions(self, group: str, topic: str) -> set[int]:
        """Partitions of `topic` that no member of `group` has; empty while the group is not settled."""
        with _mapped(f"asking about group {group}"):
            described: dict[str, Any] = self._admin.describe_groups([group])[group]
        if described.get("group_state") != "Stable":
            return set()
        owned: set[int] = set()
        for member in described["members"]:
            assignment = member["member_assignment"]
            if not assignment:
                continue
            for assigned in assignment["assigned_partitions"]:
                if assigned["topic"] == topic:
                    owned.update(assigned["partitions"])
        return set(range(self.partition_count(topic))) - owned

    # Records

    def offsets(self, topic: str, partition: int) -> tuple[int, int]:
        """(offset of the first record kept, offset after the last durable one)."""
        key = TopicPartition(topic, partition)
        timeout_ms = round(self._timeout_s * 1000)
        with _mapped(f"asking for the offsets of {topic}/{partition}"):
            start = self._admin.list_partition_offsets({key: OffsetSpec.EARLIEST}, timeout_ms=timeout_ms)[key].offset
            end = self._admin.list_partition_offsets({key: OffsetSpec.LATEST}, timeout_ms=timeout_ms)[key].offset
        return start, end

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        """The records from `start` up to, not including, `end`, in order; all of them must be durable.

        LogChangedError when some are deleted already or the log ends before `end`; RetryError when none comes in time.
        Exhaust or close the iterator before reading anything else.
        """
        key = TopicPartition(topic, partition)
        position = start
        deadline = time.monotonic() + self._timeout_s
        while position < end:
            try:
                with _mapped(f"reading {topic}/{partition} from {position}"):
                    consumer = self._positioned(key, position)
                    found = consumer.poll(timeout_ms=_POLL_MS, max_records=1000).get(key, [])
                    after = consumer.position(key, timeout_ms=1000)
            except RetryError as error:
                self._read_at = None
                if isinstance(error.__cause__, kafka_errors.OffsetOutOfRangeError):
                    self._raise_changed(key, position, end)
                raise
            if found and found[0].offset > position:
                self._raise_changed(key, position, end, only_deleted=True)
            for record in found:
                if record.offset >= end:
                    break
                yield LogRecord(record.offset, record.timestamp, record.key, record.value or b"")
            if after is not None and after > position:
                position, deadline = after, time.monotonic() + self._timeout_s
                self._read_at = (key, position)
            elif time.monotonic() > deadline:
                self._raise_changed(key, position, end)
                raise RetryError(f"no record of {topic}/{partition} from {position} within {self._timeout_s:g} s")

    def _raise_changed(self, key: TopicPartition, position: int, end: int, only_deleted: bool = False) -> None:
        start, log_end = self.offsets(key.topic, key.partition)
        if start > position:
            raise LogChangedError(f"{key.topic}/{key.partition}: records {position} to {start - 1} are deleted already")
        if log_end < end and not only_deleted:
            raise LogChangedError(
                f"{key.topic}/{key.partition} ends at {log_end}, before the {end} it had: it was rewound"
            )

    def _positioned(self, key: TopicPartition, position: int) -> Any:
        if self._consumer is None:
            self._consumer = _connected(
                KafkaConsumer,
                bootstrap_servers=self._bootstrap_servers,
                client_id=self._client_id,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                fetch_max_wait_ms=100,
                max_partition_fetch_bytes=4 * limits.MIB,
                metrics_enabled=False,
            )
        if self._read_at != (key, position):
            if self._consumer.assignment() != {key}:
                self._consumer.assign([key])
            self._consumer.seek(key, position)
            self._read_at = (key, position)
        return self._consumer

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Delete the records below offset `before`."""
        with _mapped(f"deleting records of {topic}/{partition} below {before}"):
            self._admin.delete_records(
                {TopicPartition(topic, partition): before}, timeout_ms=round(self._timeout_s * 1000)
            )


class LogProducer:
    """Appends, each answered through its `Done`. Records of one partition are appended in the order of the calls."""

    def __init__(
        self,
        bootstrap_servers: str,
        *,
        client_id: str = "edgewater",
        linger_s: float = 0.002,
        delivery_timeout_s: float = 30.0,
    ) -> None:
        """Connects; RetryError when no server answers within 5 s. An append fails after `delivery_timeout_s`."""
        self._producer = _connected(
            KafkaProducer,
            bootstrap_servers=bootstrap_servers,
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            batch_size=_PRODUCER_BATCH_BYTES,
            linger_ms=linger_s * 1000,
            max_request_size=limits.CHECKPOINT_BYTES_MAX + _FRAME_BYTES,
            max_block_ms=_BOOTSTRAP_TIMEOUT_MS,
            delivery_timeout_ms=round(delivery_timeout_s * 1000),
            request_timeout_ms=round(min(10.0, delivery_timeout_s / 2) * 1000),
            reconnect_backoff_max_ms=1000,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        self._delivery_timeout_s = delivery_timeout_s

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes | bytearray, done: Done) -> None:
        """Append one record. Raises RetryError or StopError when it was not even queued; `done` is then not called."""
        with _mapped(f"appending to {topic}/{partition}"):
            # The log stamps records itself (LogAppendTime); 0 shows where an answer came without that stamp.
            future = self._producer.send(topic, value=value, key=key, partition=partition, timestamp_ms=0)

        def succeeded(metadata: Any) -> None:
            done(metadata.offset, metadata.timestamp or -1, None)

        def failed(error: Exception) -> None:
            done(-1, -1, _named(error, f"appending to {topic}/{partition}"))

        future.add_callback(succeeded)
        future.add_errback(failed)

    def append_now(self, topic: str, partition: int, key: bytes | None, value: bytes) -> int:
        """Append one record, wait until it is durable, and return its offset."""
        with _mapped(f"appending to {topic}/{partition}"):
            future = self._producer.send(topic, value=value, key=key, partition=partition, timestamp_ms=0)
            return int(future.get(self._delivery_timeout_s).offset)

    def close(self, timeout_s: float = 0.0) -> None:
        """Send what is queued for at most `timeout_s`, then fail the rest (each `done` is called) and close."""
        try:
            self._producer.close(timeout=timeout_s)
        except (kafka_errors.KafkaError, OSError):
            # KafkaProducer.close() raises before it ends its thread when something is still queued at the timeout.
            self._producer._sender.force_close()  # noqa: SLF001 - there is no public way
            self._producer._sender.join(1.0)  # noqa: SLF001 - as above
