"""Holds a lake against the ledgers of the devices that fed it, row by row.

A ledger is what a spool accepted, kept in the spool's own transaction (setting `agent.ledger`). Each row of it,
by identity (device, epoch, seq, row) and by values (ts, name, value), must be in the lake's `readings` exactly
once, unless a skip record says that its seq was dropped. Nothing else of these devices may be there.

The comparison decodes messages value by value on its own, apart from the code that filled the lake.

**Delivery**: reads only. **Bounds**: memory of about 500 bytes a row; meant for up to a few million rows.
"""

from __future__ import annotations

import itertools
import math
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lake
from edge_agent.contract.columns import Column
from edge_agent.contract.wire import Kind, decode_columns, decode_header

__all__ = ["Comparison", "compare", "ledger_rows"]

Row = tuple[str, int, int, int, int, str, float | str | None]
"""(device, epoch, seq, row, ts in microseconds, name, value); a NaN is the text 'nan', so that it equals itself."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many rows the ledgers hold, and how many of them the lake has once, not at all, more than once, or otherwise.

    `foreign` are rows of these devices that no ledger has; a row with another value counts as missing and foreign.
    """

    accepted: int
    landed_once: int
    dropped: int
    missing: int
    doubled: int
    foreign: int
    examples: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether each accepted row is in the lake exactly once (or was dropped on record), and nothing else."""
        return self.accepted == self.landed_once + self.dropped and not (self.missing or self.doubled or self.foreign)


def _values(column: Column) -> list[Any]:
    if column.type == "dictionary":
        code = {1: "B", 2: "h", 4: "i"}[column.width]
        return [column.names[i] for i in struct.unpack(f"<{column.rows}{code}", column.buffers[0])]
    if column.type == "string":
        offsets = struct.unpack(f"<{column.rows + 1}i", column.buffers[0])
        return [column.buffers[1][a:b].decode() for a, b in itertools.pairwise(offsets)]
    return list(struct.unpack(f"<{column.rows}{'d' if column.type == 'float64' else 'q'}", column.buffers[0]))


def _comparable(value: float | None) -> float | str | None:
    return "nan" if value is not None and math.isnan(value) else value


def message_rows(message: bytes) -> Iterator[Row]:
    """The rows of one batch of the stream `readings`; nothing of other messages."""
    header, body = decode_header(message)
    if header.kind is not Kind.BATCH or header.stream != "readings":
        return
    columns = {column.name: _values(column) for column in decode_columns(header, body)}
    for row, (ts, name, value) in enumerate(zip(columns["ts"], columns["name"], columns["value"], strict=True)):
        yield (header.device, header.epoch, header.seq_first, row, ts, name, _comparable(value))


def ledger_rows(spool: Path) -> Iterator[Row]:
    """Every row that the spool at this path accepted, in order."""
    connection = sqlite3.connect(f"file:{spool}?mode=ro", uri=True)
    try:
        for (message,) in connection.execute("SELECT message FROM ledger ORDER BY epoch, seq"):
            yield from message_rows(message)
    finally:
        connection.close()


def _lake_rows(snapshot: lake.Snapshot, devices: Iterable[str]) -> Counter[Row]:
    wanted = set(devices)
    found: Counter[Row] = Counter()
    columns = ["device", "epoch", "seq", "row", "ts", "name", "value"]
    table = snapshot.scan("readings", columns=columns)
    for batch in table.to_batches(max_chunksize=50_000):
        index = batch.schema.get_field_index("ts")
        lists = [
            (batch.column(i).cast("int64") if i == index else batch.column(i)).to_pylist() for i in range(len(columns))
        ]
        found.update((*row[:6], _comparable(row[6])) for row in zip(*lists, strict=True) if row[0] in wanted)
    return found


def _dropped_seqs(snapshot: lake.Snapshot) -> set[tuple[str, int, int]]:
    if "skipped" not in snapshot.tables:
        return set()
    table = snapshot.scan("skipped", columns=["device", "epoch", "seq_first", "seq_last"])
    return {
        (row["device"], row["epoch"], seq)
        for row in table.to_pylist()
        for seq in range(row["seq_first"], row["seq_last"] + 1)
    }


def compare(spools: Iterable[Path], lake_directory: Path) -> Comparison:
    """Hold the last published snapshot of the lake against the ledgers of these spools."""
    snapshot = lake.open(lake_directory).snapshot()
    accepted: Counter[Row] = Counter()
    for spool in spools:
        accepted.update(ledger_rows(spool))
    found = _lake_rows(snapshot, {row[0] for row in accepted})
    dropped_seqs = _dropped_seqs(snapshot)
    absent = accepted - found
    dropped = Counter({row: n for row, n in absent.items() if row[:3] in dropped_seqs})
    missing, extra = absent - dropped, found - accepted
    doubled = Counter({row: n for row, n in extra.items() if row in accepted})
    foreign = extra - doubled
    examples = [
        f"{kind}: {row}"
        for kind, rows in (("missing", missing), ("doubled", doubled), ("foreign", foreign))
        for row in sorted(rows, key=str)[:3]
    ]
    return Comparison(
        accepted=accepted.total(),
        landed_once=accepted.total() - absent.total(),
        dropped=dropped.total(),
        missing=missing.total(),
        doubled=doubled.total(),
        foreign=foreign.total(),
        examples=tuple(examples),
    )
