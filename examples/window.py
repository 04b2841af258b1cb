"""A house's windows: messages of sensors become events, and readings that say how many are open.

Run it:  edgewater agent run examples/window.py --device house --mqtt mqtt://127.0.0.1:1883
Then publish {"open": true} to house/kitchen/window at that broker.
"""

from __future__ import annotations

from typing import Any

from edge_agent import Message, on_stream, on_topic

OPEN: set[str] = set()


@on_topic("house/+/window", stream="windows")
async def window(message: Message) -> dict[str, Any]:
    """One row a message. A payload that is not JSON, or without `open`, is an error of this call alone."""
    room = message.topic.split("/")[1]
    return {"ts": message.time_us, "room": room, "open": bool(message.json()["open"])}


@on_stream("windows")
def open_windows(rows: list[dict[str, Any]]) -> int:
    """A number is a reading named after its function."""
    for row in rows:
        if row["open"]:
            OPEN.add(row["room"])
        else:
            OPEN.discard(row["room"])
    return len(OPEN)
