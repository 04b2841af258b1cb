"""What the log knows beside its records, in SQLite: topics, their settings, where each partition starts, producer ids.

Two files. `catalog.sqlite` is written seldom and synced with each change (synchronous=FULL). `offsets.sqlite` holds the
committed offsets of consumer groups, in a write-ahead log that is not synced with each commit: at a power loss the last
commits may be missing, and their records are read again.

**Delivery**: a topic, a setting, a log start or a block of producer ids that was answered survives any crash. A deleted
topic's directories are listed as doomed in the same transaction, and removed on the next start if not before.
**Bounds**: topic names have at most 249 characters; how many partitions there are is checked by the store.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from edge_agent.contract.errors import StopError

__all__ = ["Catalog", "CommittedOffset", "Offsets", "TopicRow"]

_PRODUCER_ID_BLOCK = 1000
_VERSION = 1

_CATALOG = """
CREATE TABLE IF NOT EXISTS topics (
    name TEXT PRIMARY KEY, id BLOB NOT NULL UNIQUE, partitions INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS configs (
    topic TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (topic, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log_starts (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS doomed (directory TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""
_OFFSETS = """
CREATE TABLE IF NOT EXISTS offsets (
    "group" TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    leader_epoch INTEGER NOT NULL, metadata TEXT NOT NULL, PRIMARY KEY ("group", topic, partition)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class TopicRow:
    """One topic as the catalog has it; `log_starts` by partition, 0 where absent."""

    name: str
    id: uuid.UUID
    partitions: int
    configs: dict[str, str]
    log_starts: dict[int, int]


@dataclass(frozen=True)
class CommittedOffset:
    """One group's commit for one partition."""

    topic: str
    partition: int
    offset: int
    leader_epoch: int = -1
    metadata: str = ""


def _open(path: Path, schema: str, *, journal: str, synchronous: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA cache_size = -256")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise StopError(
                f"{path} has version {version}, this program knows {_VERSION}; use the program that wrote it"
            )
        connection.executescript(schema)
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    except sqlite3.DatabaseError as error:
        raise StopError(f"{path} cannot be opened: {error}; restore it or move the whole log directory aside") from None
    return connection


class _Transaction(AbstractContextManager[sqlite3.Connection]):
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK when the block raises."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> sqlite3.Connection:
        self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def __exit__(self, kind: object, *_: object) -> None:
        self._connection.execute("COMMIT" if kind is None else "ROLLBACK")


class Catalog:
    """`catalog.sqlite` in the log's directory; each method is one transaction, synced before it returns."""

    def __init__(self, directory: Path) -> None:
        self._connection = _open(directory / "catalog.sqlite", _CATALOG, journal="DELETE", synchronous="FULL")
        self.cluster_id = str(self._fact("cluster_id", uuid.uuid4().hex[:22]))
        self._next_producer_id = self._reserved = int(str(self._fact("next_producer_id", 1)))

    def _fact(self, name: str, default: object) -> object:
        with _Transaction(self._connection) as connection:
            connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, default))
            row: tuple[object] = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0]

    def producer_id(self) -> int:
        """An id never given before: blocks are reserved ahead, and the rest of one is lost with the process."""
        if self._next_producer_id >= self._reserved:
            self._reserved += _PRODUCER_ID_BLOCK
            with _Transaction(self._connection) as connection:
                connection.execute("UPDATE facts SET value = ? WHERE name = 'next_producer_id'", (self._reserved,))
        given = self._next_producer_id
        self._next_producer_id += 1
        return given

    def topics(self) -> list[TopicRow]:
        """All topics, by name."""
        configs: dict[str, dict[str, str]] = {}
        starts: dict[str, dict[int, int]] = {}
        for topic, name, value in self._connection.execute("SELECT topic, name, value FROM configs"):
            configs.setdefault(topic, {})[name] = value
        for topic, partition, offset in self._connection.execute("SELECT topic, partition, offset FROM log_starts"):
            starts.setdefault(topic, {})[partition] = offset
        rows = self._connection.execute("SELECT name, id, partitions FROM topics ORDER BY name")
        return [
            TopicRow(name, uuid.UUID(bytes=topic_id), partitions, configs.get(name, {}), starts.get(name, {}))
            for name, topic_id, partitions in rows
        ]

    def create_topic(self, name: str, partitions: int, configs: Mapping[str, str]) -> TopicRow:
        """A new topic with a new id."""
        row = TopicRow(name, uuid.uuid4(), partitions, dict(configs), {})
        with _Transaction(self._connection) as connection:
            connection.execute("INSERT INTO topics VALUES (?, ?, ?)", (name, row.id.bytes, partitions))
            connection.executemany("INSERT INTO configs VALUES (?, ?, ?)", [(name, *item) for item in configs.items()])
        return row

    def set_partitions(self, name: str, partitions: int) -> None:
        """Raise a topic's number of partitions."""
        with _Transaction(self._connection) as connection:
            connection.execute("UPDATE topics SET partitions = ? WHERE name = ?", (partitions, name))

    def set_configs(self, name: str, configs: Mapping[str, str]) -> None:
        """Replace a topic's own settings."""
        with _Transaction(self._connection) as connection:
            connection.execute("DELETE FROM configs WHERE topic = ?", (name,))
            connection.executemany("INSERT INTO configs VALUES (?, ?, ?)", [(name, *item) for item in configs.items()])

    def set_log_start(self, name: str, partition: int, offset: int) -> None:
        """Records of the partition below `offset` are gone."""
        with _Transaction(self._connection) as connection:
            connection.execute("INSERT OR REPLACE INTO log_starts VALUES (?, ?, ?)", (name, partition, offset))

    def delete_topic(self, name: str, directories: Iterable[str]) -> None:
        """Forget a topic; its `directories` are doomed until `removed` says that they are gone."""
        with _Transaction(self._connection) as connection:
            connection.execute("DELETE FROM configs WHERE topic = ?", (name,))
            connection.execute("DELETE FROM log_starts WHERE topic = ?", (name,))
            connection.execute("DELETE FROM topics WHERE name = ?", (name,))
            connection.executemany(
                "INSERT OR IGNORE INTO doomed VALUES (?)", [(directory,) for directory in directories]
            )

    def doomed(self) -> list[str]:
        """Names of directories that are to be removed."""
        return [name for (name,) in self._connection.execute("SELECT directory FROM doomed")]

    def removed(self, directories: Iterable[str]) -> None:
        """These directories are gone."""
        with _Transaction(self._connection) as connection:
            connection.executemany("DELETE FROM doomed WHERE directory = ?", [(name,) for name in directories])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class Offsets:
    """`offsets.sqlite`: the commits of consumer groups."""

    def __init__(self, directory: Path) -> None:
        self._connection = _open(directory / "offsets.sqlite", _OFFSETS, journal="WAL", synchronous="NORMAL")

    def commit(self, group: str, offsets: Iterable[CommittedOffset]) -> None:
        """Replace the group's offsets of these partitions, all or none."""
        rows = [(group, each.topic, each.partition, each.offset, each.leader_epoch, each.metadata) for each in offsets]
        with _Transaction(self._connection) as connection:
            connection.executemany("INSERT OR REPLACE INTO offsets VALUES (?, ?, ?, ?, ?, ?)", rows)

    def committed(self, group: str) -> dict[tuple[str, int], CommittedOffset]:
        """Everything the group has committed, by topic and partition."""
        rows = self._connection.execute(
            'SELECT topic, partition, offset, leader_epoch, metadata FROM offsets WHERE "group" = ?', (group,)
        )
        return {(row[0], row[1]): CommittedOffset(*row) for row in rows}

    def groups(self) -> list[str]:
        """Names of the groups that have commits."""
        return [name for (name,) in self._connection.execute('SELECT DISTINCT "group" FROM offsets')]

    def delete_group(self, group: str) -> None:
        """Forget a group's commits."""
        self._connection.execute('DELETE FROM offsets WHERE "group" = ?', (group,))

    def delete_topic(self, topic: str) -> None:
        """Forget all groups' commits for a topic."""
        self._connection.execute("DELETE FROM offsets WHERE topic = ?", (topic,))

    def close(self) -> None:
        """Close the file; its write-ahead log is folded in."""
        self._connection.close()
