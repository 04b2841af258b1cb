"""Batches and spools for tests of the agent.

**Delivery**: spools are real files in the test's folder. **Bounds**: small batches, unless a test asks for larger.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from edge_agent.contract import columns, wire
from edge_agent.contract.clock import Clock, ManualClock
from edge_agent.spool import NewBatch, Place, Spool, SpoolSettings

__all__ = ["DEVICE", "accepted", "batch", "body", "open_spool", "value_of"]

DEVICE = "pump-7"


_PIECE = 50_000


def body(values: list[float], pad: int = 0) -> bytes:
    """A body of the stream type readings with these values, and `pad` more bytes of names that no row has."""
    names = ("level", *(str(at) + "x" * (min(_PIECE, pad - at)) for at in range(0, pad, _PIECE)))
    return wire.encode_columns(
        [
            columns.timestamps("ts", [1_700_000_000_000_000 + index for index in range(len(values))]),
            columns.dictionary("name", [0] * len(values), names),
            columns.floats("value", values),
        ]
    )


def batch(value: float = 0.0, *, rows: int = 1, priority: int = 1, stream: str = "readings", pad: int = 0) -> NewBatch:
    """A batch whose values are all `value`; `pad` makes it that many bytes longer."""
    return NewBatch(stream, rows, body([value] * rows, pad), "tank", bytes(8), priority)


def value_of(message: bytes) -> float:
    """The first value of a batch's message."""
    header, found = wire.decode_header(message)
    (value,) = (column for column in wire.decode_columns(header, found) if column.name == "value")
    return float(memoryview(value.buffers[0]).cast("d")[0])


def open_spool(
    directory: Path,
    *,
    device: str = DEVICE,
    clock: Clock | None = None,
    settings: SpoolSettings | None = None,
    first_random: int = 1,
) -> Spool:
    """A spool in `directory`, whose epochs are predictable."""
    numbers = itertools.count(first_random)
    return Spool(
        directory, device, settings or SpoolSettings(), clock or ManualClock(), random_32=lambda: next(numbers)
    )


def accepted(spool: Spool, *batches: NewBatch) -> list[Place]:
    """Append, where all of them must be accepted."""
    places = []
    for answer in spool.append(batches):
        assert isinstance(answer, Place), answer
        places.append(answer)
    return places
