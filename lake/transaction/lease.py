"""Who applies decisions: when a lease may be taken from its holder, judged from outside.

The fold makes a lease safe: a publication under an older one is void, and each table's Delta log takes an application's
transaction once. What is decided here is only how soon somebody else goes on, so clocks may be wrong without harm.

**Delivery**: nothing depends on this module being right. **Bounds**: a holder that shows no sign of life (a lease or a
publication) for the lease's duration loses it; one that is seen to be dead at the same place loses it at once.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent.contract.clock import Clock
from lake.transaction.fold import LeaseState

__all__ = ["LEASE_DURATION_MS", "LeaseWatch", "own_place", "own_process", "process_is_gone"]

LEASE_DURATION_MS = 10_000


def _line(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def own_place() -> str:
    """What processes that can see each other share: boot id and process id namespace; empty where it is not known."""
    boot = _line("/proc/sys/kernel/random/boot_id")
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return f"{boot} {namespace}" if boot else ""


def _started(process: int) -> str:
    """Start time of a process in clock ticks since boot (proc(5), field 22), so that a reused id is seen as another."""
    stat = _line(f"/proc/{process}/stat")
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return ""
    return fields[19]


def own_process() -> str:
    """This process: `<id> <start time>`."""
    return f"{os.getpid()} {_started(os.getpid())}"


def process_is_gone(place: str, process: str) -> bool:
    """Whether a process of this very place is surely not running any more."""
    if not place or place != own_place():
        return False
    identifier, _, started = process.partition(" ")
    return identifier.isdecimal() and bool(started) and _started(int(identifier)) != started


class LeaseWatch:
    """Watches the present lease by the own monotonic clock, counted from when each sign of life was first seen."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sign: tuple[int, int] | None = None
        self._seen_s = 0.0

    def free(self, state: LeaseState | None) -> bool:
        """Whether the lease may be taken now."""
        if state is None or state.lease.duration_ms == 0:
            return True
        if process_is_gone(state.lease.place, state.lease.process):
            return True
        duration_s = state.lease.duration_ms / 1000
        sign = (state.number, state.sign_number)
        if sign != self._sign:
            first = self._sign is None
            self._sign, self._seen_s = sign, self._clock.monotonic_s()
            # Only at first sight is the age taken from the wall clocks, so that a lake left alone opens at once.
            return first and self._clock.time_us() - state.sign_us > duration_s * 1e6
        return self._clock.monotonic_s() - self._seen_s > duration_s
