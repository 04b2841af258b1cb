"""The sections of a settings file, and where each one's settings are declared.

The rooms are named as text: who reads the settings of one of them imports nothing of the others.

**Delivery**: fixed for a release. **Bounds**: as listed.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["SECTIONS", "nearest", "unknown_section"]

SECTIONS = {
    "agent": "edge_agent.agent_settings:AgentSettings",
    "mqtt": "deploy.mqtt_settings:MqttSettings",
    "log": "stream_jobs.log.settings:LogSettings",
    "bridge": "stream_jobs.bridge.settings:BridgeSettings",
    "worker": "stream_jobs.worker.settings:WorkerSettings",
    "mosquitto": "deploy.mosquitto:MosquittoSettings",
    "kafka": "deploy.kafka.cluster:KafkaSettings",
}
"""Section -> module:class of its settings, in the order in which rows pass them."""

TABLES = ("jobs", "mapping", "mappings", "up")
"""Further tables of a settings file, whose parts read them in their own way."""


def nearest(name: str, known: Iterable[str], otherwise: str = "known are") -> str:
    """`did you mean x?`, or all known ones where none is near."""
    names = list(known)
    near = difflib.get_close_matches(name.lower(), names, n=1)
    return f"did you mean {near[0]}?" if near else f"{otherwise} {', '.join(names)}"


def unknown_section(name: str, loaded: str) -> str | None:
    """What to say of a section that does not exist; None when it does, or is the one being loaded."""
    if name in SECTIONS or name in TABLES or name == loaded:
        return None
    return nearest(name, sorted({*SECTIONS, *TABLES, loaded}), "sections are")
