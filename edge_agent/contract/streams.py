"""The streams that every deployment knows, with their columns by the contract's type names.

`readings` is the default stream of functions. Rows of `dead_letters` are what a device itself put aside (a line of a
replayed file that cannot be read): they travel like any batch, and land in the table of that name.

**Delivery**: as every batch. **Bounds**: a text of a dead letter is cut to DEAD_LETTER_CHARACTERS_MAX where it is made.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DEAD_LETTERS", "DEAD_LETTER_CHARACTERS_MAX", "DEAD_LETTER_COLUMNS", "READINGS", "READINGS_COLUMNS"]

READINGS = "readings"
READINGS_COLUMNS: Mapping[str, str] = {"ts": "timestamp", "name": "dictionary", "value": "float64"}

DEAD_LETTERS = "dead_letters"
DEAD_LETTER_COLUMNS: Mapping[str, str] = {"ts": "timestamp", "payload": "string", "reason": "string", "place": "string"}
"""`ts`: when it was put aside; `payload`: what could not be read, as text; `place`: where it was, `file.csv:17`."""
DEAD_LETTER_CHARACTERS_MAX = 4000
