"""The lake: Delta tables that change together, one transaction log that says when, and SQL over snapshots.

**Delivery** and **Bounds**: see `lake.handle`. What is exported is loaded at first use, so that the command line can
describe itself without pyarrow, deltalake and duckdb.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lake.handle import ChainHead, Lake, open  # noqa: A004 - read as `lake.open`, as in the standard library
    from lake.result import Result
    from lake.snapshot import Snapshot, Table
    from lake.staging import Link, Prepared

__all__ = ["ChainHead", "Lake", "Link", "Prepared", "Result", "Snapshot", "Table", "open"]

_MODULES = {
    "ChainHead": "handle",
    "Lake": "handle",
    "Link": "staging",
    "Prepared": "staging",
    "Result": "result",
    "Snapshot": "snapshot",
    "Table": "snapshot",
    "open": "handle",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"lake.{_MODULES[name]}"), name)
