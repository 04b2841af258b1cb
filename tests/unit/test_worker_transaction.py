"""A transaction is repeated while the lake cannot, and given up when nobody waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from edge_agent.contract.errors import FencedError, RetryError
from edge_agent.contract.fold import PartitionFold
from stream_jobs.worker.recovery import Partition
from stream_jobs.worker.steps import Phases
from stream_jobs.worker.transaction import GivenUpError, commit, repeated
from tests.kit.worker_world import ALL_MINE, Link, MemoryLake


def once(action: Callable[[], Any]) -> Any:
    """No repetition."""
    return action()


def partition(offset: int = 5, origin: int = 0) -> Partition:
    """A partition at `offset`."""
    found = Partition(0, PartitionFold(0, ALL_MINE), origin, "t", 9)
    found.fold.next_offset = offset
    return found


def test_a_commit_moves_the_chain() -> None:
    """The link has the origin, the next offset, the last record's checksum and the fold; then this is the origin."""
    lake, mine = MemoryLake(), partition()
    number = commit(lake, {}, [mine], job="j", phases=Phases(), retry=once, link=Link)
    head = lake.chain("j", 0)
    assert head is not None
    assert (head.transaction, head.offset, head.topic_id, head.last_record_crc) == (number, 5, "t", 9)
    assert PartitionFold.from_bytes(head.state).next_offset == 5
    assert mine.origin == number
    mine.fold.next_offset = 8
    assert commit(lake, {}, [mine], job="j", phases=Phases(), retry=once, link=Link) == number + 1


def test_an_old_origin_is_fenced() -> None:
    """Who works on a state that is not the chain's last changes nothing."""
    lake = MemoryLake()
    for origin in (0, 1):
        commit(lake, {}, [partition(5 + origin, origin)], job="j", phases=Phases(), retry=once, link=Link)
    with pytest.raises(FencedError):
        commit(lake, {}, [partition(9, 1)], job="j", phases=Phases(), retry=once, link=Link)
    assert lake.transactions == 2


def test_repeated_until_it_works() -> None:
    """RetryErrors are reported and repeated after a pause that a wake-up shortens; success reports an empty text."""
    told: list[str] = []
    woken = threading.Event()

    def action() -> int:
        woken.set()
        if len(told) < 3:
            raise RetryError(f"full {len(told)}")
        return 42

    started = time.monotonic()
    assert repeated(action, lambda: False, woken, told.append) == 42
    assert told == ["full 0", "full 1", "full 2", ""]
    assert time.monotonic() - started < 0.5


def test_given_up() -> None:
    """As soon as nobody waits, the repetition ends with GivenUpError."""
    woken = threading.Event()

    def action() -> int:
        raise RetryError("full")

    with pytest.raises(GivenUpError, match="full"):
        repeated(action, lambda: True, woken, lambda _: None)
