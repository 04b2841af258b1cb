"""What the bridge counts and reports: counters since its start, and alarms for people.

**Delivery**: a hint, gone with the process; what must last is in the log. **Bounds**: ALARMS_MAX alarms kept.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Tally"]

_log = logging.getLogger(__name__)

ALARMS_MAX = 20


@dataclass
class Tally:
    """Counters since the process started."""

    received: int = 0
    """Messages taken from MQTT, hellos and reports included."""
    hellos: int = 0
    reports: int = 0
    reports_refused: int = 0
    """Reports that this bridge cannot read."""
    appended: int = 0
    """Appends handed to the producer."""
    durable_batches: int = 0
    durable_rows: int = 0
    duplicates: int = 0
    gaps: int = 0
    void: int = 0
    refused: int = 0
    """Messages that came while there was no room or the partition was being taken up."""
    lost_records: int = 0
    dead_letters: int = 0
    """Payloads put aside, durable in the log."""
    dead_letters_dropped: int = 0
    """Payloads that came faster than they may be put aside."""
    failed_appends: int = 0
    read_back: int = 0
    """Records of others (or of answers that got lost) read from the log."""
    watermarks: int = 0
    checkpoints: int = 0
    reloads: int = 0
    alarm_count: int = 0
    alarms: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=ALARMS_MAX))

    def alarm(self, text: str, time_s: float) -> None:
        """Something a person should look at."""
        _log.error("ALARM %s", text)
        self.alarm_count += 1
        self.alarms.append((time_s, text))

    def fields(self) -> dict[str, Any]:
        """As JSON values, for the status file."""
        return {**asdict(self), "alarms": [{"at": at, "text": text} for at, text in self.alarms]}
