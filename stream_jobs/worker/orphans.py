"""Partitions that belong to nobody: a worker without any asks the group, and ends when some are left over.

A group's leader once divided nothing (seen once, after the log and the worker were killed within half a second), and
no member ever asked again. A worker that owns partitions would notice; one that owns none has nothing to notice by.

**Delivery**: ending is harmless: the process is started again, joins anew, and the group divides once more.
**Bounds**: one question every `interval_s`, none while this worker has partitions; two answers in a row must agree.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edge_agent.contract.errors import RetryError, StopError

__all__ = ["watch_orphans"]

_log = logging.getLogger("edgewater.worker")


async def watch_orphans(owns_any: Callable[[], bool], unowned: Callable[[], set[int]], interval_s: float) -> None:
    """Watch until cancelled. StopError when partitions stay without an owner; `unowned` runs in a thread of its own,
    and answers an empty set while the group is being divided."""
    before: set[int] = set()
    while True:
        await asyncio.sleep(interval_s)
        if owns_any():
            before = set()
            continue
        try:
            now = await asyncio.to_thread(unowned)
        except RetryError as error:
            _log.info("who owns which partition is not known: %s", error)
            now = set()
        if before & now:
            raise StopError(
                f"partitions {sorted(before & now)} belong to no worker of the group, and this one has none; "
                "it must be started again, so that the group divides them anew"
            )
        before = now
