"""Rows of one device on their way into its spool: gathered until there are enough for a batch, then one unit.

A unit is everything that is accepted together: batches of `readings`, one of `dead_letters`, and the position behind
the last of its rows.

**Delivery**: see `position.py`. **Bounds**: a unit is full at READINGS_FULL readings, LETTERS_FULL dead letters or
LETTER_CHARACTERS_FULL characters of them; batches have at most READINGS_MAX readings.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from edge_agent.contract import columns, limits, wire
from edge_agent.contract.streams import DEAD_LETTER_CHARACTERS_MAX, DEAD_LETTERS, READINGS
from edge_agent.spool import NewBatch

__all__ = ["Gathering"]

READINGS_FULL = 8192
READINGS_MAX = 16_384
LETTERS_FULL = 256
LETTER_CHARACTERS_FULL = 64 * limits.KIB
FUNCTION = "replay"
# The largest batch, uncompressed, with names of rows.NAMES_BYTES_MAX.
assert READINGS_MAX * (8 + 8 + 4) + 128 * limits.KIB < limits.BATCH_BYTES_MAX
# A dead letter's payload and reason in UTF-8, with the last one gathered.
assert 4 * (LETTER_CHARACTERS_FULL + 3 * DEAD_LETTER_CHARACTERS_MAX) < limits.BATCH_BYTES_MAX


class Gathering:
    """What was gathered of one device since its last unit."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._typecode = "B" if len(names) <= 256 else "h" if len(names) <= 32_768 else "i"
        self._all_codes = array(self._typecode, range(len(names)))
        self._clear()

    def _clear(self) -> None:
        self._ts = array("q")
        self._codes = array(self._typecode)
        self._values = array("d")
        self._letters: list[tuple[int, str, str, str]] = []
        self._characters = 0

    def __bool__(self) -> bool:
        return bool(self._ts) or bool(self._letters)

    @property
    def full(self) -> bool:
        """Whether it is time for a unit."""
        return (
            len(self._ts) >= READINGS_FULL
            or len(self._letters) >= LETTERS_FULL
            or self._characters >= LETTER_CHARACTERS_FULL
        )

    def add(self, ts_us: int, values: Sequence[float | None]) -> int:
        """Add a row; the number of its readings."""
        if None not in values:
            self._codes.extend(self._all_codes)
            self._values.extend(values)  # type: ignore[arg-type]  # no None among them
            self._ts.extend([ts_us] * len(values))
            return len(values)
        there = [(code, value) for code, value in enumerate(values) if value is not None]
        self._codes.extend([code for code, _ in there])
        self._values.extend([value for _, value in there])
        self._ts.extend([ts_us] * len(there))
        return len(there)

    def put_aside(self, ts_us: int, payload: str, reason: str, place: str) -> None:
        """Add a dead letter."""
        reason = reason[:DEAD_LETTER_CHARACTERS_MAX]
        self._letters.append((ts_us, payload, reason, place[-DEAD_LETTER_CHARACTERS_MAX:]))
        self._characters += len(payload) + len(reason)

    def take(self) -> list[NewBatch]:
        """The batches of a unit, in order; nothing is gathered afterwards."""
        batches = []
        for start in range(0, len(self._ts), READINGS_MAX):
            part = slice(start, start + READINGS_MAX)
            body = wire.encode_columns(
                [
                    columns.timestamps("ts", self._ts[part]),
                    columns.dictionary("name", self._codes[part], self._names),
                    columns.floats("value", self._values[part]),
                ]
            )
            batches.append(NewBatch(READINGS, len(self._ts[part]), body, FUNCTION))
        if self._letters:
            times, payloads, reasons, places = zip(*self._letters, strict=True)
            body = wire.encode_columns(
                [
                    columns.timestamps("ts", times),
                    columns.strings("payload", payloads),
                    columns.strings("reason", reasons),
                    columns.strings("place", places),
                ]
            )
            batches.append(NewBatch(DEAD_LETTERS, len(times), body, FUNCTION))
        self._clear()
        return batches
