"""What waits in a spool, read beside the agent that has it open: nothing is locked, nothing is changed.

A spool that was closed has no write-ahead log and is read as it is; one that is open, or was left by a crash, is read
through SQLite's snapshot of a read-only connection, which no writer waits for.

**Delivery**: one state of the spool, that of the last commit. **Bounds**: of skip records SKIPS_MAX an epoch are shown;
one message is read, the oldest.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_agent.contract import wire
from edge_agent.contract.errors import DecodeError, StopError
from edge_agent.contract.names import epoch_created_s

from .spool_file import APPLICATION_ID, FILE_NAME, VERSION, spool_path
from .spool_messages import OVERHEAD_BYTES

__all__ = ["EpochView", "SkipView", "SpoolView", "StreamView", "read_properties", "read_spool", "spool_folders"]

SKIPS_MAX = 100
_FOLDERS_MAX = 10_000
_STREAMS = f"""
    SELECT stream, count(*), coalesce(sum(rows), 0), coalesce(sum(length(message) + {OVERHEAD_BYTES}), 0) FROM messages
    WHERE epoch = ? AND seq_last > ? AND kind = 1 GROUP BY stream ORDER BY stream
"""  # noqa: S608 - a constant
_SKIPS = """
    SELECT seq_first, seq_last, rows, message FROM messages WHERE epoch = ? AND seq_last > ? AND kind = 2
    ORDER BY seq_first LIMIT ?
"""
_OLDEST = "SELECT message FROM messages WHERE epoch = ? AND seq_last > ? AND kind = 1 ORDER BY id LIMIT 1"


@dataclass(frozen=True, slots=True)
class StreamView:
    """Batches of one stream that wait."""

    stream: str
    batches: int
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SkipView:
    """Seqs that will never come, and that the log was not told yet; `rows` is 0 where nobody knows."""

    seq_first: int
    seq_last: int
    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class EpochView:
    """One epoch. `oldest_row_us`: the time of the first row of the oldest batch that waits, None when none does."""

    epoch: int
    made_s: int
    priority: int
    watermark: int
    last_seq: int
    batches: int
    rows: int
    bytes: int
    oldest_row_us: int | None
    streams: tuple[StreamView, ...]
    skips: tuple[SkipView, ...]


@dataclass(frozen=True, slots=True)
class SpoolView:
    """One spool."""

    path: str
    device: str
    epochs: tuple[EpochView, ...]

    @property
    def waits(self) -> bool:
        """Whether anything in it is not in the log yet."""
        return any(epoch.batches or epoch.skips for epoch in self.epochs)


def spool_folders(directory: Path, depth: int = 1) -> list[Path]:
    """The folders with a spool in `directory` and up to `depth` levels below it, sorted."""
    found: list[Path] = []
    level = [directory]
    for _ in range(depth + 1):
        found += [folder for folder in level if (folder / FILE_NAME).is_file()]
        below: list[Path] = []
        for folder in level:
            with contextlib.suppress(OSError), os.scandir(folder) as entries:
                below += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        level = below[:_FOLDERS_MAX]
    return sorted(found)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A snapshot of the database. StopError: it is no spool, a newer version's, or damaged."""
    # With no log beside it nobody has it open, and a plain read-only connection would make one.
    mode = "mode=ro" if Path(f"{file}-wal").exists() else "mode=ro&immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{file.resolve().as_uri()}?{mode}", uri=True)) as database:
            database.execute("BEGIN")
            (application,) = database.execute("PRAGMA application_id").fetchone()
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if application != APPLICATION_ID or version > VERSION:
                raise StopError(
                    f"{file} is no spool that this program knows (application {application:#x}, version {version}); "
                    "give the folder that the agent has as --dir"
                )
            yield database
    except sqlite3.Error as error:
        raise StopError(f"spool {file} cannot be read: {error}; try again, or check its disk") from None


def read_properties(path: Path, prefix: str) -> dict[str, str]:
    """The properties of the spool in `path` whose names begin with `prefix`."""
    with _opened(spool_path(path)) as database:
        found = database.execute("SELECT name, value FROM properties").fetchall()
    return {name: value for name, value in found if name.startswith(prefix)}


def read_spool(path: Path) -> SpoolView:
    """What waits in the spool in `path`."""
    file = spool_path(path)
    if not file.is_file():
        raise StopError(f"there is no spool at {file}; give the folder that the agent has as --dir")
    with _opened(file) as database:
        found = database.execute("SELECT value FROM properties WHERE name = 'device'").fetchone()
        epochs = database.execute("SELECT epoch, priority, watermark FROM epochs ORDER BY epoch").fetchall()
        views = tuple(_epoch_view(database, *each) for each in epochs)
    return SpoolView(str(path), found[0] if found else "", views)


def _epoch_view(database: sqlite3.Connection, epoch: int, priority: int, watermark: int) -> EpochView:
    (last_seq,) = database.execute("SELECT max(seq_last) FROM messages WHERE epoch = ?", (epoch,)).fetchone()
    streams = tuple(StreamView(*row) for row in database.execute(_STREAMS, (epoch, watermark)).fetchall())
    skips = tuple(
        SkipView(first, last, rows, _reason(message))
        for first, last, rows, message in database.execute(_SKIPS, (epoch, watermark, SKIPS_MAX)).fetchall()
    )
    oldest = database.execute(_OLDEST, (epoch, watermark)).fetchone()
    return EpochView(
        epoch, epoch_created_s(epoch), priority, watermark, max(watermark, last_seq or 0),
        sum(stream.batches for stream in streams), sum(stream.rows for stream in streams),
        sum(stream.bytes for stream in streams), None if oldest is None else _first_time(oldest[0]), streams, skips,
    )  # fmt: skip


def _reason(message: bytes) -> str:
    try:
        return wire.message_header(message).reason.name.lower()
    except DecodeError:
        return "damaged"


def _first_time(message: bytes) -> int | None:
    """`ts` of the first row, or None where it cannot be read."""
    try:
        header, body = wire.decode_header(message)
        columns = {column.name: column for column in wire.decode_columns(header, body)}
    except DecodeError:
        return None
    ts = columns.get("ts")
    return None if ts is None or not ts.rows else int.from_bytes(ts.buffers[0][:8], "little", signed=True)
