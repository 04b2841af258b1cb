"""A boiler: a timer that reads sensors, and its alarms as rows of a stream of their own.

Run it:  edgewater agent run examples/boiler.py --device boiler-1 --mqtt mqtt://127.0.0.1:1883
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from edge_agent import every, on_stream

LIMIT_CELSIUS = 80.0


def sensor(seconds: float) -> float:
    """What a thermometer would say: 75 degrees, and 10 up and down within a minute."""
    return 75 + 10 * math.sin(2 * math.pi * seconds / 60)


@every(1)
def boiler() -> dict[str, float]:
    """Each second two readings, stamped with the time of the call."""
    temperature = sensor(time.time())
    return {"temperature": round(temperature, 2), "pressure": round(1 + temperature / 100, 3)}


@dataclass
class Alarm:
    """A row of the stream `alarms`: what its columns are called, and which type they have."""

    sensor: str
    value: float
    text: str


@on_stream("readings", stream="alarms")
def too_hot(rows: list[dict[str, Any]]) -> list[Alarm]:
    """Called with what `boiler` has put into `readings`, once it is safe in the spool."""
    return [
        Alarm("temperature", row["value"], f"above {LIMIT_CELSIUS:g} °C")
        for row in rows
        if row["name"] == "temperature" and row["value"] > LIMIT_CELSIUS
    ]
