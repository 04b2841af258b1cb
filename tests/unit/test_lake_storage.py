"""The local directory as storage: a name appears whole, once, and to one creator."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from edge_agent.contract.errors import RetryError
from lake import layout
from lake.storage import DirectoryStorage


@pytest.fixture
def storage(tmp_path: Path) -> DirectoryStorage:
    """An empty lake's folders."""
    made = DirectoryStorage(tmp_path / "lake")
    made.make_folders()
    return made


def test_create_is_true_once(storage: DirectoryStorage) -> None:
    """The second creator hears that somebody was first, and the content stays the first's."""
    assert storage.create("transactions/x.json", b"first", "test")
    assert not storage.create("transactions/x.json", b"second", "test")
    assert storage.read("transactions/x.json") == b"first"
    assert storage.list(layout.STAGING) == []


def test_of_many_threads_one_creates(storage: DirectoryStorage) -> None:
    """32 threads create each of 20 names: each name has one creator, and that one's content."""
    threads = 32
    won: list[list[int]] = [[] for _ in range(20)]
    gate = threading.Barrier(threads)

    def run(me: int) -> None:
        for number in range(20):
            gate.wait()
            if storage.create(f"transactions/{number}", b"%d" % me, "test"):
                won[number].append(me)

    running = [threading.Thread(target=run, args=(me,)) for me in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert all(len(winners) == 1 for winners in won)
    assert [storage.read(f"transactions/{number}") for number in range(20)] == [b"%d" % w for (w,) in won]


def test_what_is_not_there_is_none(storage: DirectoryStorage) -> None:
    """Reading, measuring, listing and deleting nothing is no error."""
    assert storage.read("transactions/none") is None
    assert storage.size("transactions/none") is None
    assert storage.list("no/such/folder") == []
    storage.delete("transactions/none")


def test_a_data_file_is_made_once_with_its_folders(storage: DirectoryStorage) -> None:
    """A final name is never opened twice: two writers cannot mix in one file."""
    path = "tables/new/file.parquet"
    with storage.open_output(path) as output:
        output.write(b"data")
    storage.sync_files([path])
    assert storage.size(path) == 4
    with pytest.raises(RetryError, match=r"writing tables/new/file\.parquet"):
        storage.open_output(path)


def test_a_full_disk_says_what_to_do(storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space is an error to retry, with the next step, and nothing is published."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RetryError, match="free some space on the lake's disk"):
        storage.create("transactions/x.json", b"content", "test")
    assert storage.read("transactions/x.json") is None
    assert storage.list(layout.STAGING) == []
