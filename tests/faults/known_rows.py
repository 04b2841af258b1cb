"""A device function with known rows: two series whose row n is n and n / 7, whatever is killed around it.

**Delivery**: what the spool accepted of it is in the spool's ledger. **Bounds**: ROWS rows a call, ten calls a second.
"""

from __future__ import annotations

import itertools
import os

from edge_agent import every

ROWS = int(os.environ.get("KNOWN_ROWS", "20"))
_numbers = itertools.count()


@every(0.1)
def known() -> list[tuple[str, float]]:
    """ROWS readings in two series."""
    return [("counter" if n % 2 else "wave", float(n) if n % 2 else n / 7) for n in itertools.islice(_numbers, ROWS)]
