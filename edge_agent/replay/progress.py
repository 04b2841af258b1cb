"""How far a replay is: a bar on a terminal, a line every few seconds elsewhere; and the rows it could not read.

**Delivery**: none; only for people, on standard error. **Bounds**: at most SHOWN_S between two lines on a terminal,
LINES_S elsewhere; the first UNREADABLE_SHOWN unreadable rows are printed, all are counted.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from typing import TextIO

from edge_agent.contract.clock import Clock

from .source import printable

__all__ = ["Progress"]

SHOWN_S = 0.1
LINES_S = 3.0
UNREADABLE_SHOWN = 20
_BAR_CHARACTERS = 24


class Progress:
    """The display of one run."""

    def __init__(self, name: str, size: int, clock: Clock, stream: TextIO | None = None) -> None:
        self._name = name
        self._size = max(1, size)
        self._clock = clock
        self._stream = sys.stderr if stream is None else stream
        self._bar = self._stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._began_s = clock.monotonic_s()
        self._shown_at_s = self._began_s if not self._bar else -SHOWN_S
        self._drawn = False
        self.rows = 0
        self.end = 0
        self.unreadable = 0

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self._clock.monotonic_s() - self._began_s

    def say(self, text: str) -> None:
        """Print a line; the bar comes back below it."""
        self.clear()
        print(printable(text), file=self._stream, flush=True)

    def clear(self) -> None:
        """Take the bar away."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False

    def put_aside(self, place: str, reason: str) -> None:
        """An unreadable row."""
        self.unreadable += 1
        if self.unreadable <= UNREADABLE_SHOWN:
            self.say(f"{place}: {reason}")
        elif self.unreadable == UNREADABLE_SHOWN + 1:
            self.say("more rows cannot be read; they are counted and go to dead letters like these")

    def tick(self, waiting: Callable[[], tuple[int, str]]) -> None:
        """Show how far it is, when it is time: `waiting` says how many batches wait, and what troubles them."""
        now_s = self._clock.monotonic_s()
        if now_s - self._shown_at_s < (SHOWN_S if self._bar else LINES_S):
            return
        self._shown_at_s = now_s
        text = self._text(*waiting())
        if self._bar:
            self._stream.write(f"\r{text[: shutil.get_terminal_size().columns - 1]}\x1b[K")
            self._stream.flush()
            self._drawn = True
        else:
            print(text, file=self._stream, flush=True)

    def _text(self, batches: int, trouble: str) -> str:
        share = min(1.0, self.end / self._size)
        rate = self.rows / max(self.seconds, 0.001)
        parts = [f"{share:4.0%}", f"{self.rows:,} rows"]
        if not trouble:
            parts.append(f"{rate:,.0f} rows/s")
        if batches:
            parts.append(f"{batches} batches wait")
        if trouble:
            parts.append(trouble)
        text = printable(", ".join(parts))
        if not self._bar:
            return f"{self._name}: {text}"
        if trouble:
            # The line is short: what troubles it is more than the bar.
            return text
        filled = round(share * _BAR_CHARACTERS)
        return f"[{'#' * filled}{'.' * (_BAR_CHARACTERS - filled)}] {text}"
