"""A lake, opened: transactions that change several tables at once, and snapshots to read.

    with lake.open("data/lake", create=True) as here:
        head = here.chain("readings", 0)
        prepared = here.prepare({"readings": rows}, [lake.Link(job="readings", partition=0, ...)])
        number = here.decide(prepared)      # the commit point
        here.apply()                        # visible to readers from here on
        here.query("SELECT count(*) FROM readings").arrow()
        here.table("readings").scan(device="pi4", start="2026-01-01T00:00Z").pandas()

**Delivery**: see `transaction.coordinator`. Opening rolls nothing forward by itself; the next `apply` of anyone does.
**Bounds**: opening reads one checkpoint and the records since; a handle keeps the fold in memory (see
`transaction.fold`). Thread-safe; processes on one machine may open a lake at once, each its own handle."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import pyarrow as pa

from edge_agent.contract.clock import Clock, SystemClock
from edge_agent.contract.errors import RejectError, RetryError, StopError, quoted
from lake import layout
from lake.delta import DeltaLog
from lake.result import Result
from lake.snapshot import Snapshot, Table, TableAt
from lake.staging import Link, Prepared, checked, read_blob, stage
from lake.storage import DirectoryStorage, Storage
from lake.transaction.coordinator import PENDING_MAX, Coordinator
from lake.transaction.fold import Fold, Parameters, Published
from lake.transaction.log import TransactionLog
from lake.transaction.records import VERSION, Column, Record, seal, unseal

__all__ = ["ChainHead", "Lake", "Progress", "open"]

_IDENTITY_FORMAT = "edgewater-lake"
_FOLDER = "lake"
"""Where a directory of `edgewater up` has its lake."""


class _Identity(msgspec.Struct, frozen=True):
    format: str
    version: int
    lake_id: str
    created_us: int
    staging_expires_after: int
    snapshots_kept_s: int


@dataclass(frozen=True, slots=True)
class ChainHead:
    """Where a (job, partition) stands: its last transaction (0: none yet), and what the last link left (see `Link`)."""

    transaction: int
    offset: int
    topic_id: str
    last_record_crc: int | None
    state: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a lake is: its last decided transaction and when that was, the last published one, how many decided ones
    wait to be published, and the (job, partition) that have a chain."""

    transaction: int
    transaction_at_us: int | None
    published: int
    waiting: int
    chains: tuple[tuple[str, int], ...]


def open(  # noqa: A001 - read as `lake.open`, as in the standard library
    path: str | os.PathLike[str], create: bool = False, *, clock: Clock | None = None
) -> Lake:
    """The lake in the directory `path`, or in its folder `lake` (as `edgewater up` has it); with `create`, made in
    `path` if there is none.

    StopError: there is no lake, or one that this version cannot read.
    """
    if "://" in os.fspath(path):
        raise StopError(f"{os.fspath(path)} is a URL; this version keeps lakes in local directories, give one")
    clock = clock or SystemClock()
    storage = DirectoryStorage(_found(Path(path)))
    if create:
        _create(storage, clock)
    content = storage.read(layout.IDENTITY)
    if content is None:
        raise StopError(
            f"there is no lake in {os.fspath(path)} ({_missing(Path(path))}); "
            f"`edgewater up --dir {shlex.quote(os.fspath(path))}` starts one there, --dir names another place"
        )
    identity = unseal(content, _IDENTITY_FORMAT, _Identity, layout.IDENTITY)
    return Lake(storage, identity.lake_id, Parameters(identity.staging_expires_after, identity.snapshots_kept_s), clock)


def _found(path: Path) -> Path:
    """`path`, or its folder `lake` when that is the lake."""
    below = path / _FOLDER
    return below if not (path / layout.IDENTITY).exists() and (below / layout.IDENTITY).exists() else path


def _missing(path: Path) -> str:
    if not path.exists():
        return "it does not exist"
    if not path.is_dir():
        return "it is no directory"
    return f"it has neither {layout.IDENTITY} nor {_FOLDER}/{layout.IDENTITY}"


def _create(storage: DirectoryStorage, clock: Clock) -> None:
    if storage.read(layout.IDENTITY) is not None:
        return
    try:
        storage.make_folders()
    except OSError as error:
        raise StopError(f"cannot make a lake in {storage.location('')}: {error}") from error
    parameters = Parameters()
    identity = _Identity(
        _IDENTITY_FORMAT,
        VERSION,
        layout.new_id(),
        clock.time_us(),
        parameters.staging_expires_after,
        parameters.snapshots_kept_s,
    )
    storage.create(layout.IDENTITY, seal(identity), "lake.create")


class Lake:
    """A handle on a lake; make it with `open`."""

    def __init__(self, storage: Storage, lake_id: str, parameters: Parameters, clock: Clock) -> None:
        self.lake_id = lake_id
        self.location = storage.location("")
        self._storage = storage
        holder = layout.new_id()
        log = TransactionLog(storage, parameters, clock, f"{socket.gethostname()} {os.getpid()} {holder[:8]}")

        def table(name: str) -> DeltaLog:
            return DeltaLog(storage, layout.table_folder(name), lake_id, parameters.snapshots_kept_s)

        self._coordinator = Coordinator(log, table, clock, holder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back the applier's lease, if this handle holds it. The handle stays usable."""
        self._coordinator.release()

    def chain(self, job: str, partition: int) -> ChainHead:
        """Where (`job`, `partition`) stands, decided transactions included that no reader sees yet."""
        head = self._coordinator.view(lambda fold: fold.chains.get((job, partition)))
        if head is None:
            return ChainHead(0, 0, "", None, b"")
        state = read_blob(self._storage, head.state.base)
        return ChainHead(head.transaction, head.offset, head.topic_id, head.last_record_crc, state)

    def progress(self) -> Progress:
        """How far the lake is."""
        return self._coordinator.view(_progress)

    def check(self, table: str, rows: pa.Table) -> pa.Table:
        """`rows` as `table` takes them (columns in its order, absent ones null). RejectError naming what does not
        fit.
        """
        return checked(table, rows, self._coordinator.view(_columns_by_table))

    def prepare(self, appends: Mapping[str, pa.Table], links: Sequence[Link] = ()) -> Prepared:
        """Stage `appends` (table name -> rows) and `links`, durably and unseen; a table without rows is created too.

        RejectError: rows that do not fit. RetryError: storage, or too many decisions wait to be applied.
        """

        def ready(fold: Fold) -> tuple[str, dict[str, tuple[Column, ...]]]:
            if len(fold.pending) >= PENDING_MAX:
                raise RetryError(
                    f"{len(fold.pending)} decided transactions wait to be applied, the most is {PENDING_MAX}; "
                    "is a process applying them?"
                )
            return layout.new_staging(fold.number), _columns_by_table(fold)

        staging, known = self._coordinator.view(ready)
        return stage(self._storage, staging, known, appends, links)

    def decide(self, prepared: Prepared) -> int:
        """Commit what was prepared; the transaction's number. Deciding again gives the same number.

        FencedError: it does not count, since another process moved on (the message says what to do). RetryError: not
        known yet; call it again with the same argument."""
        return self._coordinator.decide(prepared.decision)

    def apply(self) -> int:
        """Bring all decided transactions into the tables and publish the snapshot; the last published transaction.

        Does nothing while another live process holds the applier's lease. RetryError: not now, call it again.
        """
        return self._coordinator.apply()

    def commit(self, appends: Mapping[str, pa.Table], links: Sequence[Link] = ()) -> int:
        """`prepare`, `decide` and `apply`; the transaction's number."""
        number = self.decide(self.prepare(appends, links))
        self.apply()
        return number

    def snapshot(self, at: int | None = None) -> Snapshot:
        """The last published snapshot; with `at`, the first that holds transaction `at`.

        RejectError: `at` is older than what is kept, or was never decided. RetryError: `at` is not published yet.
        """
        transaction, tables = self._coordinator.view(lambda fold: _pinned(fold, at))
        return Snapshot(self._storage, transaction, tables)

    def query(
        self,
        sql: str,
        parameters: Sequence[object] | None = None,
        *,
        timeout_s: float | None = None,
        memory_bytes: int | None = None,
    ) -> Result:
        """The answer to one SELECT over the newest snapshot; see `Snapshot.query`."""
        return self.snapshot().query(sql, parameters, timeout_s=timeout_s, memory_bytes=memory_bytes)

    def table(self, name: str) -> Table:
        """A table in the newest snapshot. RejectError: there is none."""
        return self.snapshot().table(name)

    def records(self) -> list[tuple[Record, str | None]]:
        """The records still in the log with the reason of those that are void, oldest first."""
        return self._coordinator.records()


def _progress(fold: Fold) -> Progress:
    last = fold.pending[max(fold.pending)] if fold.pending else None
    at_us = last.at_us if last else fold.published.at_us if fold.published else None
    number = last.number if last else fold.published_through
    return Progress(number, at_us, fold.published_through, len(fold.pending), tuple(sorted(fold.chains)))


def _columns_by_table(fold: Fold) -> dict[str, tuple[Column, ...]]:
    return {name: table.schema for name, table in fold.tables.items()}


def _pinned(fold: Fold, at: int | None) -> tuple[int, dict[str, TableAt]]:
    published = fold.published if at is None else _first_at(fold, at)
    if published is None:
        return 0, {}
    return published.through, {
        name: TableAt(version, fold.tables[name].schema, fold.tables[name].schema_number > fold.tables[name].created)
        for name, version in sorted(published.versions.items())
    }


def _first_at(fold: Fold, at: int) -> Published:
    if at < 1:
        raise RejectError(f"transactions are numbered from 1, there is no {at}")
    if at <= fold.forgotten_through:
        raise RejectError(
            f"the snapshot at transaction {at} is not kept any more: those up to {fold.forgotten_through} are older "
            f"than {fold.parameters.snapshots_kept_s} s; take a newer one"
        )
    found = next((published for published in fold.publications if published.through >= at), None)
    if found is not None:
        return found
    if at > fold.number:
        raise RejectError(f"transaction {quoted(at)} does not exist, the last is {fold.number}")
    raise RetryError(f"transaction {at} is not published yet, the last published one is {fold.published_through}")
