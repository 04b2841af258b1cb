"""The records of the transaction log: what is in them, and their bytes. Specification: docs/formats/transaction-log.md.

A record is one line of JSON that ends with its CRC-32. Record and checkpoint carry a format name and version; this
module reads version 1 and refuses a newer one, since a rule it does not know may void what it would take for valid.

**Delivery**: a record that was cut short or damaged does not decode. **Bounds**: `RECORD_BYTES_MAX` a record,
`FILES_MAX` files added or removed by one decision, `LINKS_MAX` chains in one decision, `INLINE_STATE_BYTES_MAX` of
job state within a record."""

from __future__ import annotations

import re
import zlib
from typing import Any, TypeVar

import msgspec

from edge_agent.contract.errors import LimitError, StopError, quoted
from edge_agent.contract.limits import KIB, MIB

__all__ = [
    "CHECKPOINT_FORMAT",
    "FILES_MAX",
    "INLINE_STATE_BYTES_MAX",
    "LINKS_MAX",
    "RECORD_BYTES_MAX",
    "RECORD_FORMAT",
    "VERSION",
    "Abort",
    "Blob",
    "Body",
    "Change",
    "Column",
    "Decision",
    "File",
    "Lease",
    "Link",
    "Outbox",
    "Publication",
    "Record",
    "RemovedFile",
    "State",
    "decode_record",
    "encode_record",
    "seal",
    "unseal",
]

VERSION = 1
RECORD_FORMAT = "edgewater-transaction"
CHECKPOINT_FORMAT = "edgewater-checkpoint"

RECORD_BYTES_MAX = 64 * MIB
FILES_MAX = 100_000
LINKS_MAX = 10_000
INLINE_STATE_BYTES_MAX = 16 * KIB

_SEAL = re.compile(rb',"crc32":"([0-9a-f]{8})"\}\n')
_SEAL_BYTES = 21


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """A column of a table: its name, its Delta primitive type, and for mergeable tables how partial rows fold."""

    name: str
    type: str
    fold: str | None = None


class File(msgspec.Struct, frozen=True, omit_defaults=True):
    """A Parquet file added to a table: path within the table, size in bytes, the Delta protocol's statistics."""

    path: str
    size: int
    stats: dict[str, Any]


class RemovedFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that a decision takes out of a table."""

    path: str
    size: int


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a decision does to one table. `schema` is there when it may create the table or add to its columns;
    `data_change` is false when the rows stay the same (compaction)."""

    schema: tuple[Column, ...] | None = None
    adds: tuple[File, ...] = ()
    removes: tuple[RemovedFile, ...] = ()
    data_change: bool = True


class Blob(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes: either inline (base64 in JSON), or a synced file of the lake with its length and CRC-32."""

    inline: bytes | None = None
    path: str | None = None
    size: int = 0
    crc32: str = ""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job's state in one partition: a base, and what changed since, oldest first."""

    base: Blob | None = None
    deltas: tuple[Blob, ...] = ()


class Outbox(msgspec.Struct, frozen=True, omit_defaults=True):
    """Messages to send after the transaction: `count` of them, numbered from `first`; includes all not yet known as
    sent.
    """

    first: int
    count: int
    content: Blob


class Link(msgspec.Struct, frozen=True, omit_defaults=True):
    """One step of the chain of a (job, partition): from the transaction it continues to the offset and state it
    leaves.
    """

    job: str
    partition: int
    origin: int
    offset: int
    topic_id: str
    state: State
    last_record_crc: int | None = None
    outbox: Outbox | None = None


class Lease(msgspec.Struct, frozen=True, tag="lease", tag_field="kind"):
    """Who may apply, from this record on. `replaces` is the number of the lease record it follows (0: none yet);
    its own number is the fencing number. A duration of 0 gives the lease back. `place` and `process` let
    somebody at the same place see that the holder is dead."""

    replaces: int
    holder: str
    duration_ms: int
    place: str
    process: str


class Decision(msgspec.Struct, frozen=True, tag="decision", tag_field="kind", omit_defaults=True):
    """The commit point of what was staged under an id: changes by table, and a link for each chain it moves on."""

    staging: str
    changes: dict[str, Change]
    links: tuple[Link, ...] = ()
    note: str | None = None


class Abort(msgspec.Struct, frozen=True, tag="abort", tag_field="kind"):
    """This staging id shall never be decided; its files may go."""

    staging: str


class Publication(msgspec.Struct, frozen=True, tag="publication", tag_field="kind"):
    """A snapshot: every counted decision up to `through` is in the tables at these Delta versions, and no later one."""

    lease: int
    through: int
    versions: dict[str, int]


Body = Lease | Decision | Abort | Publication


class Record(msgspec.Struct, frozen=True):
    """One record of the log. `id` is random; `at_us` is the writer's clock, microseconds since 1970 UTC."""

    format: str
    version: int
    number: int
    id: str
    at_us: int
    writer: str
    body: Body


class _Head(msgspec.Struct):
    format: str
    version: int


T = TypeVar("T")


def seal(value: object) -> bytes:
    """JSON of a struct as one line, with the CRC-32 of everything before `,"crc32"` as its last member."""
    text = msgspec.json.encode(value)[:-1]
    return text + b',"crc32":"%08x"}\n' % zlib.crc32(text)


def unseal(content: bytes, format: str, type: type[T], name: str) -> T:
    """The struct in `content`, which is called `name` in errors.

    StopError: damaged, of another format, or of a newer version.
    """
    match = _SEAL.fullmatch(content[-_SEAL_BYTES:])
    text = content[:-_SEAL_BYTES]
    if match is None or int(match[1], 16) != zlib.crc32(text):
        raise StopError(
            f"{name} is damaged: its checksum does not match, and nothing after it can be read; "
            "restore it from a copy of the lake"
        )
    text += b"}"
    try:
        head = msgspec.json.decode(text, type=_Head)
        if head.format != format:
            raise StopError(
                f"{name} has format {quoted(head.format)} where {format} belongs; is this file in its place?"
            )
        if head.version > VERSION:
            raise StopError(
                f"{name} is in version {head.version} of {format}, this Edgewater reads up to {VERSION}; "
                "upgrade Edgewater wherever it uses this lake"
            )
        return msgspec.json.decode(text, type=type)
    except msgspec.DecodeError as error:
        raise StopError(f"{name} is not a valid {format}: {error}") from error


def encode_record(record: Record) -> bytes:
    """The record's bytes. LimitError over `RECORD_BYTES_MAX`."""
    content = seal(record)
    if len(content) > RECORD_BYTES_MAX:
        raise LimitError("transaction record bytes", len(content), RECORD_BYTES_MAX, "change fewer files at once")
    return content


def decode_record(content: bytes, number: int) -> Record:
    """The record that is called `number`. StopError as in `unseal`, or if it says that it is another."""
    record = unseal(content, RECORD_FORMAT, Record, f"transaction {number}")
    if record.number != number:
        raise StopError(f"transaction {number} says that it is {record.number}; is this file in its place?")
    return record
