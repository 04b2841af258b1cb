"""Where things belong: device -> shard by a fixed hash, shard -> owner by consistent hashing.

The ring is Karger's consistent hashing with virtual nodes: each member owns points on a circle of 2^64, in
proportion to its weight, and a key belongs to the member of the next point. Adding one of n equal members
moves about 1/n of the keys, all of them to the new member. Only hashes of the names decide, so every
process, Python version and machine computes the same.

**Delivery**: pure. **Bounds**: 1 to 4096 members, weights from 0 (owns nothing) to 1000.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Mapping

from . import limits
from .errors import RejectError, quoted

__all__ = ["Ring", "shard_of", "shard_table"]

_VIRTUAL_NODES = 128
_MEMBERS_MAX = 4096
_WEIGHT_MAX = 1000.0


def _point(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def shard_of(device: str) -> int:
    """The device's shard, 0 to SHARDS - 1, for the life of a deployment."""
    return _point(device) % limits.SHARDS


class Ring:
    """A consistent-hash ring over `members`: name -> weight (1.0 is one share)."""

    def __init__(self, members: Mapping[str, float], virtual_nodes: int = _VIRTUAL_NODES) -> None:
        if not 1 <= len(members) <= _MEMBERS_MAX:
            raise RejectError(f"a ring has 1 to {_MEMBERS_MAX} members, not {len(members)}")
        points: list[tuple[int, str]] = []
        for name, weight in members.items():
            if not 0 <= weight <= _WEIGHT_MAX:
                raise RejectError(f"weight {weight} of {quoted(name)} is outside 0 to {_WEIGHT_MAX:g}")
            points += [(_point(f"{name}#{index}"), name) for index in range(round(virtual_nodes * weight))]
        if not points:
            raise RejectError("every member of the ring has weight 0; give at least one a weight above 0")
        points.sort()
        self._points = [point for point, _ in points]
        self._owners = [name for _, name in points]

    def owner(self, key: str) -> str:
        """The member that owns `key`."""
        index = bisect.bisect_right(self._points, _point(key))
        return self._owners[index % len(self._owners)]


def shard_table(members: Mapping[str, float]) -> tuple[str, ...]:
    """The owner of each shard, indexed by shard."""
    ring = Ring(members)
    return tuple(ring.owner(f"shard-{shard}") for shard in range(limits.SHARDS))
