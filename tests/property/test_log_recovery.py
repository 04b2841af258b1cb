"""Any history of a partition with crashes: what was synced is there, once, in order; offsets are given once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_jobs.log.batches import parse_header, validate
from stream_jobs.log.partition import Partition
from stream_jobs.log.segment import segment_path
from tests.unit.log_records import make_batch, make_partition, sync

SEGMENT_BYTES = 4096

steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 1500)),
        st.tuples(st.just("repeat"), st.integers(0, 4)),
        st.tuples(st.just("sync"), st.just(0)),
        st.tuples(st.just("crash"), st.integers(0, 300)),
        st.tuples(st.just("garbage"), st.integers(1, 200)),
        st.tuples(st.just("clean end"), st.just(0)),
        st.tuples(st.just("delete"), st.integers(0, 100)),
        st.tuples(st.just("lose a seal"), st.integers(0, 5)),
    ),
    max_size=40,
)


class History:
    """A partition, and what must be in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.partition = make_partition(directory, segment_bytes=SEGMENT_BYTES)
        self.written: list[bytes] = []
        self.start = 0

    def reopen(self) -> None:
        """Open again after a crash; batches that were not synced may be gone."""
        synced = self.partition.synced_offset
        self.partition.close()
        self.partition = make_partition(self.directory, segment_bytes=SEGMENT_BYTES, log_start_offset=self.start)
        assert synced <= self.partition.next_offset <= len(self.written)
        assert self.partition.synced_offset == self.partition.next_offset
        del self.written[self.partition.next_offset :]

    def append(self, size: int) -> None:
        """One batch of one record from an idempotent producer."""
        batch = make_batch([b"x" * size], producer=9, epoch=0, sequence=len(self.written))
        appended = self.partition.append(validate(batch), batch, None)
        assert appended.base_offset == len(self.written)
        self.written.append(batch)

    def repeat(self, back: int) -> None:
        """One of the last five batches again."""
        if back < len(self.written):
            number = len(self.written) - 1 - back
            batch = self.written[number]
            assert self.partition.append(validate(batch), batch, None).base_offset == number

    def crash(self, bytes_lost: int) -> None:
        """kill -9, and of the bytes that were not synced the last ones are lost."""
        segment = self.partition.segments[-1]
        lost = min(bytes_lost, segment.size - segment.synced_size)
        with segment_path(self.directory, segment.base_offset).open("r+b") as file:
            file.truncate(segment.size - lost)
        self.reopen()

    def garbage(self, length: int) -> None:
        """kill -9 in the middle of a write."""
        with segment_path(self.directory, self.partition.segments[-1].base_offset).open("ab") as file:
            file.write(b"\0" * length)
        self.reopen()

    def clean_end(self) -> None:
        """SIGTERM."""
        sync(self.partition)
        self.partition.checkpoint()
        self.reopen()

    def delete(self, offset: int) -> None:
        """DeleteRecords."""
        offset = min(offset, self.partition.synced_offset)
        if offset > self.start:
            self.start = offset
            self.partition.delete_before(offset)

    def lose_a_seal(self, number: int) -> None:
        """A seal did not reach the disk."""
        seals = sorted(self.directory.glob("*.seal"))
        # Without its records a seal is all that is known of the producers before it: those of deleted records stay.
        if number < len(seals) and self.start == 0:
            seals[number].unlink()

    def check(self) -> None:
        """Every synced batch from the log start on is read once, in order, as it was written."""
        offset = self.start
        while offset < self.partition.synced_offset:
            data = self.partition.read(offset, 3000, whole_first=True)
            position = 0
            while position < len(data):
                header = parse_header(data, position)
                assert header.base_offset == offset
                expected = self.written[offset]
                assert data[position + 16 : position + header.size] == expected[16:]
                position += header.size
                offset += 1
        assert self.partition.bytes_stored == sum(path.stat().st_size for path in self.directory.glob("*.log"))


def run(history: History, step: str, number: int) -> None:
    """One step of a history."""
    partition: Partition = history.partition
    match step:
        case "append":
            history.append(number)
        case "repeat":
            history.repeat(number)
        case "sync":
            sync(partition)
        case "crash":
            history.crash(number)
        case "garbage":
            history.garbage(number)
        case "clean end":
            history.clean_end()
        case "delete":
            history.delete(number)
        case "lose a seal":
            history.lose_a_seal(number)


@settings(max_examples=150, deadline=None)
@given(steps)
def test_any_history_keeps_what_was_synced(history_steps: list[tuple[str, int]]) -> None:
    """Appends, repetitions, crashes, garbage, clean ends, deletions and lost seals in any order."""
    with tempfile.TemporaryDirectory() as directory:
        history = History(Path(directory) / "t-0")
        for step, number in history_steps:
            run(history, step, number)
            history.check()
        history.partition.close()
