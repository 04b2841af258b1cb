"""The rows of `dead_letters` and `skipped`: what could not land, and what will never come.

**Delivery**: appended in the same transaction as the offsets, so each appears exactly once.
**Bounds**: a dead letter holds its whole message (at most LOG_RECORD_BYTES_MAX) and a bounded reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from edge_agent.contract.wire import Kind
from lake import schema

from .decoding import DeadLetter, SkippedRows

__all__ = ["DEAD_LETTERS", "SKIPPED", "dead_letter_rows", "skipped_rows"]

DEAD_LETTERS = "dead_letters"
SKIPPED = "skipped"


def dead_letter_rows(letters: Sequence[DeadLetter]) -> Any:
    """One row a dead letter, in the columns of the lake's table."""
    headers = [letter.header for letter in letters]
    columns = {
        "payload": [letter.record.value if letter.payload is None else letter.payload for letter in letters],
        "reason": [_text(letter.reason) for letter in letters],
        "topic": [_text(letter.topic) for letter in letters],
        "partition": [letter.record.partition for letter in letters],
        "offset": [letter.record.offset for letter in letters],
        "device": [None if header is None else header.device for header in headers],
        "epoch": [None if header is None else header.epoch for header in headers],
        "seq": [None if header is None else header.seq_first for header in headers],
        "received_at": [letter.record.append_time_ms * 1000 for letter in letters],
        "job": [letter.job for letter in letters],
    }
    return pa.table(columns, schema=schema.DEAD_LETTERS)


def skipped_rows(entries: Sequence[SkippedRows]) -> Any:
    """One row for each stream of each skip record."""
    assert all(entry.header.kind is Kind.SKIP for entry in entries)
    return pa.table(
        {
            "device": [entry.header.device for entry in entries],
            "epoch": [entry.header.epoch for entry in entries],
            "seq_first": [entry.seq_first for entry in entries],
            "seq_last": [entry.seq_last for entry in entries],
            "stream": [entry.stream for entry in entries],
            "rows": [entry.rows for entry in entries],
            "reason": [entry.header.reason.name.lower() for entry in entries],
            "received_at": [entry.received_at_us for entry in entries],
        },
        schema=schema.SKIPPED,
    )


def _text(reason: str) -> str:
    """A traceback may quote anything, also text that is not UTF-8."""
    return reason.encode("utf-8", "backslashreplace").decode()
