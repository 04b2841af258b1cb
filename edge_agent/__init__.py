"""What runs on a device: functions, spool and uplink, and the contract that the cloud side shares.

For authors of functions:

    from edge_agent import every

    @every(1.0)
    def room():
        return {"temperature_c": 21.5, "humidity_percent": 40}

For their tests: `FunctionKit`. docs/functions.md tells it all.

**Delivery**: rows are promised once the agent's spool has accepted them, see `spool.py`.
**Bounds**: importing this package loads nothing but the standard library; `contract/limits.py` has the numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .functions.api import Message, Readings, every, on_stream, on_topic, readings
    from .testing import FunctionKit

__all__ = ["FunctionKit", "Message", "Readings", "every", "on_stream", "on_topic", "readings"]


def __getattr__(name: str) -> Any:
    """The public names, loaded at first use: the cloud side imports `edge_agent.contract` and needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "FunctionKit":
        from .testing import FunctionKit

        return FunctionKit
    from .functions import api

    return getattr(api, name)
