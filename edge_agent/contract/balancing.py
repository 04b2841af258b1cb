"""Choosing one of several endpoints: random, round-robin, weighted.

The agent chooses its MQTT broker with these. A strategy sees only weights and its own past choices; who is
down is the caller's knowledge, given as `excluded`. Weighted is nginx's smooth weighted round-robin: of
weights 5, 1, 1 it makes a a b a c a a, never five of one in a row when others wait.

**Delivery**: pure, apart from the random generator given to it. **Bounds**: 1 to 64 endpoints.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from .errors import RejectError, SettingsError, quoted

__all__ = [
    "STRATEGIES",
    "Balancer",
    "Endpoint",
    "RandomChoice",
    "RoundRobin",
    "Weighted",
    "balancer",
    "parse_endpoints",
]

STRATEGIES = ("random", "round-robin", "weighted")
_ENDPOINTS_MAX = 64


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to connect, and its share (1.0 is one share; 0 means: only when no other is left)."""

    url: str
    weight: float = 1.0


class Balancer(Protocol):
    """One strategy over fixed endpoints."""

    def pick(self, excluded: AbstractSet[str] = frozenset()) -> Endpoint:
        """An endpoint whose url is not in `excluded`; when all are excluded, one of all."""
        ...


def _candidates(endpoints: Sequence[Endpoint], excluded: AbstractSet[str]) -> list[Endpoint]:
    return [endpoint for endpoint in endpoints if endpoint.url not in excluded] or list(endpoints)


class RandomChoice:
    """Each pick independent and uniform."""

    def __init__(self, endpoints: Sequence[Endpoint], generator: random.Random) -> None:
        self._endpoints = tuple(endpoints)
        self._generator = generator

    def pick(self, excluded: AbstractSet[str] = frozenset()) -> Endpoint:
        return self._generator.choice(_candidates(self._endpoints, excluded))


class RoundRobin:
    """One after the other, from a random start, so that a thousand agents do not all begin at the first."""

    def __init__(self, endpoints: Sequence[Endpoint], generator: random.Random) -> None:
        self._endpoints = tuple(endpoints)
        self._next = generator.randrange(len(self._endpoints))

    def pick(self, excluded: AbstractSet[str] = frozenset()) -> Endpoint:
        allowed = _candidates(self._endpoints, excluded)
        while True:
            chosen = self._endpoints[self._next % len(self._endpoints)]
            self._next += 1
            if chosen in allowed:
                return chosen


class Weighted:
    """Smooth weighted round-robin, from a random start."""

    def __init__(self, endpoints: Sequence[Endpoint], generator: random.Random) -> None:
        self._endpoints = tuple(endpoints)
        self._credit = {endpoint.url: generator.random() * endpoint.weight for endpoint in self._endpoints}

    def pick(self, excluded: AbstractSet[str] = frozenset()) -> Endpoint:
        allowed = _candidates(self._endpoints, excluded)
        for endpoint in allowed:
            self._credit[endpoint.url] += endpoint.weight
        chosen = max(allowed, key=lambda endpoint: self._credit[endpoint.url])
        self._credit[chosen.url] -= sum(endpoint.weight for endpoint in allowed)
        return chosen


def balancer(strategy: str, endpoints: Sequence[Endpoint], generator: random.Random) -> Balancer:
    """The strategy named `strategy`, one of STRATEGIES, over `endpoints`."""
    if not 1 <= len(endpoints) <= _ENDPOINTS_MAX:
        raise SettingsError(f"{len(endpoints)} endpoints given; give 1 to {_ENDPOINTS_MAX}")
    if len({endpoint.url for endpoint in endpoints}) != len(endpoints):
        raise SettingsError("an endpoint is given twice; use weights to give one a larger share")
    if strategy == "random":
        return RandomChoice(endpoints, generator)
    if strategy == "round-robin":
        return RoundRobin(endpoints, generator)
    if strategy == "weighted":
        return Weighted(endpoints, generator)
    raise SettingsError(f"balancing strategy {quoted(strategy)} is unknown; use one of {', '.join(STRATEGIES)}")


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """`url[;weight=N][,url...]` as endpoints; RejectError names what is wrong."""
    endpoints = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        url, _, option = part.partition(";")
        weight = 1.0
        if option:
            name, _, number = option.partition("=")
            try:
                weight = float(number)
            except ValueError:
                weight = -1.0
            if name.strip() != "weight" or not 0 <= weight <= 1000:
                raise RejectError(
                    f"endpoint option {quoted(option)} is unknown; write url;weight=N with N from 0 to 1000"
                )
        endpoints.append(Endpoint(url.strip(), weight))
    return tuple(endpoints)
