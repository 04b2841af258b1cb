"""Prepare: everything a transaction will need, written and synced under a staging id, before it is decided.

**Delivery**: when `stage` returns, the files are durable and nobody sees them. `kill -9` before the decision leaves
files that no decision names. When writing fails (a full disk), what was written is removed. **Bounds**: a table of
any number of rows is one file of row groups of `writer.ROW_GROUP_ROWS`; `_WRITERS` files are written at once; state
over `records.INLINE_STATE_BYTES_MAX` is a file."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import LimitError, RejectError, StopError, quoted
from lake import layout
from lake.aggregate import fold_sql, is_mergeable
from lake.schema import KNOWN_TABLES, columns_of, columns_with, fitted, known_columns
from lake.storage import Storage
from lake.transaction import records
from lake.transaction.records import INLINE_STATE_BYTES_MAX, LINKS_MAX, Blob, Change, Column, Decision, File, State
from lake.writer import write_file

__all__ = ["Link", "Prepared", "checked", "read_blob", "stage"]

_WRITERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A step of the chain of (`job`, `partition`): made from what `origin_transaction` left (0: nothing yet), it
    leaves `offset` as the next to read from the topic `topic_id`, whose last consumed record had the checksum
    `last_record_crc`, and `state`, whatever the job wants back."""

    job: str
    partition: int
    origin_transaction: int
    offset: int
    topic_id: str
    last_record_crc: int | None
    state: bytes


@dataclass(frozen=True, slots=True)
class Prepared:
    """A transaction that is staged and durable, ready to be decided, once or again."""

    decision: Decision


def _columns(table: str, rows: pa.Table, known: Mapping[str, tuple[Column, ...]]) -> tuple[Column, ...]:
    """The columns that `table` will have when it has taken `rows`: those it has, and new ones at the end."""
    present = known.get(table)
    if present is None:
        present = columns_of(KNOWN_TABLES.get(table, rows.schema), layout.check_table_name(table))
    columns = columns_with(known_columns(present, table), rows.schema, table)
    if is_mergeable(columns) and columns != known.get(table):
        fold_sql(columns, table)  # refuses what could be written but never be read
    return columns


def checked(table: str, rows: pa.Table, known: Mapping[str, tuple[Column, ...]]) -> pa.Table:
    """`rows` as `table` would take them, given the `known` tables' columns. RejectError naming what does not fit."""
    return fitted(rows, _columns(table, rows, known), table)


def stage(
    storage: Storage,
    staging: str,
    known: Mapping[str, tuple[Column, ...]],
    appends: Mapping[str, pa.Table],
    links: Sequence[Link],
) -> Prepared:
    """Write and sync `appends` (table name -> rows) and the links' states under the id `staging`.

    `known` are the columns of the tables that there are; the decision creates others, and adds to a table the columns
    that only its rows have. RejectError: rows that do not fit their table (nothing is written). RetryError: storage."""
    if len(links) > LINKS_MAX:
        raise LimitError("links of a transaction", len(links), LINKS_MAX, "commit fewer partitions at once")
    tables = {name: checked(name, rows, known) for name, rows in appends.items()}
    filled = [(name, rows) for name, rows in tables.items() if rows.num_rows]
    paths = [layout.data_path(name, staging, index) for index, (name, _) in enumerate(filled)]
    paths += [layout.state_path(staging, index) for index, link in enumerate(links) if _is_large(link)]

    def write(item: tuple[int, tuple[str, pa.Table]]) -> File:
        index, (name, rows) = item
        file = write_file(storage, rows, name, staging, index)
        storage.sync_files([layout.data_path(name, staging, index)])
        return file

    try:
        crash_point("lake.prepare.before_write")
        with ThreadPoolExecutor(_WRITERS, "lake-prepare") as executor:
            files = dict(zip((name for name, _ in filled), executor.map(write, enumerate(filled)), strict=True))
        crash_point("lake.prepare.after_write")
        states = [_written_state(storage, staging, index, link) for index, link in enumerate(links)]
    except BaseException:
        # Nobody but this call knows the id, and it will never be decided.
        for path in paths:
            storage.delete(path)
        raise
    crash_point("lake.prepare.after_sync")
    changes = {
        name: Change(
            schema=_new_schema(name, rows, known),
            adds=(files[name],) if name in files else (),
        )
        for name, rows in appends.items()
    }
    return Prepared(
        Decision(
            staging,
            {name: change for name, change in changes.items() if change.schema or change.adds},
            tuple(_record(link, state) for link, state in zip(links, states, strict=True)),
        )
    )


def _new_schema(table: str, rows: pa.Table, known: Mapping[str, tuple[Column, ...]]) -> tuple[Column, ...] | None:
    """The columns that the decision has to give `table`; None when it has them."""
    columns = _columns(table, rows, known)
    return None if columns == known.get(table) else columns


def _is_large(link: Link) -> bool:
    return len(link.state) > INLINE_STATE_BYTES_MAX


def _written_state(storage: Storage, staging: str, index: int, link: Link) -> State:
    if not link.state:
        return State()
    if not _is_large(link):
        return State(base=Blob(inline=link.state, size=len(link.state)))
    path = layout.state_path(staging, index)
    with storage.open_output(path) as output:
        output.write(link.state)
    storage.sync_files([path])
    return State(base=Blob(path=path, size=len(link.state), crc32=f"{zlib.crc32(link.state):08x}"))


def read_blob(storage: Storage, blob: Blob | None) -> bytes:
    """The bytes of a blob; none for None. StopError when its file is missing or damaged."""
    if blob is None:
        return b""
    if blob.inline is not None:
        return blob.inline
    content = storage.read(blob.path) if blob.path else None
    if content is None or len(content) != blob.size or f"{zlib.crc32(content):08x}" != blob.crc32:
        raise StopError(f"state file {quoted(blob.path)} is missing or damaged; restore it from a copy of the lake")
    return content


def _record(link: Link, state: State) -> records.Link:
    if link.offset < 0 or link.partition < 0 or link.origin_transaction < 0:
        raise RejectError(f"a link has negative numbers: {quoted(link)}")
    return records.Link(
        link.job, link.partition, link.origin_transaction, link.offset, link.topic_id, state, link.last_record_crc
    )
