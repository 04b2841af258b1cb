"""The demo's live display: five numbers on their way from the spool to the lake.

In a terminal the lines are drawn anew in place; elsewhere a line is printed every few seconds. NO_COLOR and
TERM=dumb are respected.

**Delivery**: reads status files only; a part that is being started again shows as such.
**Bounds**: a fixed number of lines.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from typing import TextIO

__all__ = ["Display", "Progress"]

_PLAIN_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """Rows at each stage, and how old the newest rows in the lake are."""

    accepted: int
    sent: int
    durable: int
    landed: int
    freshness_p50_s: float | None
    freshness_p99_s: float | None
    note: str = ""


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


class Display:
    """Draws `Progress`; `close()` leaves the cursor below it."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._live = self._out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._colour = self._live and "NO_COLOR" not in os.environ
        self._drawn = 0
        self._plain_at = 0.0
        self._started_at = time.monotonic()

    def _bar(self, rows: int, whole: int, width: int = 32) -> str:
        filled = round(width * min(1.0, rows / whole)) if whole else 0
        bar = "█" * filled + "·" * (width - filled)
        return f"\x1b[32m{bar}\x1b[0m" if self._colour else bar

    def show(self, progress: Progress, *, final: bool = False) -> None:
        """Draw the numbers (not more often than makes sense where they cannot be drawn in place)."""
        elapsed_s = time.monotonic() - self._started_at
        if not self._live:
            if final or time.monotonic() >= self._plain_at:
                self._plain_at = time.monotonic() + _PLAIN_INTERVAL_S
                print(
                    f"{elapsed_s:5.1f} s  accepted {progress.accepted}  sent {progress.sent}  durable "
                    f"{progress.durable}  landed {progress.landed}  freshness p50 {_seconds(progress.freshness_p50_s)} "
                    f"p99 {_seconds(progress.freshness_p99_s)}  {progress.note}".rstrip(),
                    file=self._out,
                    flush=True,
                )
            return
        lines = [f"  {elapsed_s:5.1f} s  {progress.note}"]
        for label, rows in (
            ("accepted by the spool", progress.accepted),
            ("sent over MQTT", progress.sent),
            ("durable in the log", progress.durable),
            ("landed in the lake", progress.landed),
        ):
            lines.append(f"  {label:<22} {rows:>9,}  {self._bar(rows, progress.accepted)}")
        lines.append(
            f"  {'freshness':<22} p50 {_seconds(progress.freshness_p50_s)}, p99 {_seconds(progress.freshness_p99_s)}"
            "  (from the measurement to a query's answer)"
        )
        if self._drawn:
            self._out.write(f"\x1b[{self._drawn}A")
        self._out.write("".join(f"\x1b[2K{line}\n" for line in lines))
        self._out.flush()
        self._drawn = len(lines)
