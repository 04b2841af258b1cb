"""One step's transaction: prepared, decided, and repeated while the lake cannot, until it can or nobody waits for it.

**Delivery**: the decision is the commit point. Preparing again after an error leaves an orphan; deciding again what was
decided is recognised by the lake. A partition's chain makes a worker void (FencedError) that works on an old state.
**Bounds**: pauses between tries grow from RETRY_FIRST_S to RETRY_MOST_S; `given_up` ends the waiting at any moment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import RetryError

from .recovery import Partition
from .steps import Phases

__all__ = ["GivenUpError", "LakeView", "commit", "repeated"]

RETRY_FIRST_S = 0.1
RETRY_MOST_S = 5.0

T = TypeVar("T")


class GivenUpError(RetryError):
    """Nobody waits for this transaction any more: the partitions were taken away, or the worker ends."""


class LakeView(Protocol):
    """What the worker needs of `lake.Lake`."""

    def chain(self, job: str, partition: int) -> Any: ...

    def prepare(self, appends: Mapping[str, Any], links: Sequence[Any]) -> Any: ...

    def decide(self, prepared: Any) -> int: ...

    def apply(self) -> int: ...

    def close(self) -> None: ...


def repeated(
    action: Callable[[], T], given_up: Callable[[], bool], woken: threading.Event, report: Callable[[str], None]
) -> T:
    """`action()`, again after a pause while it raises RetryError; GivenUpError once `given_up()`.

    `report` gets each error's text, and an empty one when it went through. `woken` ends a pause early.
    """
    pause_s = RETRY_FIRST_S
    while True:
        try:
            result = action()
        except RetryError as error:
            report(str(error))
            if given_up():
                raise GivenUpError(f"given up: {error}") from None
            woken.wait(pause_s)
            woken.clear()
            if given_up():
                raise GivenUpError(f"given up: {error}") from None
            pause_s = min(pause_s * 2, RETRY_MOST_S)
        else:
            report("")
            return result


def commit(
    lake: LakeView,
    appends: Mapping[str, Any],
    partitions: Iterable[Partition],
    *,
    job: str,
    phases: Phases,
    retry: Callable[[Callable[[], Any]], Any],
    link: Callable[..., Any],
) -> int:
    """Prepare and decide one transaction that moves `partitions` to where their folds are; its number.

    `link` makes the lake's Link from keywords. Afterwards each partition's origin is the new transaction.
    """
    moved = list(partitions)
    with phases.timed("state"):
        links = [
            link(
                job=job,
                partition=partition.number,
                origin_transaction=partition.origin,
                offset=partition.offset,
                topic_id=partition.topic_id,
                last_record_crc=partition.last_crc,
                state=partition.fold.to_bytes(),
            )
            for partition in moved
        ]
    with phases.timed("parquet"):
        prepared = retry(lambda: lake.prepare(appends, links))
    crash_point("worker.decide.before")
    with phases.timed("decide"):
        transaction: int = retry(lambda: lake.decide(prepared))
    crash_point("worker.decide.after")
    for partition in moved:
        partition.origin = transaction
    return transaction
