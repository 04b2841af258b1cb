"""A partition: appends, rounds of syncs, reads, deletion, failures."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stream_jobs.log.batches import parse_header, validate
from stream_jobs.log.codes import Code, ProtocolError
from stream_jobs.log.partition import Partition
from stream_jobs.log.producers import Appended
from stream_jobs.log.segment import Segment

from .log_records import make_batch, make_partition, sync


def append(partition: Partition, batch: bytes, time_ms: int | None = None) -> Appended:
    """Append one batch as the store does."""
    return partition.append(validate(batch), batch, time_ms)


def offsets(data: bytes) -> list[int]:
    """Base offsets of the whole batches in what a fetch gave."""
    found, position = [], 0
    while position < len(data):
        header = parse_header(data, position)
        found.append(header.base_offset)
        position += header.size
    assert position == len(data), "a fetch gives whole batches"
    return found


def test_offsets_follow_each_other(tmp_path: Path) -> None:
    """Each batch begins where the one before it ended."""
    partition = make_partition(tmp_path / "t-0")
    assert [append(partition, make_batch([b"x"] * 3)).base_offset for _ in range(3)] == [0, 3, 6]
    assert partition.next_offset == 9


def test_readers_see_synced_records_only(tmp_path: Path) -> None:
    """While a round is held back its records are invisible, and so is what came after it began."""
    partition = make_partition(tmp_path / "t-0")
    append(partition, make_batch([b"a"]))
    held = partition.begin_sync()
    assert held is not None
    append(partition, make_batch([b"b"]))
    assert partition.read(0, 1000, whole_first=True) == b""
    assert partition.synced_offset == 0
    partition.finish_sync(held, None)
    assert offsets(partition.read(0, 1000, whole_first=True)) == [0]
    assert partition.read(1, 1000, whole_first=True) == b""
    sync(partition)
    assert offsets(partition.read(0, 1000, whole_first=True)) == [0, 1]
    assert offsets(partition.read(1, 1000, whole_first=True)) == [1]


def test_waiters_are_told_after_their_round(tmp_path: Path) -> None:
    """acks=all waits for the round that began after its append."""
    partition = make_partition(tmp_path / "t-0")
    told: list[tuple[str, Code]] = []
    partition.when_synced(append(partition, make_batch([b"a"])).next_offset, lambda code: told.append(("a", code)))
    held = partition.begin_sync()
    assert held is not None
    partition.when_synced(append(partition, make_batch([b"b"])).next_offset, lambda code: told.append(("b", code)))
    assert partition.begin_sync() is None
    partition.finish_sync(held, None)
    assert told == [("a", Code.NONE)]
    sync(partition)
    assert told == [("a", Code.NONE), ("b", Code.NONE)]


def test_a_repetition_waits_for_the_first_append(tmp_path: Path) -> None:
    """A repeated batch whose first append is not yet synced is acknowledged no earlier."""
    partition = make_partition(tmp_path / "t-0")
    batch = make_batch([b"a"], producer=1, epoch=0, sequence=0)
    first, second = append(partition, batch), append(partition, batch)
    assert first == second
    assert partition.next_offset == 1
    told: list[Code] = []
    partition.when_synced(second.next_offset, told.append)
    assert told == []
    sync(partition)
    assert told == [Code.NONE]


def test_after_a_failed_sync_nothing_is_acknowledged(tmp_path: Path) -> None:
    """The waiting and all later appends get KAFKA_STORAGE_ERROR; what was synced is still served."""
    partition = make_partition(tmp_path / "t-0")
    append(partition, make_batch([b"a"]))
    sync(partition)
    told: list[Code] = []
    partition.when_synced(append(partition, make_batch([b"b"])).next_offset, told.append)
    sync(partition, OSError(errno.EIO, "Input/output error"))
    assert told == [Code.KAFKA_STORAGE_ERROR]
    with pytest.raises(ProtocolError) as caught:
        append(partition, make_batch([b"c"]))
    assert caught.value.code is Code.KAFKA_STORAGE_ERROR
    assert "fdatasync of t-0 failed" in partition.failure
    partition.when_synced(2, told.append)
    assert told == [Code.KAFKA_STORAGE_ERROR] * 2
    assert partition.begin_sync() is None
    assert offsets(partition.read(0, 1000, whole_first=True)) == [0]


def test_a_full_disk_refuses_one_append_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half way is taken back; the same batch is accepted later, at the same offset."""
    partition = make_partition(tmp_path / "t-0")
    append(partition, make_batch([b"a"]))
    write = os.pwritev
    batch = make_batch([b"b" * 100], producer=1, epoch=0, sequence=0)

    def half(descriptor: int, parts: list[bytes], position: int) -> int:
        os.pwrite(descriptor, parts[0][:30], position)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwritev", half)
    with pytest.raises(ProtocolError) as caught:
        append(partition, batch)
    assert caught.value.code is Code.KAFKA_STORAGE_ERROR
    assert not partition.failure
    monkeypatch.setattr(os, "pwritev", write)
    assert append(partition, batch).base_offset == 1
    sync(partition)
    assert offsets(partition.read(0, 1000, whole_first=True)) == [0, 1]


def test_a_write_that_cannot_be_taken_back_fails_the_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file's length is not known any more, appends end until a restart."""
    partition = make_partition(tmp_path / "t-0")

    def half(descriptor: int, parts: list[bytes], position: int) -> int:
        os.pwrite(descriptor, parts[0][:30], position)
        raise OSError(errno.EIO, "Input/output error")

    def no_truncate(descriptor: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pwritev", half)
    monkeypatch.setattr(os, "ftruncate", no_truncate)
    with pytest.raises(ProtocolError):
        append(partition, make_batch([b"a"]))
    assert partition.failure


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes a few bytes at a time gets them all."""
    partition = make_partition(tmp_path / "t-0")

    def few(descriptor: int, parts: list[bytes], position: int) -> int:
        return os.pwrite(descriptor, b"".join(parts)[:17], position)

    monkeypatch.setattr(os, "pwritev", few)
    batch = make_batch([b"abc" * 40])
    append(partition, batch)
    sync(partition)
    assert partition.read(0, 1000, whole_first=True) == batch


def test_segments_roll_and_are_read_across(tmp_path: Path) -> None:
    """Finished segments are sealed and closed, and a reader goes on from one to the next."""
    partition = make_partition(tmp_path / "t-0", segment_bytes=4096)
    for number in range(20):
        append(partition, make_batch([b"%d" % number * 1000]))
        sync(partition)
    assert len(partition.segments) > 3
    assert all(each.seal_path.exists() for each in partition.segments[:-1])
    assert [each.descriptor >= 0 for each in partition.segments] == [False] * (len(partition.segments) - 1) + [True]
    seen: list[int] = []
    while len(seen) < 20:
        seen += offsets(partition.read(seen[-1] + 1 if seen else 0, 100_000, whole_first=True))
    assert seen == list(range(20))


def test_a_reader_at_the_end_goes_on_after_a_roll(tmp_path: Path) -> None:
    """Who had read everything just before a segment was finished finds the next record in the next one."""
    partition = make_partition(tmp_path / "t-0", segment_bytes=4096)
    append(partition, make_batch([b"a" * 4000]))
    sync(partition)
    assert offsets(partition.read(0, 10_000, whole_first=True)) == [0]
    append(partition, make_batch([b"b" * 4000]))
    sync(partition)
    assert offsets(partition.read(1, 10_000, whole_first=True)) == [1]


def test_reads_are_bounded_by_whole_batches(tmp_path: Path) -> None:
    """As many whole batches as fit; one whatever its size when it is the first of a fetch, none otherwise."""
    partition = make_partition(tmp_path / "t-0", segment_bytes=10 << 20)
    batch = make_batch([b"x" * 1000])
    for _ in range(100):
        append(partition, batch)
    sync(partition)
    assert offsets(partition.read(0, 3 * len(batch) + 5, whole_first=False)) == [0, 1, 2]
    assert offsets(partition.read(50, 10, whole_first=True)) == [50]
    assert partition.read(50, 10, whole_first=False) == b""
    big = partition.read(0, 80 * len(batch), whole_first=False)
    assert 40 < len(offsets(big)) <= 80


def test_offsets_out_of_range(tmp_path: Path) -> None:
    """Beyond the end and below the start a reader is told so."""
    partition = make_partition(tmp_path / "t-0", log_start_offset=5)
    append(partition, make_batch([b"x"]))
    sync(partition)
    for offset in (4, 7, -1):
        with pytest.raises(ProtocolError) as caught:
            partition.read(offset, 100, whole_first=True)
        assert caught.value.code is Code.OFFSET_OUT_OF_RANGE
    assert partition.read(6, 100, whole_first=True) == b""


def test_deleting_removes_whole_segments(tmp_path: Path) -> None:
    """Files below the new start are gone at once; the segment that holds the start stays, and is still read."""
    partition = make_partition(tmp_path / "t-0", segment_bytes=4096)
    for _ in range(20):
        append(partition, make_batch([b"x" * 1000]))
        sync(partition)
    before = len(list((tmp_path / "t-0").glob("*.log")))
    partition.delete_before(10)
    after = sorted(int(path.stem) for path in (tmp_path / "t-0").glob("*.log"))
    assert len(after) < before
    assert after[0] <= 10 < after[1]
    assert offsets(partition.read(10, 100_000, whole_first=True))[0] == 10


def test_deleting_everything_keeps_the_offset(tmp_path: Path) -> None:
    """After all records are deleted the next one still gets the next offset, also after a restart."""
    partition = make_partition(tmp_path / "t-0", segment_bytes=4096)
    for _ in range(7):
        append(partition, make_batch([b"x" * 1000], producer=4, epoch=0, sequence=partition.next_offset))
    sync(partition)
    partition.delete_before(7)
    sync(partition)
    sync(partition)
    assert [path.name for path in (tmp_path / "t-0").glob("*.log")] == [f"{7:020d}.log"]
    partition.close()
    again = make_partition(tmp_path / "t-0", log_start_offset=7)
    assert (again.log_start_offset, again.next_offset) == (7, 7)
    repeated = append(again, make_batch([b"x" * 1000], producer=4, epoch=0, sequence=6))
    assert repeated.base_offset == 6, "the producer's state outlives its records"


def test_closing_waits_for_the_round_under_way(tmp_path: Path) -> None:
    """Files that a round is syncing are closed after it, and its result changes nothing any more."""
    partition = make_partition(tmp_path / "t-0")
    told: list[Code] = []
    partition.when_synced(append(partition, make_batch([b"x"])).next_offset, told.append)
    job = partition.begin_sync()
    assert job is not None
    partition.close()
    assert told == [Code.KAFKA_STORAGE_ERROR]
    os.fdatasync(job.files[0])
    partition.finish_sync(job, None)
    assert partition.segments[-1].descriptor == -1


def test_search_by_time(tmp_path: Path) -> None:
    """The first record not older than a time is found in whichever segment it is."""
    partition = make_partition(tmp_path / "t-0", segment_bytes=4096)
    for number in range(20):
        append(partition, make_batch([b"x" * 1000]), 1000 + number * 10)
    sync(partition)
    assert partition.offset_at(0) == (0, 1000)
    assert partition.offset_at(1101) == (11, 1110)
    assert partition.offset_at(1190) == (19, 1190)
    assert partition.offset_at(1191) is None


def test_an_index_that_was_dropped_is_loaded_again(tmp_path: Path) -> None:
    """A finished segment is read the same with its index from memory, from its seal, and without a seal."""
    partition = make_partition(tmp_path / "t-0", segment_bytes=200_000)
    for _ in range(250):
        append(partition, make_batch([b"x" * 1000]))
    sync(partition)
    segment: Segment = partition.segments[0]
    expected = partition.read(100, 5000, whole_first=True)
    segment.drop_index()
    assert partition.read(100, 5000, whole_first=True) == expected
    segment.drop_index()
    segment.seal_path.unlink()
    assert partition.read(100, 5000, whole_first=True) == expected
