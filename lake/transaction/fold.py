"""The fold over the transaction log: one pure function that says which records count, for everybody the same.

Records are applied in the order of their numbers. What counts changes the state; what is void changes nothing but is
remembered nowhere either, so a writer that wants to know whether its record counts applies it and looks at the verdict.
The rules, by the reason a verdict gives:

    expired   a staging id whose base is more than `staging_expires_after` numbers back, or not before the record
    decided   a second decision of a staging id; an abort of a decided id
    aborted   a decision of an aborted id; a second abort
    chain     a link whose origin is not its chain's last transaction; two links of one chain
    files     a removal of a file that is not live; an addition of a file that is or was
    schema    a schema that does not go with the table's; files for a table that has none
    lease     a lease that does not replace the present one; a publication under another lease than the present one
    order     a publication that covers nothing new, or what is not decided yet

**Delivery**: the state is a function of the records alone; clocks and storage do not enter (times are the records'
own). **Bounds**: ids are kept until they expire, removed files and publications for `snapshots_kept_s` by the
records' times (of publications `PUBLICATIONS_MAX` at most), live files for as long as they live."""

from __future__ import annotations

from dataclasses import dataclass, field

from lake.layout import staging_base
from lake.transaction.records import Abort, Column, Decision, Lease, Link, Outbox, Publication, Record, State

__all__ = [
    "PUBLICATIONS_MAX",
    "ChainState",
    "Fold",
    "LeaseState",
    "Parameters",
    "Published",
    "TableState",
    "merged_schema",
]

PUBLICATIONS_MAX = 16_384

_WIDENS = {
    "byte": ("short", "integer", "long"),
    "short": ("integer", "long"),
    "integer": ("long",),
    "float": ("double",),
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """What is fixed for the life of a lake, since the fold depends on it."""

    staging_expires_after: int = 65_536
    snapshots_kept_s: int = 3600


@dataclass(slots=True)
class ChainState:
    """The last transaction of a (job, partition)."""

    transaction: int
    staging: str
    offset: int
    topic_id: str
    last_record_crc: int | None
    state: State
    outbox: Outbox | None


@dataclass(slots=True)
class LeaseState:
    """The present lease: its record, and the last record by which its holder showed that it lives."""

    number: int
    lease: Lease
    sign_number: int
    sign_us: int


@dataclass(slots=True)
class TableState:
    """A table's columns, the transactions that created it and last changed them, its live files and what added each."""

    schema: tuple[Column, ...]
    created: int
    schema_number: int
    files: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Published:
    """A snapshot: the publication's number, the last transaction in it, each table's Delta version, the time of it."""

    number: int
    through: int
    versions: dict[str, int]
    at_us: int


def merged_schema(present: tuple[Column, ...], proposed: tuple[Column, ...]) -> tuple[Column, ...] | None:
    """The columns of both, in the order of `present` and then of `proposed`; None if they do not go together.

    A column of both must fold alike and have one type, or one of the types that widen into each other.
    """
    columns = {column.name: column for column in present}
    for column in proposed:
        known = columns.setdefault(column.name, column)
        if known.fold != column.fold:
            return None
        if known.type == column.type or known.type in _WIDENS.get(column.type, ()):
            continue
        if column.type not in _WIDENS.get(known.type, ()):
            return None
        columns[column.name] = column
    return tuple(columns.values())


class Fold:
    """The state after the records up to `number`."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.number = 0
        self.clock_us = 0
        self.lease: LeaseState | None = None
        self.chains: dict[tuple[str, int], ChainState] = {}
        self.tables: dict[str, TableState] = {}
        self.decided: dict[str, int] = {}
        self.aborted: dict[str, int] = {}
        self.removed: dict[str, dict[str, int]] = {}
        self.pending: dict[int, Record] = {}
        self.publications: list[Published] = []
        self.forgotten_through = 0

    @property
    def published(self) -> Published | None:
        """The last snapshot."""
        return self.publications[-1] if self.publications else None

    @property
    def published_through(self) -> int:
        """The last transaction of the last snapshot, 0 before the first."""
        return self.publications[-1].through if self.publications else 0

    @property
    def entries(self) -> int:
        """About how many things the state holds: what a checkpoint's size grows with."""
        files = sum(len(table.files) for table in self.tables.values()) + sum(map(len, self.removed.values()))
        ids = len(self.decided) + len(self.aborted)
        return files + ids + len(self.chains) + len(self.pending) + len(self.publications)

    def apply(self, record: Record) -> str | None:
        """Fold the next record; None when it counts, else the reason why it is void."""
        assert record.number == self.number + 1, (record.number, self.number)
        self.number = record.number
        self.clock_us = max(self.clock_us, record.at_us)
        body = record.body
        if isinstance(body, Decision):
            return self._decision(record, body)
        if isinstance(body, Publication):
            return self._publication(record, body)
        if isinstance(body, Lease):
            return self._lease(record, body)
        return self._abort(record, body)

    def why_void(self, decision: Decision, number: int) -> str | None:
        """The reason why `decision` would be void as record `number`, None when it would count."""
        return (
            self._staging_void(decision.staging, number)
            or self._chain_void(decision.links)
            or self._schema_void(decision)
            or self._files_void(decision)
        )

    def _staging_void(self, staging: str, number: int) -> str | None:
        base = staging_base(staging)
        if base is None or base >= number or number - base > self.parameters.staging_expires_after:
            return "expired"
        if staging in self.decided:
            return "decided"
        return "aborted" if staging in self.aborted else None

    def _chain_void(self, links: tuple[Link, ...]) -> str | None:
        chains = {(link.job, link.partition) for link in links}
        if len(chains) != len(links):
            return "chain"
        for link in links:
            head = self.chains.get((link.job, link.partition))
            if link.origin != (head.transaction if head else 0):
                return "chain"
        return None

    def _schema_void(self, decision: Decision) -> str | None:
        for name, change in decision.changes.items():
            table = self.tables.get(name)
            if change.schema is None:
                if table is None:
                    return "schema"
            elif merged_schema(table.schema if table else (), change.schema) is None:
                return "schema"
        return None

    def _files_void(self, decision: Decision) -> str | None:
        for name, change in decision.changes.items():
            table = self.tables.get(name)
            live = table.files if table else {}
            gone = self.removed.get(name, {})
            added = {file.path for file in change.adds}
            removed = {file.path for file in change.removes}
            if len(added) != len(change.adds) or len(removed) != len(change.removes):
                return "files"
            if any(path in live or path in gone for path in added) or any(path not in live for path in removed):
                return "files"
        return None

    def _decision(self, record: Record, body: Decision) -> str | None:
        reason = self.why_void(body, record.number)
        if reason is not None:
            return reason
        self._forget_ids()
        self.decided[body.staging] = record.number
        for link in body.links:
            self.chains[link.job, link.partition] = ChainState(
                record.number, body.staging, link.offset, link.topic_id, link.last_record_crc, link.state, link.outbox
            )
        for name, change in body.changes.items():
            table = self.tables.setdefault(name, TableState((), record.number, record.number))
            schema = merged_schema(table.schema, change.schema or ())
            assert schema is not None, "checked by _schema_void"
            if schema != table.schema:
                table.schema, table.schema_number = schema, record.number
            for removed in change.removes:
                del table.files[removed.path]
                self.removed.setdefault(name, {})[removed.path] = self.clock_us
            for file in change.adds:
                table.files[file.path] = record.number
        self.pending[record.number] = record
        return None

    def _abort(self, record: Record, body: Abort) -> str | None:
        reason = self._staging_void(body.staging, record.number)
        if reason is None:
            self._forget_ids()
            self.aborted[body.staging] = record.number
        return reason

    def _lease(self, record: Record, body: Lease) -> str | None:
        if body.replaces != (self.lease.number if self.lease else 0):
            return "lease"
        self.lease = LeaseState(record.number, body, record.number, record.at_us)
        return None

    def _publication(self, record: Record, body: Publication) -> str | None:
        if self.lease is None or body.lease != self.lease.number or self.lease.lease.duration_ms == 0:
            return "lease"
        if body.through not in self.pending:
            return "order"
        self.lease.sign_number, self.lease.sign_us = record.number, record.at_us
        for number in [number for number in self.pending if number <= body.through]:
            del self.pending[number]
        self.publications.append(Published(record.number, body.through, body.versions, record.at_us))
        self._forget_old()
        return None

    def _forget_ids(self) -> None:
        """Drop what has expired: whoever names it is void for that reason already. Ids are in about the order of
        their base.
        """
        for ids in (self.decided, self.aborted):
            while ids:
                staging = next(iter(ids))
                base = staging_base(staging)
                assert base is not None, "checked by _staging_void"
                if self.number - base <= self.parameters.staging_expires_after:
                    break
                del ids[staging]

    def _forget_old(self) -> None:
        oldest_us = self.clock_us - self.parameters.snapshots_kept_s * 1_000_000
        forget = max(0, len(self.publications) - PUBLICATIONS_MAX)
        while forget < len(self.publications) - 1 and self.publications[forget].at_us < oldest_us:
            forget += 1
        if forget:
            self.forgotten_through = self.publications[forget - 1].through
            del self.publications[:forget]
        for name, paths in list(self.removed.items()):
            while paths and next(iter(paths.values())) < oldest_us:
                del paths[next(iter(paths))]
            if not paths:
                del self.removed[name]
