"""Which broker to try next, and when: a balancing strategy, a rest for brokers that failed, back-off with full jitter.

Full jitter: a random pause of 0 to min(PAUSE_MAX_S, PAUSE_MIN_S * 2^failures), see "Exponential Backoff And Jitter",
AWS Architecture Blog, 2015; so that a thousand agents do not come back in one moment.

**Delivery**: pure, apart from the random generator given to it. **Bounds**: a pause of at most PAUSE_MAX_S; a broker
rests for EXCLUDED_S, unless all of them do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from edge_agent.contract.balancing import Endpoint, balancer

__all__ = ["Reconnect", "jittered_pause_s"]

PAUSE_MIN_S = 0.2
PAUSE_MAX_S = 30.0
EXCLUDED_S = 30.0


def jittered_pause_s(failures: int, generator: random.Random) -> float:
    """How long to wait after so many failures in a row: 0 s to PAUSE_MAX_S."""
    return generator.uniform(0.0, min(PAUSE_MAX_S, PAUSE_MIN_S * 2 ** min(failures, 16)))


class Reconnect:
    """Choices of one agent among its brokers."""

    def __init__(self, endpoints: Sequence[Endpoint], strategy: str, generator: random.Random) -> None:
        self._balancer = balancer(strategy, endpoints, generator)
        self._random = generator
        self._failures = 0
        self._excluded_until_s: dict[str, float] = {}
        self.next_at_s = 0.0

    def choose(self, now_s: float) -> str:
        """The URL to connect to now."""
        excluded = {url for url, until_s in self._excluded_until_s.items() if until_s > now_s}
        return self._balancer.pick(excluded).url

    def failed(self, url: str, now_s: float) -> None:
        """The connection to `url` failed or ended; the next try is not before `next_at_s`."""
        self._failures += 1
        self._excluded_until_s[url] = now_s + EXCLUDED_S
        self.next_at_s = now_s + jittered_pause_s(self._failures, self._random)

    def succeeded(self, url: str) -> None:
        """A bridge answered through `url`."""
        self._failures = 0
        self._excluded_until_s.pop(url, None)
