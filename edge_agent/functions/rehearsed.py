"""A function file of the simplest kind, which the warm parent runs through before it forks (see `rehearsal.py`).

**Delivery**: its rows go nowhere. **Bounds**: none of its own.
"""

from edge_agent import every


@every(1.0)
def rehearsed() -> dict[str, float]:
    """One reading."""
    return {"value": 1.0}
