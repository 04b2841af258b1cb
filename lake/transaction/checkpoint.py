"""A checkpoint: the fold's whole state after the record of its number, as one sealed JSON document.

Who opens a lake reads the highest checkpoint and the records after it. Checkpoints of one number are equal whoever
makes them, since the fold is; they are created if absent, and the highest counts.

**Delivery**: records are unlinked only below a checkpoint that is durable with its name. **Bounds**: the size is that
of the fold (`Fold.entries`); `due` spaces checkpoints so that writing them costs a small, constant part of what the
records cost."""

from __future__ import annotations

import msgspec

from lake.transaction.fold import ChainState, Fold, LeaseState, Parameters, Published, TableState
from lake.transaction.records import (
    CHECKPOINT_FORMAT,
    VERSION,
    Column,
    Lease,
    Outbox,
    Record,
    State,
    seal,
    unseal,
)

__all__ = ["RECORDS_BETWEEN_MIN", "decode_checkpoint", "due", "encode_checkpoint"]

RECORDS_BETWEEN_MIN = 100
_ENTRIES_A_RECORD = 64


class _Chain(msgspec.Struct, frozen=True, omit_defaults=True):
    job: str
    partition: int
    transaction: int
    staging: str
    offset: int
    topic_id: str
    state: State
    last_record_crc: int | None = None
    outbox: Outbox | None = None


class _Lease(msgspec.Struct, frozen=True):
    number: int
    lease: Lease
    sign_number: int
    sign_us: int


class _Table(msgspec.Struct, frozen=True):
    schema: tuple[Column, ...]
    created: int
    schema_number: int
    files: dict[str, int]


class _Published(msgspec.Struct, frozen=True):
    number: int
    through: int
    versions: dict[str, int]
    at_us: int


class _Checkpoint(msgspec.Struct, frozen=True):
    format: str
    version: int
    number: int
    clock_us: int
    lease: _Lease | None
    chains: list[_Chain]
    tables: dict[str, _Table]
    decided: dict[str, int]
    aborted: dict[str, int]
    removed: dict[str, dict[str, int]]
    pending: list[Record]
    publications: list[_Published]
    forgotten_through: int


def due(fold: Fold, checkpoint: int) -> bool:
    """Whether it is time for a new checkpoint when the last one is of number `checkpoint`."""
    return fold.number - checkpoint >= max(RECORDS_BETWEEN_MIN, fold.entries // _ENTRIES_A_RECORD)


def encode_checkpoint(fold: Fold) -> bytes:
    """The bytes of a checkpoint of `fold`."""
    held = fold.lease
    return seal(
        _Checkpoint(
            format=CHECKPOINT_FORMAT,
            version=VERSION,
            number=fold.number,
            clock_us=fold.clock_us,
            lease=_Lease(held.number, held.lease, held.sign_number, held.sign_us) if held else None,
            chains=[
                _Chain(
                    job=job,
                    partition=partition,
                    transaction=chain.transaction,
                    staging=chain.staging,
                    offset=chain.offset,
                    topic_id=chain.topic_id,
                    state=chain.state,
                    last_record_crc=chain.last_record_crc,
                    outbox=chain.outbox,
                )
                for (job, partition), chain in fold.chains.items()
            ],
            tables={
                name: _Table(table.schema, table.created, table.schema_number, table.files)
                for name, table in fold.tables.items()
            },
            decided=fold.decided,
            aborted=fold.aborted,
            removed=fold.removed,
            pending=list(fold.pending.values()),
            publications=[_Published(p.number, p.through, p.versions, p.at_us) for p in fold.publications],
            forgotten_through=fold.forgotten_through,
        )
    )


def decode_checkpoint(content: bytes, number: int, parameters: Parameters) -> Fold:
    """The fold in a checkpoint. StopError as in `records.unseal`."""
    found = unseal(content, CHECKPOINT_FORMAT, _Checkpoint, f"checkpoint {number}")
    fold = Fold(parameters)
    fold.number = found.number
    fold.clock_us = found.clock_us
    if found.lease is not None:
        fold.lease = LeaseState(found.lease.number, found.lease.lease, found.lease.sign_number, found.lease.sign_us)
    fold.chains = {
        (chain.job, chain.partition): ChainState(
            chain.transaction,
            chain.staging,
            chain.offset,
            chain.topic_id,
            chain.last_record_crc,
            chain.state,
            chain.outbox,
        )
        for chain in found.chains
    }
    fold.tables = {
        name: TableState(table.schema, table.created, table.schema_number, table.files)
        for name, table in found.tables.items()
    }
    fold.decided = found.decided
    fold.aborted = found.aborted
    fold.removed = found.removed
    fold.pending = {record.number: record for record in found.pending}
    fold.publications = [Published(p.number, p.through, p.versions, p.at_us) for p in found.publications]
    fold.forgotten_through = found.forgotten_through
    return fold
