"""A worker without partitions ends when the group has left some to nobody, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from edge_agent.contract.errors import RetryError, StopError
from stream_jobs.worker.orphans import watch_orphans


def answering(answers: list[set[int] | Exception]) -> Callable[[], set[int]]:
    """One answer after the other, the last for ever."""
    turns: Iterator[set[int] | Exception] = iter(answers)
    last: list[set[int] | Exception] = []

    def unowned() -> set[int]:
        last[:] = [next(turns, last[0] if last else set())]
        if isinstance(last[0], Exception):
            raise last[0]
        return last[0]

    return unowned


def watched(owns_any: bool, answers: list[set[int] | Exception]) -> None:
    """Watch for a while: returns when nothing was found."""

    async def watch() -> None:
        await asyncio.wait_for(watch_orphans(lambda: owns_any, answering(answers), 0.005), 0.3)

    with pytest.raises(TimeoutError):
        asyncio.run(watch())


def test_partitions_that_stay_without_an_owner_end_the_worker() -> None:
    """Two answers in a row name partition 2: the message says which, and what happens next."""
    with pytest.raises(StopError, match=r"partitions \[2\] belong to no worker.*started again"):
        watched(False, [{1, 2}, {2, 3}])


def test_a_spare_worker_waits_without_ending() -> None:
    """More workers than partitions is no fault."""
    watched(False, [set()])


def test_a_rebalance_under_way_and_a_log_that_does_not_answer_are_no_fault() -> None:
    """One answer alone says nothing, nor does an error between two."""
    watched(False, [{1}, set(), {1}, RetryError("the log is away"), {1}, set()])


def test_a_worker_with_partitions_does_not_ask() -> None:
    """Who owns something is not the one to judge the rest."""
    watched(True, [{1}])
