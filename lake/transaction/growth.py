"""How a table's columns may grow: new ones at the end, nothing else.

The fold would also widen a type (`fold.merged_schema`), which plain Delta readers of the older files do not follow. So
a writer refuses its own decision when it would do more than add; since a decision is held against the very state that
it is going to be folded on, two writers that add columns at once both add, or one of them is refused.

**Delivery**: pure. **Bounds**: `COLUMNS_MAX` columns a table.
"""

from __future__ import annotations

from lake.transaction.fold import Fold, merged_schema
from lake.transaction.records import Column, Decision

__all__ = ["COLUMNS_MAX", "grown", "grows_only"]

COLUMNS_MAX = 1000


def grown(present: tuple[Column, ...], proposed: tuple[Column, ...]) -> tuple[Column, ...] | None:
    """`present`, then those of `proposed` that are new; None when that is not all `proposed` would change, when two
    names differ in upper and lower case only, or when there are too many."""
    merged = merged_schema(present, proposed)
    if merged is None or merged[: len(present)] != present or len(merged) > COLUMNS_MAX:
        return None
    types = {column.name: column.type for column in merged}
    if any(types[column.name] != column.type for column in proposed):
        return None
    return merged if len({name.lower() for name in types}) == len(types) else None


def grows_only(fold: Fold, decision: Decision) -> bool:
    """Whether `decision`, folded next, adds columns to its tables at most."""
    for name, change in decision.changes.items():
        table = fold.tables.get(name)
        if change.schema is not None and grown(table.schema if table else (), change.schema) is None:
            return False
    return True
