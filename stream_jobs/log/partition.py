"""One partition: append, read, and what of it is on the disk. Belongs to the event loop; only `durability.py` syncs.

An append goes to the page cache at once and to the disk with the next round: `begin_sync` says which files that round
has to sync, `finish_sync` moves `synced_offset` forward and tells whoever waits. Readers see offsets below
`synced_offset` only, so nobody ever acts on a record that a power loss could take back.

**Delivery**: an append whose waiter was called with NONE survives a crash of the process and of the machine. After a
failed sync nothing more of the partition is acknowledged or accepted until the process starts again (the page cache may
then differ from the disk); what was synced before is still served.
**Bounds**: waiters are bounded by the connections' requests in flight; the indexes of INDEXES_KEPT finished segments
stay in memory.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .batches import Buffer, Header, append_header
from .codes import Code, ProtocolError
from .producers import Appended
from .recovery import recover
from .seal import Seal, store_seal
from .segment import Segment

__all__ = ["Partition", "SyncJob", "Usage", "Waiter"]

INDEXES_KEPT = 4
_HINTS_KEPT = 16

Waiter = Callable[[Code], None]


@dataclass
class Usage:
    """Bytes of all segments of all partitions that share it."""

    bytes: int = 0


@dataclass(frozen=True)
class SyncJob:
    """What one round does for one partition: sync `directory` when names in it are new, then `files` in this order."""

    partition: Partition
    next_offset: int
    files: tuple[int, ...]
    directory: Path | None
    sizes: tuple[tuple[Segment, int], ...]


class Partition:
    """Opened by recovering `directory`; `number` is its index in the topic."""

    def __init__(
        self, directory: Path, topic: str, number: int, *, log_start_offset: int, segment_bytes: int, usage: Usage
    ) -> None:
        found = recover(directory, log_start_offset)
        self.directory, self.topic, self.number = directory, topic, number
        self.segments, self.producers = found.segments, found.producers
        self.bytes_cut, self.set_aside = found.bytes_cut, found.set_aside
        self.log_start_offset = max(log_start_offset, self.segments[0].base_offset)
        self.synced_offset = self.next_offset
        self.failure = ""
        """Why appends are refused until a restart; empty while all is well."""
        self.mark: Callable[[Partition], None] = lambda _: None
        """Called after each append that has to be synced."""
        self.watchers: set[Callable[[], None]] = set()
        """Called, and forgotten, when `synced_offset` moves, the partition fails or is closed."""
        self.segment_bytes = segment_bytes
        self._usage = usage
        self._usage.bytes += self.bytes_stored
        self._bases = [segment.base_offset for segment in self.segments]
        self._waiters: deque[tuple[int, Waiter]] = deque()
        self._unsynced: list[Segment] = []
        self._names_new = False
        self._seals: list[Seal] = []
        self._syncing = False
        self._closed = False
        self._hints: dict[int, tuple[Segment, int]] = {}
        self._indexed: deque[Segment] = deque()

    @property
    def next_offset(self) -> int:
        """The offset that the next record gets."""
        return self.segments[-1].next_offset

    @property
    def bytes_stored(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in self.segments)

    def append(self, header: Header, batch: Buffer, append_time_ms: int | None) -> Appended:
        """Put one validated batch at the end, or find it there already (an idempotent producer's repetition).

        `append_time_ms` is given for topics with LogAppendTime. Raises ProtocolError with the code for the producer.
        """
        if self.failure:
            raise ProtocolError(Code.KAFKA_STORAGE_ERROR, self.failure)
        earlier = self.producers.check(header)
        if earlier is not None:
            return earlier
        try:
            if self.segments[-1].size and self.segments[-1].size + header.size > self.segment_bytes:
                self._roll()
            active = self.segments[-1]
            stamped, packed = append_header(header, batch, active.next_offset, append_time_ms)
            active.append(packed, stamped, memoryview(batch))
        except OSError as error:
            raise ProtocolError(Code.KAFKA_STORAGE_ERROR, self._append_failed(error)) from None
        self._usage.bytes += stamped.size
        self.producers.record(stamped)
        if not self._unsynced or self._unsynced[-1] is not active:
            self._unsynced.append(active)
        self.mark(self)
        time_ms = stamped.max_timestamp if append_time_ms is not None else -1
        return Appended(stamped.base_sequence, stamped.last_sequence, stamped.base_offset, stamped.next_offset, time_ms)

    def _append_failed(self, error: OSError) -> str:
        """A refused append (disk full) may be tried again; a file of unknown length ends the partition's appends."""
        active = self.segments[-1]
        message = f"append to {self.topic}-{self.number} failed: {error.strerror}; free some space or check the disk"
        try:
            as_before = os.fstat(active.descriptor).st_size == active.size
        except OSError:
            as_before = False
        if not as_before:
            self.fail(message)
        return message

    def _roll(self) -> None:
        """Finish the last segment and begin the next; both get their seals after the round that covers them."""
        active = self.segments[-1]
        following = Segment(self.directory, active.next_offset)
        following.open(create=True)
        producers = self.producers.to_bytes()
        self._seals += [active.seal(producers), following.seal(producers)]
        self.segments.append(following)
        self._bases.append(following.base_offset)
        self._unsynced.append(following)
        self._names_new = True

    def when_synced(self, next_offset: int, waiter: Waiter) -> None:
        """Call `waiter` with NONE once everything below `next_offset` is synced, or with the code of the failure."""
        if self.failure and next_offset > self.synced_offset:
            waiter(Code.KAFKA_STORAGE_ERROR)
        elif next_offset <= self.synced_offset:
            waiter(Code.NONE)
        else:
            self._waiters.append((next_offset, waiter))

    def begin_sync(self) -> SyncJob | None:
        """What has to be synced now; None when nothing has, or a round is under way for this partition."""
        if self._syncing or self._closed or self.failure or not self._unsynced:
            return None
        self._syncing = True
        sizes = tuple((segment, segment.size) for segment in self._unsynced)
        directory = self.directory if self._names_new else None
        self._unsynced, self._names_new = [], False
        return SyncJob(self, self.next_offset, tuple(segment.descriptor for segment, _ in sizes), directory, sizes)

    def finish_sync(self, job: SyncJob, error: OSError | None) -> None:
        """The round is through: move on, or refuse everything from here on."""
        self._syncing = False
        if self._closed:
            self._close_files()
            return
        if error is not None:
            where = f"{self.topic}-{self.number}"
            self.fail(f"fdatasync of {where} failed: {error.strerror}; check the disk, then restart the log")
            return
        for segment, size in job.sizes:
            segment.synced_size = size
        self.synced_offset = job.next_offset
        self._finish_segments()
        self._delete_segments()
        while self._waiters and self._waiters[0][0] <= self.synced_offset:
            self._waiters.popleft()[1](Code.NONE)
        self._wake()

    def _finish_segments(self) -> None:
        """Seal and close the segments that are complete and synced."""
        ready = [seal for seal in self._seals if seal.next_offset <= self.synced_offset]
        self._seals = self._seals[len(ready) :]
        by_base = {segment.base_offset: segment for segment in self.segments}
        for seal in ready:
            segment = by_base.get(seal.base_offset)
            if segment is None:
                continue
            self._write_seal(segment, seal)
            if segment is not self.segments[-1] and segment.descriptor >= 0 and segment.synced_size == segment.size:
                segment.close()
                self._remember_index(segment)

    @staticmethod
    def _write_seal(segment: Segment, seal: Seal) -> None:
        """A seal only saves time on start: a disk that cannot take one does not stop the log."""
        try:
            store_seal(segment.seal_path, seal)
        except OSError:
            segment.seal_path.with_suffix(".seal.tmp").unlink(missing_ok=True)

    def _remember_index(self, segment: Segment) -> None:
        if segment.descriptor >= 0 or segment in self._indexed:
            return
        self._indexed.append(segment)
        if len(self._indexed) > INDEXES_KEPT:
            self._indexed.popleft().drop_index()

    def fail(self, reason: str) -> None:
        """Refuse appends from now on and answer everything that waits."""
        self.failure = reason
        waiters, self._waiters = self._waiters, deque()
        for _, waiter in waiters:
            waiter(Code.KAFKA_STORAGE_ERROR)
        self._wake()

    def _wake(self) -> None:
        watchers, self.watchers = self.watchers, set()
        for watcher in watchers:
            watcher()

    def _segment_of(self, offset: int) -> Segment:
        return self.segments[max(0, bisect_right(self._bases, offset) - 1)]

    def read(self, offset: int, bytes_max: int, *, whole_first: bool) -> bytes:
        """Whole synced batches from the one that holds `offset`; empty when there is none yet or none fits.

        Raises ProtocolError OFFSET_OUT_OF_RANGE outside of log start to next offset; OSError or DecodeError.
        """
        if not self.log_start_offset <= offset <= self.next_offset:
            span = f"{self.log_start_offset} to {self.next_offset}"
            raise ProtocolError(
                Code.OFFSET_OUT_OF_RANGE, f"offset {offset} is not in {span} of {self.topic}-{self.number}"
            )
        if offset >= self.synced_offset:
            return b""
        segment, position = self._located(offset)
        data = segment.read(position, bytes_max, whole_first=whole_first)
        self._remember_index(segment)
        self._hint(offset, segment, position, data)
        return data

    def _located(self, offset: int) -> tuple[Segment, int]:
        hint = self._hints.get(offset)
        if hint is not None and hint[0].next_offset > offset:
            return hint
        segment = self._segment_of(offset)
        return segment, segment.locate(offset)

    def _hint(self, offset: int, segment: Segment, position: int, data: bytes) -> None:
        """Remember where this reader goes on when it has read to the synced end of the segment being written."""
        self._hints.pop(offset, None)
        end = position + len(data)
        if (
            data
            and segment is self.segments[-1]
            and end == segment.synced_size
            and segment.next_offset == self.synced_offset
        ):
            self._hints[self.synced_offset] = (segment, end)
            if len(self._hints) > _HINTS_KEPT:
                del self._hints[next(iter(self._hints))]

    def offset_at(self, timestamp_ms: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first synced record, at or above the log start, not older than `timestamp_ms`."""
        for segment in self.segments:
            if segment.max_timestamp >= timestamp_ms and segment.next_offset > self.log_start_offset:
                found = segment.first_at(timestamp_ms)
                if found is not None:
                    return max(found[0], self.log_start_offset), found[1]
        return None

    def delete_before(self, offset: int) -> None:
        """Delete the whole segments below `offset`, which the catalog already holds as log start.

        Segments that a round still uses go when it is through. When everything goes, an empty segment keeps the offset.
        """
        self.log_start_offset = offset
        if offset >= self.next_offset and self.segments[-1].size and not self.failure:
            self._roll()
            self.mark(self)
        self._delete_segments()

    def _delete_segments(self) -> None:
        """Only closed segments go: they are complete and synced, and the next one has its name and seal."""
        if self._names_new or self._syncing:
            return
        while len(self.segments) > 1 and self.segments[1].base_offset <= self.log_start_offset:
            segment = self.segments[0]
            if segment.descriptor >= 0:
                break
            del self.segments[0], self._bases[0]
            self._usage.bytes -= segment.size
            segment.path.unlink(missing_ok=True)
            segment.seal_path.unlink(missing_ok=True)
            self._hints.clear()

    def checkpoint(self) -> None:
        """Seal the last segment on a clean end, so that the next start scans nothing."""
        active = self.segments[-1]
        if active.synced_size == active.size and not self.failure and not self._unsynced:
            self._write_seal(active, active.seal(self.producers.to_bytes()))

    def close(self) -> None:
        """Close the files, once no round uses them, and answer everything that waits."""
        self._closed = True
        self._usage.bytes -= self.bytes_stored
        self.fail(f"{self.topic}-{self.number} is closed")
        if not self._syncing:
            self._close_files()

    def _close_files(self) -> None:
        for segment in self.segments:
            segment.close()
