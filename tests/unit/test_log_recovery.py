"""Opening a partition after a crash: whole batches stay, torn ones are cut, nothing acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_jobs.log.batches import validate
from stream_jobs.log.partition import Partition
from stream_jobs.log.segment import segment_path

from .log_records import make_batch, make_partition, sync


def fill(partition: Partition, count: int, *, size: int = 100) -> None:
    """Append and sync `count` batches of one record."""
    for _ in range(count):
        batch = make_batch([b"x" * size], producer=1, epoch=0, sequence=partition.next_offset)
        partition.append(validate(batch), batch, None)
    sync(partition)


def crash(partition: Partition) -> None:
    """End as kill -9 would: files closed, no seal of the last segment."""
    partition.close()


def test_a_torn_last_batch_is_cut_at_every_byte(tmp_path: Path) -> None:
    """Wherever the last batch is cut off, the ones before it stay and the next append follows them."""
    partition = make_partition(tmp_path / "t-0")
    fill(partition, 3)
    crash(partition)
    path = segment_path(tmp_path / "t-0", 0)
    whole = path.read_bytes()
    size = len(whole) // 3
    for length in range(2 * size, len(whole)):
        path.write_bytes(whole[:length])
        again = make_partition(tmp_path / "t-0")
        assert again.next_offset == again.synced_offset == 2
        assert again.bytes_cut == length - 2 * size
        assert path.stat().st_size == 2 * size
        crash(again)


def test_a_flipped_bit_in_the_tail_is_found(tmp_path: Path) -> None:
    """Any damaged byte of the last batch that its checksum or header covers cuts it off."""
    partition = make_partition(tmp_path / "t-0")
    fill(partition, 2, size=20)
    crash(partition)
    path = segment_path(tmp_path / "t-0", 0)
    whole = path.read_bytes()
    half = len(whole) // 2
    leader_epoch = range(half + 12, half + 16)
    for position in range(half, len(whole)):
        if position in leader_epoch:
            continue  # outside of the checksum by the protocol's design, and of no meaning with one node
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x40]) + whole[position + 1 :])
        again = make_partition(tmp_path / "t-0")
        assert again.next_offset == 1, position
        crash(again)


def test_unsynced_batches_found_on_start_are_served_only_when_whole(tmp_path: Path) -> None:
    """What was written but not synced before kill -9 may stay; it counts as synced only after recovery synced it."""
    partition = make_partition(tmp_path / "t-0")
    batch = make_batch([b"x"])
    partition.append(validate(batch), batch, None)
    crash(partition)
    again = make_partition(tmp_path / "t-0")
    assert again.synced_offset == 1
    assert again.read(0, 1000, whole_first=True) == batch


def test_producers_are_known_after_a_restart(tmp_path: Path) -> None:
    """A batch acknowledged before the crash and sent again after it gets its first offset, with and without seals."""
    partition = make_partition(tmp_path / "t-0", segment_bytes=4096)
    fill(partition, 30, size=500)
    crash(partition)
    for seals in (True, False):
        if not seals:
            for path in (tmp_path / "t-0").glob("*.seal"):
                path.unlink()
        again = make_partition(tmp_path / "t-0", segment_bytes=4096)
        repeated = make_batch([b"x" * 500], producer=1, epoch=0, sequence=29)
        assert again.append(validate(repeated), repeated, None).base_offset == 29
        assert again.next_offset == 30
        crash(again)


def test_a_clean_end_leaves_nothing_to_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a checkpoint the next start reads no batch, and what is appended after it is scanned from there."""
    partition = make_partition(tmp_path / "t-0")
    fill(partition, 10)
    partition.checkpoint()
    partition.close()
    scanned: list[int] = []
    monkeypatch.setattr("stream_jobs.log.recovery.scan", lambda *arguments: scanned.append(arguments[1]) or iter(()))
    again = make_partition(tmp_path / "t-0")
    assert (again.next_offset, scanned) == (10, [])
    monkeypatch.undo()
    fill(again, 1)
    crash(again)
    assert make_partition(tmp_path / "t-0").next_offset == 11


def test_a_damaged_or_foreign_seal_costs_only_a_scan(tmp_path: Path) -> None:
    """A seal with a wrong checksum, or larger than its segment, is not relied on."""
    partition = make_partition(tmp_path / "t-0")
    fill(partition, 10)
    partition.checkpoint()
    partition.close()
    seal = next((tmp_path / "t-0").glob("*.seal"))
    data = seal.read_bytes()
    for position in range(0, len(data), 7):
        seal.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        again = make_partition(tmp_path / "t-0")
        assert again.next_offset == 10
        crash(again)
    seal.write_bytes(data)
    path = segment_path(tmp_path / "t-0", 0)
    path.write_bytes(path.read_bytes()[:-1])
    assert make_partition(tmp_path / "t-0").next_offset == 9


def test_segments_behind_a_damaged_one_are_set_aside(tmp_path: Path) -> None:
    """A hole in the middle ends the log there; later segments are kept as .cut files and counted."""
    partition = make_partition(tmp_path / "t-0", segment_bytes=4096)
    fill(partition, 30, size=500)
    bases = [segment.base_offset for segment in partition.segments]
    crash(partition)
    for path in (tmp_path / "t-0").glob("*.seal"):
        path.unlink()
    damaged = segment_path(tmp_path / "t-0", bases[1])
    data = damaged.read_bytes()
    damaged.write_bytes(data[:-1] + b"?")
    again = make_partition(tmp_path / "t-0", segment_bytes=4096)
    assert again.next_offset == bases[2] - 1
    assert again.set_aside == len(bases) - 2
    assert len(list((tmp_path / "t-0").glob("*.cut"))) == len(bases) - 2
    fill(again, 1)
    crash(again)
    assert make_partition(tmp_path / "t-0", segment_bytes=4096).next_offset == bases[2]


def test_an_offset_is_never_given_twice_below_the_log_start(tmp_path: Path) -> None:
    """When the disk lost segments that the catalog knows as deleted, the log goes on at its log start."""
    partition = make_partition(tmp_path / "t-0")
    fill(partition, 3)
    crash(partition)
    again = make_partition(tmp_path / "t-0", log_start_offset=50)
    assert (again.next_offset, again.set_aside) == (50, 1)
    crash(again)
    assert make_partition(tmp_path / "t-0", log_start_offset=50).next_offset == 50


def test_a_seal_left_of_an_earlier_segment_is_not_relied_on(tmp_path: Path) -> None:
    """A new segment never inherits a seal that was written for another file of its name."""
    partition = make_partition(tmp_path / "t-0", segment_bytes=4096)
    fill(partition, 30, size=500)
    second = partition.segments[1]
    stale = second.seal_path.read_bytes()
    crash(partition)
    for path in (tmp_path / "t-0").glob("*"):
        if path.stem != f"{0:020d}":
            path.unlink()
    again = make_partition(tmp_path / "t-0", segment_bytes=4096)
    second.seal_path.write_bytes(stale)
    fill(again, 4, size=700)
    end = again.next_offset
    crash(again)
    found = make_partition(tmp_path / "t-0", segment_bytes=4096)
    assert found.next_offset == end
    assert found.segments[1].next_offset == end
