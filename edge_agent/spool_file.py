"""The spool's file: an SQLite database that one process has open, checked before anything in it is trusted.

docs/formats/spool.md has the whole format. The pragmas, and why:

    journal_mode=WAL, synchronous=FULL   a commit that returned survives the loss of power
    journal_size_limit, wal_autocheckpoint   the write-ahead log stays small
    auto_vacuum=INCREMENTAL              pages of trimmed batches can be given back in slices
    cache_size, temp_store               memory on a small device is scarce, and blobs are read once

**Delivery**: a file of a newer version, of another device or of another program is refused untouched.
**Bounds**: one process a folder (flock); the log file holds about WAL_BYTES; the page cache CACHE_KIB.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_agent.contract.errors import EdgewaterError, RetryError, StopError, quoted

__all__ = ["FILE_NAME", "SpoolFile", "read_ledger", "spool_path"]

FILE_NAME = "spool.sqlite"
LOCK_NAME = "spool.lock"
VERSION = 1
APPLICATION_ID = 0x45645370
WAL_BYTES = 8 * 1024 * 1024
CACHE_KIB = 1024
_MAGIC = b"SQLite format 3\0"
_TRANSIENT = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_NOMEM)

SCHEMA = """
CREATE TABLE properties (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, priority INTEGER NOT NULL, watermark INTEGER NOT NULL);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL,
    seq_first INTEGER NOT NULL,
    seq_last INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    stream TEXT NOT NULL,
    rows INTEGER NOT NULL,
    crc32 INTEGER NOT NULL,
    message BLOB NOT NULL
);
CREATE UNIQUE INDEX messages_in_order ON messages (epoch, seq_first);
CREATE TABLE ledger (epoch INTEGER NOT NULL, seq INTEGER NOT NULL, message BLOB NOT NULL, PRIMARY KEY (epoch, seq));
"""


def spool_path(path: Path) -> Path:
    """The database of a spool named by its folder or by the file itself."""
    return path / FILE_NAME if path.is_dir() else path


def _locked(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StopError(
            f"spool {path.parent} is in use by another process; stop that one, or give this agent a --dir of its own"
        ) from None
    return descriptor


def _check_magic(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        start = file.read(len(_MAGIC))
        if start not in (b"", _MAGIC):
            raise StopError(
                f"spool {path} is no SQLite file (it starts with {start.hex()}); move it away to start an empty spool"
            )


class SpoolFile:
    """The open database. `device` becomes the owner of a new one, and must be the owner of an old one."""

    def __init__(self, directory: Path, device: str) -> None:
        self.path = directory / FILE_NAME
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(directory / LOCK_NAME)
        except OSError as error:
            raise StopError(f"spool {directory} cannot be used: {error.strerror}; give another --dir") from None
        try:
            _check_magic(self.path)
            self.database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0.0)
            try:
                self._prepare(device)
            except BaseException:
                self.database.close()
                raise
        except sqlite3.Error as error:
            os.close(self._lock)
            raise StopError(f"spool {self.path} cannot be opened: {error}; {_repair(self.path)}") from None
        except BaseException:
            os.close(self._lock)
            raise

    def _prepare(self, device: str) -> None:
        run = self.database.execute
        (version,) = run("PRAGMA user_version").fetchone()
        (application,) = run("PRAGMA application_id").fetchone()
        (tables,) = run("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application != APPLICATION_ID:
            raise StopError(f"{self.path} is another program's database; give another --dir")
        if version > VERSION:
            raise StopError(
                f"spool {self.path} has version {version}, this program knows {VERSION}; upgrade the agent, or move "
                "the file away to start an empty spool"
            )
        run(f"PRAGMA cache_size = -{CACHE_KIB}")
        run("PRAGMA temp_store = MEMORY")
        if not tables:
            run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = FULL")
        run(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        if not tables:
            self.database.executescript(
                f"BEGIN;{SCHEMA}PRAGMA application_id = {APPLICATION_ID};PRAGMA user_version = {VERSION};COMMIT;"
            )
        self._check_owner(device)

    def _check_owner(self, device: str) -> None:
        found = self.database.execute("SELECT value FROM properties WHERE name = 'device'").fetchone()
        if found is None:
            self.database.execute("INSERT INTO properties VALUES ('device', ?)", (device,))
        elif found[0] != device:
            raise StopError(
                f"spool {self.path} belongs to device {quoted(found[0])}, not {quoted(device)}; "
                f"give --device {found[0]}, or another --dir"
            )

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. RetryError when the disk is full or fails, StopError when the file is damaged."""
        try:
            self.database.execute("BEGIN IMMEDIATE")
            try:
                yield self.database
                self.database.execute("COMMIT")
            except BaseException:
                if self.database.in_transaction:
                    self.database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self.classified(error) from None

    def classified(self, error: sqlite3.Error) -> EdgewaterError:
        """What the caller must do about `error`."""
        # Extended codes hold the primary one in their low byte.
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _TRANSIENT:
            return RetryError(f"spool {self.path}: {error}; free space on its disk")
        return StopError(f"spool {self.path}: {error}; {_repair(self.path)}")

    def close(self) -> None:
        """Close the database, then let others have the folder. A second call does nothing."""
        self.database.close()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def _repair(path: Path) -> str:
    return f"check the disk; `sqlite3 {path} .recover` saves what can be read, and without the file an empty one begins"


def read_ledger(path: Path | str) -> Iterator[bytes]:
    """The wire message of every batch that the spool at `path` (folder or file) accepted with `ledger` on, in order of
    (epoch, seq), trimmed ones too. Opens read-only, also while an agent runs. StopError when there is no spool.
    """
    file = spool_path(Path(path))
    if not file.is_file():
        raise StopError(f"there is no spool at {file}; give the folder that the agent has as --dir")
    uri = f"{file.resolve().as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
        for (message,) in database.execute("SELECT message FROM ledger ORDER BY epoch, seq"):
            yield message
