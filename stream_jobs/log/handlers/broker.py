"""What every handler works on: the store, the groups, the node's own address, the settings, the clock.

**Delivery** and **Bounds**: those of the parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from edge_agent.contract.clock import Clock
from stream_jobs.log.codec import Request
from stream_jobs.log.coordinator import Coordinator
from stream_jobs.log.settings import LogSettings
from stream_jobs.log.store import Store

__all__ = ["LEADER_EPOCH", "NODE_ID", "Answer", "Broker", "Handler"]

NODE_ID = 0
LEADER_EPOCH = 0


@dataclass
class Broker:
    """One node, which leads everything and coordinates all groups; `host` and `port` are what clients are told."""

    settings: LogSettings
    store: Store
    coordinator: Coordinator
    clock: Clock
    loop: asyncio.AbstractEventLoop
    host: str
    port: int

    def now_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return self.clock.time_us() // 1000


Answer = Any
"""A response message; None where the protocol has no answer; or an awaitable of one."""

Handler = Callable[[Broker, Request], Answer | Awaitable[Answer]]
