"""The log's client against the embedded log and Apache Kafka."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from edge_agent.contract.errors import RetryError, StopError
from edge_agent.contract.tables import first_table
from edge_agent.contract.topics import LOG_BATCHES, LOG_TABLES
from stream_jobs.kafka_client import LogChangedError, LogClient, LogProducer, ensure_topics
from tests.kit.mosquitto import free_port
from tests.kit.services import EmbeddedLog, Kafka

PARTITIONS = 2


@pytest.fixture(scope="module", params=["embedded", "real"])
def bootstrap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """bootstrap_servers of a log with our topics, shared by this module: each test uses records of its own."""
    if request.param == "real":
        kafka: Kafka = request.getfixturevalue("kafka_session")
        ensure_topics(kafka.bootstrap_servers, PARTITIONS)
        yield kafka.bootstrap_servers
        return
    directory = tmp_path_factory.mktemp("log")
    with EmbeddedLog(directory / "log", directory / "run") as log:
        ensure_topics(log.bootstrap_servers, PARTITIONS)
        yield log.bootstrap_servers


@pytest.fixture
def client(bootstrap: str) -> Iterator[LogClient]:
    """A client."""
    with closing(LogClient(bootstrap)) as found:
        yield found


@pytest.fixture
def producer(bootstrap: str) -> Iterator[LogProducer]:
    """A producer."""
    with closing(LogProducer(bootstrap)) as found:
        yield found


def test_topics_are_made_once_and_checked(bootstrap: str, client: LogClient) -> None:
    """Again: nothing changes. Another number of partitions: a StopError that says what to write."""
    before = client.topic_id(LOG_BATCHES)
    client.ensure_topics(PARTITIONS)
    assert client.topic_id(LOG_BATCHES) == before
    assert len(before) == 32
    assert client.partition_count(LOG_BATCHES) == PARTITIONS
    with pytest.raises(StopError, match="--partitions 2"):
        ensure_topics(bootstrap, 3)


def test_table_one_is_agreed_on(client: LogClient, producer: LogProducer) -> None:
    """Whoever comes second reads what the first wrote."""
    first = client.ensure_tables(PARTITIONS, producer)
    assert client.ensure_tables(PARTITIONS, producer) == first
    assert first[0] == first_table(PARTITIONS)
    assert client.offsets(LOG_TABLES, 0) == (0, 1)


def test_appends_are_answered_in_order_and_can_be_read(client: LogClient, producer: LogProducer) -> None:
    """Offsets are contiguous, times are the log's, values and keys are the same bytes."""
    _, start = client.offsets(LOG_BATCHES, 0)
    answers: list[tuple[int, int, Exception | None]] = []
    all_there = threading.Event()

    def done(offset: int, append_time_ms: int, error: Exception | None) -> None:
        answers.append((offset, append_time_ms, error))
        if len(answers) == 300:
            all_there.set()

    values = [bytes([n % 256]) * (n * 60 + 1) for n in range(300)]
    for value in values:
        producer.append(LOG_BATCHES, 0, b"key", value, done)
    assert all_there.wait(20)
    assert [offset for offset, _, _ in answers] == list(range(start, start + 300))
    records = list(client.read(LOG_BATCHES, 0, start, start + 300))
    assert [record.value for record in records] == values
    assert {record.key for record in records} == {b"key"}
    assert [record.append_time_ms for record in records] == [time_ms for _, time_ms, _ in answers]
    assert answers[0][1] > 1_600_000_000_000
    assert [record.offset for record in client.read(LOG_BATCHES, 0, start + 7, start + 9)] == [start + 7, start + 8]


def test_what_is_deleted_or_not_there_is_said(client: LogClient, producer: LogProducer) -> None:
    """Reading deleted records, or beyond the end, is a LogChangedError."""
    offset, *_ = [producer.append_now(LOG_BATCHES, 1, None, b"x" * 100) for _ in range(10)]
    client.delete_records(LOG_BATCHES, 1, offset + 5)
    assert client.offsets(LOG_BATCHES, 1) == (offset + 5, offset + 10)
    with pytest.raises(LogChangedError, match="deleted already"):
        list(client.read(LOG_BATCHES, 1, offset, offset + 10))
    assert len(list(client.read(LOG_BATCHES, 1, offset + 5, offset + 10))) == 5
    with closing(LogClient(client._bootstrap_servers, timeout_s=1)) as hasty, pytest.raises(LogChangedError):
        list(hasty.read(LOG_BATCHES, 1, offset + 5, offset + 12))


@pytest.mark.timeout(60)
def test_a_log_that_is_not_there_is_a_retry() -> None:
    """Nobody listens: RetryError within seconds, from both."""
    nowhere = f"127.0.0.1:{free_port()}"
    with pytest.raises(RetryError):
        LogClient(nowhere)
    with pytest.raises(RetryError):
        LogProducer(nowhere)
