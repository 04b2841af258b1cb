"""Alarms that parts keep in their status files: read as one kind, and told once each.

**Delivery**: a part keeps its last few alarms; of more that came between two looks only the count is known.
**Bounds**: what the parts' own files hold (ALARMS_MAX each).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Alarm", "AlarmWatch", "alarms_of"]


@dataclass(frozen=True, slots=True)
class Alarm:
    """What a part wants a person to know; `at_s` in Unix seconds, None when the part does not say."""

    part: str
    text: str
    at_s: float | None


def alarms_of(part: str, document: Mapping[str, Any]) -> list[Alarm]:
    """The alarms in a status file, oldest first; what is none is left out."""
    found = []
    alarms = document.get("alarms")
    for entry in alarms if isinstance(alarms, list) else ():
        if isinstance(entry, str):
            found.append(Alarm(part, entry, None))
        elif isinstance(entry, dict) and isinstance(entry.get("text"), str):
            at = entry.get("at")
            found.append(Alarm(part, entry["text"], float(at) if isinstance(at, int | float) else None))
    return found


class AlarmWatch:
    """Says which alarms are new since the last look."""

    def __init__(self) -> None:
        self._counted: dict[str, tuple[object, int]] = {}

    def new(self, part: str, document: Mapping[str, Any]) -> list[Alarm]:
        """The alarms of `part` that came since the last call for it; after a restart its count begins anew."""
        alarms = alarms_of(part, document)
        pid = document.get("pid")
        count = document.get("alarm_count")
        total = count if isinstance(count, int) else len(alarms)
        before_pid, before = self._counted.get(part, (pid, 0))
        self._counted[part] = (pid, total)
        fresh = total - (before if before_pid == pid else 0)
        return alarms[-fresh:] if fresh > 0 else []
