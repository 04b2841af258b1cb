"""The spool: batches on the device's own disk until the log has them.

Per opening and priority the spool makes one epoch, with its first batch; seqs are 1, 2, 3 ... in it. Epochs of
earlier openings are only drained. So a spool that was copied or restored from a backup never uses a seq for
two different batches. What is dropped by policy or found damaged is replaced by a skip record in the same place.

    accepted  ->  held  ->  watermark of the log reached it  ->  trimmed
                    \\->  skip record (dropped, damaged), held and trimmed like a batch

**Delivery**: what `append` accepted survives kill -9 and loss of power, because its commit is synced first (group
commit: one sync for all batches that came together). Nothing is trimmed but at or below a watermark.
**Bounds**: `bytes_max` over all messages, OVERHEAD_BYTES added to each; then the policy decides: `reject` (the caller
waits), `drop-oldest`, `drop-lowest-priority` (never a batch more important than the one that comes). Skip records list
at most SKIP_LISTED_MAX seqs each; when they fill an eighth of the spool the oldest lose their lists. Trimming goes in
slices of TRIM_SLICE messages, reading in slices of what the caller asks for.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from edge_agent.contract import limits, wire
from edge_agent.contract.clock import Clock
from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import EdgewaterError, LimitError, RejectError, RetryError
from edge_agent.contract.names import check_device, epoch_created_s, new_epoch
from edge_agent.contract.wire import Kind, Reason

from .spool_file import SpoolFile, read_ledger
from .spool_messages import OVERHEAD_BYTES, Change, Counts, Held, Messages, Stored

__all__ = ["POLICIES", "PRIORITIES", "Epoch", "Held", "NewBatch", "Place", "Spool", "SpoolSettings", "read_ledger"]

_Message: TypeAlias = bytes
"""The class below has a property `bytes`."""
POLICIES = ("reject", "drop-oldest", "drop-lowest-priority")
PRIORITIES = 4
TRIM_SLICE = 256
_DROP_SLICE = 64
_VACUUM_PAGES = 256
_FREE_PAGES_KEPT = 4096
"""16 MiB for the batches to come, so that steady traffic does not grow and shrink the file in turn."""


@dataclass(frozen=True, slots=True)
class SpoolSettings:
    """What the agent's settings say of its spool."""

    bytes_max: int = 256 * limits.MIB
    policy: str = "reject"
    compress: bool = True
    ledger: bool = False


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch that has no place yet. Priority 0 is the most important, PRIORITIES - 1 the least.

    `followers` of the same priority are accepted together with it or not at all, right behind it. `properties` are
    written in the same transaction (None: deleted): what its maker must know after a crash of how far it came. They
    are accepted with the batch or not at all, and nobody but the maker reads them.
    """

    stream: str
    rows: int
    body: bytes
    function: str = ""
    function_version: bytes = bytes(limits.FUNCTION_VERSION_BYTES)
    priority: int = 1
    trace: bytes = b""
    followers: tuple[NewBatch, ...] = ()
    properties: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an accepted batch stands; the last one of those accepted together, and the bytes of all of them."""

    epoch: int
    seq: int
    priority: int
    bytes: int


@dataclass(slots=True)
class Epoch:
    """What the spool knows of one epoch. Up to `watermark` all is durable; `last_seq` is the last it made.
    `own`: made in this opening, so that more may come."""

    epoch: int
    priority: int
    watermark: int
    last_seq: int
    own: bool


@dataclass(slots=True)
class _Appending(Change):
    """What an append has changed so far: epochs it made (by priority), last seqs (by epoch)."""

    made: dict[int, Epoch] = field(default_factory=dict)
    last_seqs: dict[int, int] = field(default_factory=dict)


class Spool:
    """An open spool; one thread at a time may use it."""

    def __init__(
        self, directory: Path, device: str, settings: SpoolSettings, clock: Clock, *, random_32: Callable[[], int]
    ) -> None:
        """Open or make the spool in `directory`. StopError: in use, another device's, a newer version's, no spool."""
        self.device = check_device(device)
        self.counts = Counts()
        self._settings = settings
        self._clock = clock
        self._random_32 = random_32
        self._protected: dict[int, int] = {}
        self._own: dict[int, Epoch] = {}
        self._epochs: dict[int, Epoch] = {}
        self._file = SpoolFile(directory, device)
        self._run = self._file.database.execute
        self._messages = Messages(self._file.database, device)
        try:
            self._load()
        except sqlite3.Error as error:
            self._file.close()
            raise self._file.classified(error) from None

    def _load(self) -> None:
        found = self._run("SELECT value FROM properties WHERE name = 'last_created_s'").fetchone()
        self._last_created_s = int(found[0]) if found else 0
        for epoch, priority, watermark in self._run("SELECT epoch, priority, watermark FROM epochs").fetchall():
            last_seq = max(watermark, self._messages.last_seq(epoch))
            self._epochs[epoch] = Epoch(epoch, priority, watermark, last_seq, own=False)
        self._totals = self._messages.totals()

    def epochs(self) -> list[Epoch]:
        """Every epoch that was not forgotten, in the order in which they were made."""
        return sorted(self._epochs.values(), key=lambda epoch: epoch.epoch)

    @property
    def bytes(self) -> int:
        """What the messages take, OVERHEAD_BYTES each included."""
        return self._totals.bytes

    @property
    def batches(self) -> int:
        """Batches held."""
        return self._totals.batches

    @property
    def drained(self) -> bool:
        """Whether all that was accepted is at or below a watermark."""
        # A copy: another thread may ask while this one adds an epoch.
        return all(epoch.watermark >= epoch.last_seq for epoch in list(self._epochs.values()))

    def _committed(self, change: Change) -> None:
        self._totals.add(change.totals)
        self.counts.add(change.counts)

    # -- append ------------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[NewBatch]) -> list[Place | EdgewaterError]:
        """Accept what there is room for, in one transaction; the answers are in the order of `batches`.

        RetryError as an answer: no room now. RejectError: never. Raises RetryError for all of them when the disk is
        full, StopError when the file is damaged; then none was accepted.
        """
        change = _Appending()
        with self._file.transaction():
            answers = [self._append_one(batch, change) for batch in batches]
            crash_point("agent.spool.before_commit")
        crash_point("agent.spool.after_commit")
        self._committed(change)
        for priority, epoch in change.made.items():
            self._own[priority] = self._epochs[epoch.epoch] = epoch
        for number, seq in change.last_seqs.items():
            self._epochs[number].last_seq = seq
        return answers

    def _append_one(self, batch: NewBatch, change: _Appending) -> Place | EdgewaterError:
        known = change.made.get(batch.priority) or self._own.get(batch.priority)
        epoch = known or self._new_epoch(batch.priority)
        first = change.last_seqs.get(epoch.epoch, epoch.last_seq) + 1
        together = (batch, *batch.followers)
        try:
            if not 0 <= batch.priority < PRIORITIES:
                raise RejectError(f"priority {batch.priority}; use 0 (most important) to {PRIORITIES - 1}")
            messages = [self._message(each, epoch.epoch, seq) for seq, each in enumerate(together, first)]
            needed = sum(len(message) + OVERHEAD_BYTES for message in messages)
            self._make_room(needed, batch.priority, change)
        except (RejectError, RetryError) as error:
            return error
        if known is None:
            self._insert_epoch(epoch)
            change.made[batch.priority] = epoch
        for seq, (each, message) in enumerate(zip(together, messages, strict=True), first):
            self._insert_batch(each, epoch.epoch, seq, message, change)
        self._write_properties(batch.properties)
        last = first + len(messages) - 1
        change.last_seqs[epoch.epoch] = last
        return Place(epoch.epoch, last, batch.priority, sum(map(len, messages)))

    def _message(self, batch: NewBatch, epoch: int, seq: int) -> _Message:
        return wire.encode_batch(
            batch.body, device=self.device, epoch=epoch, seq=seq, rows=batch.rows, stream=batch.stream,
            function=batch.function, function_version=batch.function_version, trace=batch.trace,
            compress=self._settings.compress,
        )  # fmt: skip

    def _insert_batch(self, batch: NewBatch, epoch: int, seq: int, message: _Message, change: _Appending) -> None:
        stored = Stored(epoch, seq, seq, Kind.BATCH.value, batch.stream, batch.rows, zlib.crc32(message), message)
        self._messages.insert(stored, change)
        if self._settings.ledger:
            self._run("INSERT INTO ledger VALUES (?, ?, ?)", (epoch, seq, message))
        change.counts.accepted_batches += 1
        change.counts.accepted_rows += batch.rows

    def _write_properties(self, properties: Mapping[str, str | None]) -> None:
        for name, value in properties.items():
            if ":" not in name:
                raise RejectError(f"property {name}: names without a colon are the spool's own")
            if value is None:
                self._run("DELETE FROM properties WHERE name = ?", (name,))
            else:
                self._run("INSERT OR REPLACE INTO properties VALUES (?, ?)", (name, value))

    def properties(self, prefix: str) -> dict[str, str]:
        """What makers of batches have written under names that begin with `prefix`."""
        found = self._run("SELECT name, value FROM properties").fetchall()
        return {name: value for name, value in found if ":" in name and name.startswith(prefix)}

    def write_properties(self, properties: Mapping[str, str | None]) -> None:
        """Write properties without a batch, in a transaction of their own. Errors as `append` raises them."""
        with self._file.transaction():
            self._write_properties(properties)

    def _new_epoch(self, priority: int) -> Epoch:
        number = new_epoch(self._clock.time_us(), self._random_32(), self._last_created_s)
        return Epoch(number, priority, watermark=0, last_seq=0, own=True)

    def _insert_epoch(self, epoch: Epoch) -> None:
        # Also when the transaction fails: a number that was tried is not tried again.
        self._last_created_s = epoch_created_s(epoch.epoch)
        self._run("INSERT INTO epochs VALUES (?, ?, 0)", (epoch.epoch, epoch.priority))
        self._run("INSERT OR REPLACE INTO properties VALUES ('last_created_s', ?)", (self._last_created_s,))

    # -- overflow ----------------------------------------------------------------------------------------------

    def protect(self, positions: Mapping[int, int]) -> None:
        """Do not drop seqs at or below these (epoch -> seq): they are on their way, and most will arrive."""
        self._protected = dict(positions)

    def _missing(self, needed: int, change: Change) -> int:
        return self.bytes + change.totals.bytes + needed - self._settings.bytes_max

    def _make_room(self, needed: int, priority: int, change: _Appending) -> None:
        bytes_max = self._settings.bytes_max
        if needed > bytes_max:
            raise LimitError("batch bytes", needed, bytes_max, "raise spool_bytes_max")
        while (missing := self._missing(needed, change)) > 0:
            victim = None if self._settings.policy == "reject" else self._victim(priority, change)
            if victim is None:
                held = self.bytes + change.totals.bytes
                raise RetryError(
                    f"spool holds {held} of spool_bytes_max {bytes_max} bytes and has no room for {needed}; waiting "
                    "until the log has taken some"
                )
            epoch, seq = victim
            self._messages.drop(epoch, seq, missing, _DROP_SLICE, change)
            if (self._totals.skip_bytes + change.totals.skip_bytes) * 8 > bytes_max:
                self._messages.drop_lists(epoch, change)

    def _victim(self, priority: int, change: _Appending) -> tuple[int, int] | None:
        """(epoch, seq) of the batch to drop first, by the policy."""
        by_priority = self._settings.policy == "drop-lowest-priority"
        candidates = []
        for epoch in (*self._epochs.values(), *change.made.values()):
            if by_priority and epoch.priority < priority:
                continue
            found = self._messages.first_batch(epoch.epoch, self._protected.get(epoch.epoch, 0))
            if found is not None:
                candidates.append((-epoch.priority if by_priority else 0, found[0], epoch.epoch, found[1]))
        return min(candidates)[2:] if candidates else None

    # -- read --------------------------------------------------------------------------------------------------

    def read(self, epoch: int, seq: int, bytes_max: int, count_max: int) -> list[Held]:
        """Messages of `epoch` in order, from the one that covers `seq`: at most `count_max` and `bytes_max` bytes,
        yet at least one when there is any. What is damaged becomes a skip record first."""
        state = self._epochs[epoch]
        seq = max(seq, state.watermark + 1)
        found: list[Held] = []
        try:
            while seq <= state.last_seq and len(found) < count_max:
                held = self._held_at(state, seq)
                bytes_max -= len(held.message)
                if found and bytes_max < 0:
                    break
                found.append(held)
                seq = held.seq_last + 1
        except sqlite3.Error as error:
            raise self._file.classified(error) from None
        return found

    def _held_at(self, state: Epoch, seq: int) -> Held:
        """The message that covers `seq`; a skip record made now, when it is damaged or its row is gone."""
        stored = self._messages.at(state.epoch, seq)
        if stored is not None and stored.undamaged:
            return stored.held
        if stored is None:
            after = self._messages.next_seq(state.epoch, seq)
            seqs, listed = (seq, state.last_seq if after is None else after - 1), []
        else:
            seqs, listed = (stored.seq_first, stored.seq_last), stored.listed
        change = Change()
        with self._file.transaction():
            self._messages.replace(state.epoch, seqs, Reason.DAMAGED, listed, change)
        change.counts.damaged_batches = seqs[1] - seqs[0] + 1
        change.counts.damaged_rows = sum(item.rows for item in listed)
        self._committed(change)
        return self._held_at(state, seq)

    # -- trim --------------------------------------------------------------------------------------------------

    def trim(self, epoch: int, watermark: int) -> bool:
        """Delete the next slice of messages at or below `watermark`, and keep the watermark; True when more are left.

        A watermark that is lower than the one kept changes nothing; one above the last seq counts as the last seq.
        """
        state = self._epochs[epoch]
        watermark = max(state.watermark, min(watermark, state.last_seq))
        change = Change()
        with self._file.transaction():
            crash_point("agent.trim.before")
            end = self._messages.slice_end(epoch, watermark, TRIM_SLICE)
            if end is not None:
                batches, rows = self._messages.delete(epoch, 0, end, change)
                change.counts.trimmed_batches, change.counts.trimmed_rows = batches, rows
            self._run("UPDATE epochs SET watermark = ? WHERE epoch = ?", (watermark, epoch))
            if self._run("PRAGMA freelist_count").fetchone()[0] > _FREE_PAGES_KEPT:
                self._run(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        crash_point("agent.trim.after")
        state.watermark = watermark
        self._committed(change)
        return end is not None and end < watermark

    def forget(self, epoch: int) -> None:
        """Forget an old epoch that is drained. RejectError for one that is not, or that this opening made."""
        state = self._epochs[epoch]
        if state.own or state.watermark < state.last_seq:
            raise RejectError(
                f"epoch {epoch} at watermark {state.watermark} of {state.last_seq} "
                f"({'this' if state.own else 'an earlier'} opening) is not to be forgotten yet"
            )
        change = Change()
        with self._file.transaction():
            self._messages.delete(epoch, 0, state.last_seq, change)
            self._run("DELETE FROM epochs WHERE epoch = ?", (epoch,))
        self._committed(change)
        del self._epochs[epoch]

    def close(self) -> None:
        """Close the file; everything accepted is in it."""
        self._file.close()
