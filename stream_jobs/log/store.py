"""The store: topics with their partitions, on one directory that one process holds at a time.

**Delivery**: a topic exists from the moment the catalog's transaction is synced; its directories follow, and are made
on the next start if a crash came between. Deleting is the same: catalog first, directories after it.
**Bounds**: partitions_max; bytes_max, at which appends are refused with a code that producers retry.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_agent.contract.errors import StopError

from .batches import Buffer, Header, validate
from .catalog import Catalog, Offsets, TopicRow
from .codes import Code, ProtocolError
from .durability import Durability
from .partition import Partition, Usage
from .producers import Appended
from .settings import LogSettings
from .topic_config import TopicConfig, check_configs

__all__ = ["Store", "Topic"]

_LOG = logging.getLogger(__name__)
_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@dataclass
class Topic:
    """One topic as it runs."""

    name: str
    id: uuid.UUID
    configs: dict[str, str]
    config: TopicConfig
    partitions: list[Partition] = field(default_factory=list)


class Store:
    """Everything durable; belongs to the event loop's thread, except for the syncs of `durability`."""

    def __init__(self, settings: LogSettings, durability: Durability) -> None:
        self._settings = settings
        self._durability = durability
        self._directory = settings.dir
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self._directory)
        self.usage = Usage()
        self.topics: dict[str, Topic] = {}
        self.appends = 0
        self.bytes_cut = 0
        self.set_aside = 0
        self.catalog = Catalog(self._directory)
        self.offsets = Offsets(self._directory)
        self._remove_doomed()
        for row in self.catalog.topics():
            self._open_topic(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def partitions(self) -> int:
        """Number of partitions of all topics."""
        return sum(len(topic.partitions) for topic in self.topics.values())

    @property
    def failures(self) -> list[str]:
        """Why partitions refuse appends, for those that do."""
        return [each.failure for topic in self.topics.values() for each in topic.partitions if each.failure]

    @property
    def full(self) -> bool:
        """Whether `bytes_max` is reached."""
        return 0 < self._settings.bytes_max <= self.usage.bytes

    def _remove_doomed(self) -> None:
        doomed = self.catalog.doomed()
        for name in doomed:
            shutil.rmtree(self._directory / name, ignore_errors=True)
        self.catalog.removed(name for name in doomed if not (self._directory / name).exists())

    def _open_topic(self, row: TopicRow) -> Topic:
        config = TopicConfig.of(row.configs, self._settings)
        topic = self.topics[row.name] = Topic(row.name, row.id, row.configs, config)
        for number in range(row.partitions):
            self._open_partition(topic, number, row.log_starts.get(number, 0))
        return topic

    def _open_partition(self, topic: Topic, number: int, log_start_offset: int) -> None:
        partition = Partition(
            self._directory / f"{topic.name}-{number}",
            topic.name,
            number,
            log_start_offset=log_start_offset,
            segment_bytes=topic.config.segment_bytes,
            usage=self.usage,
        )
        partition.mark = self._durability.mark
        topic.partitions.append(partition)
        partition.delete_before(partition.log_start_offset)
        self.bytes_cut += partition.bytes_cut
        self.set_aside += partition.set_aside
        if partition.bytes_cut:
            where = f"{topic.name}-{number}"
            _LOG.warning("%s: cut %d bytes that were not whole batches off its end", where, partition.bytes_cut)
        if partition.set_aside:
            _LOG.error(
                "%s-%d: set %d files aside as .cut; they follow a damaged one", topic.name, number, partition.set_aside
            )

    def topic(self, name: str) -> Topic:
        """The topic, or ProtocolError UNKNOWN_TOPIC_OR_PARTITION."""
        topic = self.topics.get(name)
        if topic is None:
            raise ProtocolError(Code.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {name[:100]!r}")
        return topic

    def partition(self, name: str, number: int) -> Partition:
        """The partition, or ProtocolError UNKNOWN_TOPIC_OR_PARTITION."""
        topic = self.topic(name)
        if not 0 <= number < len(topic.partitions):
            raise ProtocolError(Code.UNKNOWN_TOPIC_OR_PARTITION, f"topic {name} has no partition {number}")
        return topic.partitions[number]

    def append(self, name: str, number: int, batch: Buffer, now_ms: int) -> tuple[Partition, Appended]:
        """Check and append one batch from a producer; ProtocolError with the code for it."""
        partition = self.partition(name, number)
        config = self.topics[name].config
        if len(batch) > config.message_bytes_max:
            message = f"batch of {len(batch)} bytes exceeds max.message.bytes of {config.message_bytes_max}; send less"
            raise ProtocolError(Code.MESSAGE_TOO_LARGE, message)
        header: Header = validate(batch)
        if self.full:
            message = (
                f"{self.usage.bytes} bytes reach bytes_max of {self._settings.bytes_max}; delete records or raise it"
            )
            raise ProtocolError(Code.KAFKA_STORAGE_ERROR, message)
        appended = partition.append(header, batch, now_ms if config.log_append_time else None)
        self.appends += 1
        return partition, appended

    def check_topic(self, name: str, partitions: int, configs: Mapping[str, str | None]) -> dict[str, str]:
        """The settings for a new topic; ProtocolError with the code if it cannot be made."""
        if not _TOPIC_NAME.fullmatch(name) or name in {".", ".."}:
            message = f"topic {name[:100]!r}: use 1 to 249 of the characters a-z A-Z 0-9 . _ -"
            raise ProtocolError(Code.INVALID_TOPIC_EXCEPTION, message)
        if name in self.topics:
            raise ProtocolError(Code.TOPIC_ALREADY_EXISTS, f"topic {name} exists already")
        self._check_partitions(partitions)
        checked = check_configs(configs)
        for number in range(partitions):
            if (self._directory / f"{name}-{number}").exists():
                message = f"directory {name}-{number} is left of something else; move it out of the log's directory"
                raise ProtocolError(Code.KAFKA_STORAGE_ERROR, message)
        return checked

    def _check_partitions(self, more: int) -> None:
        if more < 1:
            raise ProtocolError(Code.INVALID_PARTITIONS, f"{more} partitions asked for; ask for 1 or more")
        if self.partitions + more > self._settings.partitions_max:
            message = (
                f"{self.partitions} partitions and {more} more exceed partitions_max of {self._settings.partitions_max}"
            )
            raise ProtocolError(Code.POLICY_VIOLATION, message)

    def create_topic(self, name: str, partitions: int, configs: Mapping[str, str | None]) -> Topic:
        """A new topic, durable when this returns."""
        checked = self.check_topic(name, partitions, configs)
        return self._open_topic(self.catalog.create_topic(name, partitions, checked))

    def check_more_partitions(self, name: str, count: int) -> None:
        """ProtocolError with the code unless the topic can have `count` partitions."""
        have = len(self.topic(name).partitions)
        if count <= have:
            raise ProtocolError(Code.INVALID_PARTITIONS, f"topic {name} has {have} partitions; {count} is not more")
        self._check_partitions(count - have)

    def create_partitions(self, name: str, count: int) -> None:
        """Raise the topic's number of partitions to `count`."""
        self.check_more_partitions(name, count)
        self.catalog.set_partitions(name, count)
        topic = self.topics[name]
        for number in range(len(topic.partitions), count):
            self._open_partition(topic, number, 0)

    def set_configs(self, name: str, configs: Mapping[str, str]) -> None:
        """Replace the topic's own settings; they count from the next append on."""
        topic = self.topic(name)
        checked = check_configs(configs)
        self.catalog.set_configs(name, checked)
        topic.configs, topic.config = checked, TopicConfig.of(checked, self._settings)
        for partition in topic.partitions:
            partition.segment_bytes = topic.config.segment_bytes

    def delete_topic(self, name: str) -> None:
        """Forget the topic, its groups' offsets and its records."""
        topic = self.topic(name)
        self.catalog.delete_topic(name, [each.directory.name for each in topic.partitions])
        self.offsets.delete_topic(name)
        del self.topics[name]
        for partition in topic.partitions:
            partition.close()
        self._remove_doomed()

    def delete_records(self, name: str, number: int, offset: int) -> int:
        """Records below `offset` (-1: all that are synced) are gone, durably, when this returns; the new log start."""
        partition = self.partition(name, number)
        wanted = partition.synced_offset if offset == -1 else offset
        if not 0 <= wanted <= partition.synced_offset:
            message = f"offset {wanted} is beyond the synced end {partition.synced_offset} of {name}-{number}"
            raise ProtocolError(Code.OFFSET_OUT_OF_RANGE, message)
        if wanted > partition.log_start_offset:
            self.catalog.set_log_start(name, number, wanted)
            partition.delete_before(wanted)
        return partition.log_start_offset

    def close(self) -> None:
        """Seal and close all files; call it after `durability.drain()`."""
        for topic in self.topics.values():
            for partition in topic.partitions:
                partition.checkpoint()
                partition.close()
        self.catalog.close()
        self.offsets.close()
        os.close(self._lock)


def _lock(directory: Path) -> int:
    """Hold the directory for this process; the lock goes with the process, however it ends."""
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        message = f"log directory {directory} is in use by process {holder}; end that one, or give another --dir"
        raise StopError(message) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor
