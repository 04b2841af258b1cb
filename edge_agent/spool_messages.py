"""The spool's table of messages: batches and skip records in order, with the sums of what they take.

Every function here runs inside a transaction of the caller's; what changes in the sums goes into a `Change`, which the
caller adds to its own when the transaction is committed.

**Delivery**: a message is replaced only by a skip record that covers exactly its seqs. **Bounds**: statements touch at
most the slice that the caller names; a joined skip record lists at most SKIP_LISTED_MAX seqs.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from edge_agent.contract.wire import Kind, Reason, Skipped

from .spool_skips import joined, skip_message

__all__ = ["OVERHEAD_BYTES", "Change", "Counts", "Held", "Messages", "Stored", "Totals"]

OVERHEAD_BYTES = 96
"""What a message takes beyond its own bytes: its row, its index entry, its share of half-filled pages."""
SKIP_LISTED_MAX = 512
"""While the spool overflows, each append writes a skip record anew: so it must stay small."""

_SUMS = """
    SELECT coalesce(sum(length(message) + 96), 0), coalesce(sum(iif(kind = 1, 0, length(message) + 96)), 0),
           coalesce(sum(kind = 1), 0), coalesce(sum(iif(kind = 1, rows, 0)), 0) FROM messages
"""
assert f"+ {OVERHEAD_BYTES})" in _SUMS
_WITHIN = "epoch = ? AND seq_first BETWEEN ? AND ? AND seq_last <= ?"
_SUMS_WITHIN = f"{_SUMS} WHERE {_WITHIN}"
_DELETE_WITHIN = f"DELETE FROM messages WHERE {_WITHIN}"  # noqa: S608 - a constant
_INSERT = """
    INSERT INTO messages (epoch, seq_first, seq_last, kind, stream, rows, crc32, message)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_FIRST_BATCH = """
    SELECT id, seq_first FROM messages WHERE epoch = ? AND seq_first > ? AND kind = 1 ORDER BY seq_first LIMIT 1
"""
_BATCHES_FROM = """
    SELECT seq_first, stream, rows, length(message) FROM messages
    WHERE epoch = ? AND seq_first >= ? AND kind = 1 ORDER BY seq_first LIMIT ?
"""
_SKIP_BEFORE = "SELECT seq_first, message, crc32 FROM messages WHERE epoch = ? AND seq_last = ? AND kind = 2"
_NEIGHBOURING_SKIPS = """
    SELECT a.seq_first, b.seq_last FROM messages a
    JOIN messages b ON b.epoch = a.epoch AND b.seq_first = a.seq_last + 1 AND b.kind = 2
    WHERE a.epoch = ? AND a.kind = 2 ORDER BY a.seq_first LIMIT 1
"""
_AT_OR_BEFORE = """
    SELECT epoch, seq_first, seq_last, kind, stream, rows, crc32, message FROM messages
    WHERE epoch = ? AND seq_first <= ? ORDER BY seq_first DESC LIMIT 1
"""
_SLICE_END = """
    SELECT max(seq_last) FROM (
        SELECT seq_last FROM messages WHERE epoch = ? AND seq_last <= ? ORDER BY seq_first LIMIT ?
    )
"""


@dataclass(frozen=True, slots=True)
class Held:
    """One message to send, a batch or a skip record, as it goes on the wire; a skip record has no rows to send."""

    epoch: int
    seq_first: int
    seq_last: int
    rows: int
    message: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it is in the table; whether it is still what was written is not known before `undamaged`."""

    epoch: int
    seq_first: int
    seq_last: int
    kind: int
    stream: str
    rows: int
    crc32: int
    message: bytes

    @property
    def undamaged(self) -> bool:
        """Whether the message is what was written."""
        return zlib.crc32(self.message) == self.crc32

    @property
    def held(self) -> Held:
        """To send it."""
        rows = self.rows if self.kind == Kind.BATCH.value else 0
        return Held(self.epoch, self.seq_first, self.seq_last, rows, self.message)

    @property
    def listed(self) -> list[Skipped]:
        """What is known of it without its message: of a batch, stream and rows."""
        return [Skipped(self.seq_first, self.stream, self.rows)] if self.kind == Kind.BATCH.value else []


@dataclass(slots=True)
class Counts:
    """Batches and their rows since the process began; for a damaged seq nobody may know the rows."""

    accepted_batches: int = 0
    accepted_rows: int = 0
    trimmed_batches: int = 0
    trimmed_rows: int = 0
    dropped_batches: int = 0
    dropped_rows: int = 0
    damaged_batches: int = 0
    damaged_rows: int = 0

    def add(self, other: Counts) -> None:
        """Add each number of `other`."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


@dataclass(slots=True)
class Totals:
    """What all messages take, OVERHEAD_BYTES each included; of that the skip records; and the number of batches."""

    bytes: int = 0
    skip_bytes: int = 0
    batches: int = 0

    def add(self, other: Totals) -> None:
        """Add each number of `other`."""
        self.bytes += other.bytes
        self.skip_bytes += other.skip_bytes
        self.batches += other.batches


@dataclass(slots=True)
class Change:
    """What a transaction changes of the sums."""

    totals: Totals = field(default_factory=Totals)
    counts: Counts = field(default_factory=Counts)


class Messages:
    """The table, in an open database."""

    def __init__(self, database: sqlite3.Connection, device: str) -> None:
        self._run = database.execute
        self._device = device

    def totals(self) -> Totals:
        """The sums over the whole table."""
        size, skip_size, batches, _ = self._run(_SUMS).fetchone()
        return Totals(size, skip_size, batches)

    def last_seq(self, epoch: int) -> int:
        """The last seq of `epoch` in the table, or 0."""
        (last,) = self._run("SELECT max(seq_last) FROM messages WHERE epoch = ?", (epoch,)).fetchone()
        return last or 0

    def insert(self, stored: Stored, change: Change) -> None:
        """Add a message."""
        values = (
            stored.epoch, stored.seq_first, stored.seq_last, stored.kind, stored.stream, stored.rows, stored.crc32,
            stored.message,
        )  # fmt: skip
        self._run(_INSERT, values)
        size = len(stored.message) + OVERHEAD_BYTES
        is_batch = stored.kind == Kind.BATCH.value
        change.totals.add(Totals(size, 0 if is_batch else size, int(is_batch)))

    def delete(self, epoch: int, first: int, last: int, change: Change) -> tuple[int, int]:
        """Delete the messages that lie within these seqs; the number of batches among them, and their rows."""
        within = (epoch, first, last, last)
        size, skip_size, batches, rows = self._run(_SUMS_WITHIN, within).fetchone()
        self._run(_DELETE_WITHIN, within)
        change.totals.add(Totals(-size, -skip_size, -batches))
        return batches, rows

    def first_batch(self, epoch: int, after: int) -> tuple[int, int] | None:
        """(age order, seq) of the first batch of `epoch` above seq `after`, or None."""
        found: tuple[int, int] | None = self._run(_FIRST_BATCH, (epoch, after)).fetchone()
        return found

    def drop(self, epoch: int, seq: int, missing: int, count_max: int, change: Change) -> None:
        """Turn batches from `seq` on, one after the other, into a skip record until `missing` bytes are free."""
        skipped: list[Skipped] = []
        for found, stream, rows, size in self._run(_BATCHES_FROM, (epoch, seq, count_max)).fetchall():
            if found != seq + len(skipped) or missing <= 0:
                break
            skipped.append(Skipped(found, stream, rows))
            missing -= size + OVERHEAD_BYTES
        self._skip_after(epoch, skipped, Reason.DROPPED, change)
        change.counts.dropped_batches += len(skipped)
        change.counts.dropped_rows += sum(item.rows for item in skipped)

    def _skip_after(self, epoch: int, skipped: Sequence[Skipped], reason: Reason, change: Change) -> None:
        """A skip record in the place of the batches `skipped`, joined with the one before when it is alike."""
        first, last = skipped[0].seq, skipped[-1].seq
        before = self._run(_SKIP_BEFORE, (epoch, first - 1)).fetchone()
        listed = list(skipped)
        if before is not None and zlib.crc32(before[1]) == before[2]:
            together = joined(before[1], reason, listed, SKIP_LISTED_MAX)
            if together is not None:
                first, listed = before[0], together
        self.replace(epoch, (first, last), reason, listed, change)

    def replace(
        self, epoch: int, seqs: tuple[int, int], reason: Reason, listed: Sequence[Skipped], change: Change
    ) -> None:
        """Put one skip record in the place of all messages within `seqs` (first, last)."""
        self.delete(epoch, *seqs, change)
        message = skip_message(self._device, epoch, seqs, reason, listed)
        rows = sum(item.rows for item in listed)
        self.insert(Stored(epoch, *seqs, Kind.SKIP.value, "", rows, zlib.crc32(message), message), change)

    def drop_lists(self, epoch: int, change: Change) -> None:
        """Join the oldest two neighbouring skip records of `epoch` into one without a list, to bound their bytes."""
        found = self._run(_NEIGHBOURING_SKIPS, (epoch,)).fetchone()
        if found is not None:
            self.replace(epoch, found, Reason.DROPPED, [], change)

    def at(self, epoch: int, seq: int) -> Stored | None:
        """The message that covers `seq`, or None: its row is gone."""
        found = self._run(_AT_OR_BEFORE, (epoch, seq)).fetchone()
        return None if found is None or found[2] < seq else Stored(*found)

    def next_seq(self, epoch: int, after: int) -> int | None:
        """The first seq of the message that begins next above `after`."""
        (found,) = self._run(
            "SELECT min(seq_first) FROM messages WHERE epoch = ? AND seq_first > ?", (epoch, after)
        ).fetchone()
        return None if found is None else int(found)

    def slice_end(self, epoch: int, watermark: int, count_max: int) -> int | None:
        """The last seq of the first `count_max` messages of `epoch` that end at or below `watermark`."""
        (found,) = self._run(_SLICE_END, (epoch, watermark, count_max)).fetchone()
        return None if found is None else int(found)
