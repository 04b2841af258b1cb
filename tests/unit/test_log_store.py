"""The store: topics and their settings, limits, deletion that survives a crash, one process per directory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edge_agent.contract.errors import StopError
from stream_jobs.log.catalog import Catalog, CommittedOffset, Offsets
from stream_jobs.log.codes import Code, ProtocolError
from stream_jobs.log.durability import Durability
from stream_jobs.log.settings import LogSettings
from stream_jobs.log.store import Store
from stream_jobs.log.topic_config import CONFIG_TYPES, TopicConfig, check_configs, defaults

from .log_records import make_batch, sync


@contextmanager
def store_in(directory: Path, **settings: object) -> Iterator[Store]:
    """A store whose rounds the test runs by hand."""
    loop = asyncio.new_event_loop()
    durability = Durability(loop)
    try:
        with Store(LogSettings(dir=directory, **settings), durability) as store:  # type: ignore[arg-type]
            yield store
    finally:
        durability.stop()
        loop.close()


def code_of(error: pytest.ExceptionInfo[ProtocolError]) -> Code:
    """The protocol's code."""
    return error.value.code


def test_topics_survive_a_restart_with_their_ids(tmp_path: Path) -> None:
    """Name, id, partitions, settings, records and log start are found again."""
    with store_in(tmp_path) as store:
        topic = store.create_topic("t", 2, {"message.timestamp.type": "LogAppendTime", "retention.ms": None})
        identity, cluster = topic.id, store.catalog.cluster_id
        store.append("t", 1, make_batch([b"x"] * 5), 1234)
        sync(topic.partitions[1])
        assert store.delete_records("t", 1, 3) == 3
    with store_in(tmp_path) as store:
        topic = store.topics["t"]
        assert (topic.id, store.catalog.cluster_id) == (identity, cluster)
        assert topic.configs == {"message.timestamp.type": "LogAppendTime"}
        assert [each.next_offset for each in topic.partitions] == [0, 5]
        assert topic.partitions[1].log_start_offset == 3


def test_a_topic_created_again_is_another_one(tmp_path: Path) -> None:
    """Deleting takes records, settings and offsets with it; the new topic has a new id and begins at 0."""
    with store_in(tmp_path) as store:
        first = store.create_topic("t", 1, {}).id
        store.append("t", 0, make_batch([b"x"]), 0)
        sync(store.topics["t"].partitions[0])
        store.offsets.commit("g", [CommittedOffset("t", 0, 1)])
        store.delete_topic("t")
        assert not (tmp_path / "t-0").exists()
        assert store.usage.bytes == 0
        assert store.offsets.committed("g") == {}
        again = store.create_topic("t", 1, {})
        assert again.id != first
        assert again.partitions[0].next_offset == 0


def test_a_crash_between_deleting_and_removing_files(tmp_path: Path) -> None:
    """Directories of a topic whose deletion was durable are removed on the next start."""
    with store_in(tmp_path) as store:
        store.create_topic("t", 2, {})
    catalog = Catalog(tmp_path)
    catalog.delete_topic("t", ["t-0", "t-1"])
    catalog.close()
    with store_in(tmp_path) as store:
        assert store.topics == {}
        assert not list(tmp_path.glob("t-*"))
        assert store.catalog.doomed() == []


def test_foreign_directories_are_left_alone(tmp_path: Path) -> None:
    """A directory that the catalog does not know is neither taken nor removed."""
    (tmp_path / "t-0").mkdir()
    with store_in(tmp_path) as store, pytest.raises(ProtocolError) as caught:
        store.create_topic("t", 1, {})
    assert code_of(caught) is Code.KAFKA_STORAGE_ERROR
    assert (tmp_path / "t-0").exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "ä", "x" * 250])
def test_names_that_are_no_topics(tmp_path: Path, name: str) -> None:
    """Names outside of Kafka's rules never reach the file system."""
    with store_in(tmp_path) as store, pytest.raises(ProtocolError) as caught:
        store.create_topic(name, 1, {})
    assert code_of(caught) is Code.INVALID_TOPIC_EXCEPTION


def test_limits(tmp_path: Path) -> None:
    """Partitions, message size and bytes are bounded, each with its own code."""
    with store_in(tmp_path, partitions_max=3, bytes_max=400, message_bytes_max=1024) as store:
        store.create_topic("t", 2, {})
        for call, code in (
            (lambda: store.create_topic("u", 2, {}), Code.POLICY_VIOLATION),
            (lambda: store.create_partitions("t", 4), Code.POLICY_VIOLATION),
            (lambda: store.create_partitions("t", 2), Code.INVALID_PARTITIONS),
            (lambda: store.create_topic("u", 0, {}), Code.INVALID_PARTITIONS),
            (lambda: store.create_topic("t", 1, {}), Code.TOPIC_ALREADY_EXISTS),
            (lambda: store.append("t", 0, make_batch([b"x" * 1024]), 0), Code.MESSAGE_TOO_LARGE),
            (lambda: store.append("t", 2, make_batch([b"x"]), 0), Code.UNKNOWN_TOPIC_OR_PARTITION),
            (lambda: store.append("u", 0, make_batch([b"x"]), 0), Code.UNKNOWN_TOPIC_OR_PARTITION),
            (lambda: store.delete_records("t", 0, 1), Code.OFFSET_OUT_OF_RANGE),
        ):
            with pytest.raises(ProtocolError) as caught:
                call()
            assert code_of(caught) is code
        store.append("t", 0, make_batch([b"x" * 400]), 0)
        assert store.full
        with pytest.raises(ProtocolError, match="bytes_max of 400") as caught:
            store.append("t", 1, make_batch([b"x"]), 0)
        assert code_of(caught) is Code.KAFKA_STORAGE_ERROR


def test_deleting_records_makes_room(tmp_path: Path) -> None:
    """At bytes_max appends are refused until records are deleted."""
    with store_in(tmp_path, bytes_max=1000, segment_bytes=4096) as store:
        partition = store.create_topic("t", 1, {}).partitions[0]
        store.append("t", 0, make_batch([b"x" * 1000]), 0)
        sync(partition)
        assert store.full
        assert store.delete_records("t", 0, -1) == 1
        sync(partition)
        assert not store.full
        assert store.usage.bytes == 0
        _, appended = store.append("t", 0, make_batch([b"x"]), 0)
        assert appended.base_offset == 1
        sync(partition)


def test_partitions_are_added(tmp_path: Path) -> None:
    """More partitions keep the old ones' records, and are there after a restart."""
    with store_in(tmp_path) as store:
        store.create_topic("t", 1, {})
        store.create_partitions("t", 3)
    with store_in(tmp_path) as store:
        assert len(store.topics["t"].partitions) == 3


def test_settings_of_a_topic_count_at_once(tmp_path: Path) -> None:
    """A changed max.message.bytes and timestamp type are used by the next append."""
    with store_in(tmp_path) as store:
        store.create_topic("t", 1, {})
        store.set_configs("t", {"max.message.bytes": "100", "message.timestamp.type": "LogAppendTime"})
        with pytest.raises(ProtocolError) as caught:
            store.append("t", 0, make_batch([b"x" * 100]), 0)
        assert code_of(caught) is Code.MESSAGE_TOO_LARGE
        _, appended = store.append("t", 0, make_batch([b"x"]), 777)
        assert appended.append_time_ms == 777
        sync(store.topics["t"].partitions[0])


def test_one_process_per_directory(tmp_path: Path) -> None:
    """A second one is told who holds it, and what to do."""
    with store_in(tmp_path), pytest.raises(StopError, match=r"in use by process \d+; end that one"), store_in(tmp_path):
        pass


def test_producer_ids_are_never_given_twice(tmp_path: Path) -> None:
    """Also not after a crash in the middle of a reserved block."""
    given: list[int] = []
    for _ in range(3):
        catalog = Catalog(tmp_path)
        given += [catalog.producer_id() for _ in range(1500)]
        catalog.close()
    assert len(set(given)) == len(given)


def test_a_catalog_that_is_none(tmp_path: Path) -> None:
    """A damaged catalog, or one of a later version, stops the process with a message."""
    (tmp_path / "catalog.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StopError, match="restore it"):
        Catalog(tmp_path)


def test_offsets_of_groups(tmp_path: Path) -> None:
    """A later commit replaces the earlier one of its partition; groups are kept apart and can be deleted."""
    offsets = Offsets(tmp_path)
    offsets.commit("g", [CommittedOffset("t", 0, 5), CommittedOffset("t", 1, 6, 0, "note")])
    offsets.commit("g", [CommittedOffset("t", 0, 7)])
    offsets.commit("h", [CommittedOffset("t", 0, 1)])
    offsets.close()
    offsets = Offsets(tmp_path)
    committed = offsets.committed("g")
    assert committed["t", 0].offset == 7
    assert committed["t", 1] == CommittedOffset("t", 1, 6, 0, "note")
    assert sorted(offsets.groups()) == ["g", "h"]
    offsets.delete_group("g")
    assert offsets.groups() == ["h"]
    offsets.close()


def test_topic_settings_are_checked() -> None:
    """Known names with allowed values pass, everything else is INVALID_CONFIG naming the setting."""
    assert check_configs({"cleanup.policy": "compact,delete", "retention.ms": "-1", "segment.ms": None}) == {
        "cleanup.policy": "compact,delete",
        "retention.ms": "-1",
    }
    for name, value in (
        ("retention.ms", "soon"),
        ("max.message.bytes", "1"),
        ("cleanup.policy", "forget"),
        ("message.timestamp.type", "Now"),
        ("compression.type", "zstd"),
        ("min.cleanable.dirty.ratio", "2"),
        ("no.such.setting", "1"),
    ):
        with pytest.raises(ProtocolError, match=name) as caught:
            check_configs({name: value})
        assert code_of(caught) is Code.INVALID_CONFIG


def test_defaults_are_known_settings() -> None:
    """What DescribeConfigs reports as default could be set as well, and has a type."""
    values = defaults(LogSettings())
    assert check_configs(values) == values
    assert values.keys() <= CONFIG_TYPES.keys()
    assert TopicConfig.of(values, LogSettings()) == TopicConfig.of({}, LogSettings())
