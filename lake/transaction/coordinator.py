"""Decide, apply, publish: the steps after a transaction's files are staged and durable.

1. **decide**: one record, created if absent. It is the commit point. If the fold voids it, the transaction never was.
2. **apply**, by the holder of the lease: all decisions that no snapshot covers, in one Delta commit per table.
3. **publish**: one record with each table's version. Readers see the new snapshot, all tables together.

**Delivery**: `kill -9` before 1 leaves orphaned files; after it, whoever applies next rolls the decision forward, and
what was half done is recognised by the transaction number in each table's Delta log. `decide` may be repeated with
what was prepared once, and answers the same. **Bounds**: `PENDING_MAX` decisions may wait to be applied; then
preparing raises RetryError."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from edge_agent.contract.clock import Clock
from edge_agent.contract.errors import FencedError
from lake.transaction.fold import Fold
from lake.transaction.growth import grows_only
from lake.transaction.lease import LEASE_DURATION_MS, LeaseWatch, own_place, own_process
from lake.transaction.log import TransactionLog
from lake.transaction.records import Body, Change, Column, Decision, Lease, Publication, Record

__all__ = ["PENDING_MAX", "AppliedTable", "Coordinator"]

PENDING_MAX = 1000
_APPLY_THREADS = 4

T = TypeVar("T")

_WHY = {
    "chain": "another process has moved on this partition; discard the state in memory and load the chain again",
    "aborted": "what was staged has been given up by a cleaner; prepare it again",
    "expired": "too many transactions came between prepare and decide; prepare it again",
    "files": "a file it removes was removed by another transaction; read the table again and prepare anew",
    "schema": "the table's columns have been changed by another transaction; prepare it again",
}


class AppliedTable(Protocol):
    """What applying needs of a table's Delta log (see `lake.delta.DeltaLog`)."""

    def start_from(self, version: int) -> None: ...

    def commit(self, schema: tuple[Column, ...], changes: dict[int, Change], through: int, at_ms: int) -> int: ...

    def checkpoint_if_due(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class _Group:
    """What one round of applying does: the lease it runs under, and by table the changes up to `through`."""

    lease: int
    through: int
    at_ms: int
    published: dict[str, int]
    schemas: dict[str, tuple[Column, ...]]
    changes: dict[str, dict[int, Change]]


class Coordinator:
    """One process's part in the lake's transactions. Thread-safe: deciding goes on while another thread applies."""

    def __init__(self, log: TransactionLog, tables: Callable[[str], AppliedTable], clock: Clock, holder: str) -> None:
        self._log = log
        self._make_table = tables
        self._tables: dict[str, AppliedTable] = {}
        self._watch = LeaseWatch(clock)
        self._holder = holder
        self._log_lock = threading.RLock()
        self._apply_lock = threading.Lock()

    def view(self, read: Callable[[Fold], T]) -> T:
        """What `read` makes of the fold of everything in the log, while nothing changes it."""
        with self._log_lock:
            return read(self._log.refresh())

    def records(self) -> list[tuple[Record, str | None]]:
        """See `TransactionLog.records`."""
        with self._log_lock:
            return self._log.records()

    def decide(self, decision: Decision) -> int:
        """Make `decision` the lake's next transaction; its number. FencedError when the fold says that it is void."""
        reason: str | None = None

        def body(fold: Fold) -> Body | None:
            nonlocal reason
            reason = fold.why_void(decision, fold.number + 1) or (None if grows_only(fold, decision) else "schema")
            return None if reason else decision

        with self._log_lock:
            added = self._log.add(body, "lake.decide")
            if added is not None:
                number, reason = added
                if reason is None:
                    return number
            fold = self._log.fold
            if decision.staging in fold.decided:
                self._log.sync()
                return fold.decided[decision.staging]
        raise FencedError(
            f"transaction {decision.staging} does not count ({reason}): {_WHY.get(reason or '', 'prepare it again')}"
        )

    def apply(self) -> int:
        """Apply what is decided and publish it, if this process may; the last published transaction. RetryError."""
        with self._apply_lock:
            group = self._group()
            if group is not None:
                versions = group.published | self._apply_tables(group)
                if self._publish(Publication(group.lease, group.through, versions)):
                    self._upkeep(group)
            with self._log_lock:
                return self._log.fold.published_through

    def _group(self) -> _Group | None:
        """All decisions that no snapshot covers, durable; None when there are none, or another process applies them."""
        with self._log_lock:
            if not self._log.refresh().pending or not self._holds_lease():
                return None
            self._log.sync()
            fold = self._log.fold
            if not fold.pending:
                return None  # published by who held the lease until we took it
            assert fold.lease is not None, "held"
            through = max(fold.pending)
            changes: dict[str, dict[int, Change]] = {}
            for number, record in fold.pending.items():
                assert isinstance(record.body, Decision), "only decisions are pending"
                for name, change in record.body.changes.items():
                    changes.setdefault(name, {})[number] = change
            return _Group(
                lease=fold.lease.number,
                through=through,
                at_ms=fold.pending[through].at_us // 1000,
                published=dict(fold.published.versions) if fold.published else {},
                schemas={name: fold.tables[name].schema for name in changes},
                changes=changes,
            )

    def _holds_lease(self) -> bool:
        """Whether this process holds the lease, which it takes when it is free."""
        state = self._log.fold.lease
        if state is not None and state.lease.holder == self._holder and state.lease.duration_ms:
            return True
        if not self._watch.free(state):
            return False
        replaces = state.number if state else 0
        return self._add_lease(replaces, LEASE_DURATION_MS)

    def _add_lease(self, replaces: int, duration_ms: int) -> bool:
        lease = Lease(replaces, self._holder, duration_ms, own_place(), own_process())

        def body(fold: Fold) -> Body | None:
            return lease if (fold.lease.number if fold.lease else 0) == replaces else None

        added = self._log.add(body, "lake.lease")
        return added is not None and added[1] is None

    def _apply_tables(self, group: _Group) -> dict[str, int]:
        """Commit to each table's Delta log; the versions. Tables do not wait for each other."""

        def commit(name: str) -> int:
            table = self._tables.get(name)
            if table is None:
                table = self._tables[name] = self._make_table(name)
            table.start_from(group.published.get(name, -1))
            return table.commit(group.schemas[name], group.changes[name], group.through, group.at_ms)

        names = list(group.changes)
        if len(names) < 2:
            return {name: commit(name) for name in names}
        with ThreadPoolExecutor(min(len(names), _APPLY_THREADS), "lake-apply") as executor:
            return dict(zip(names, executor.map(commit, names), strict=True))

    def _publish(self, publication: Publication) -> bool:
        """Whether the snapshot is published under our lease; if not, who holds the lease now publishes."""

        def body(fold: Fold) -> Body | None:
            return publication if fold.lease and fold.lease.number == publication.lease else None

        with self._log_lock:
            added = self._log.add(body, "lake.publish")
        return added is not None and added[1] is None

    def _upkeep(self, group: _Group) -> None:
        """Checkpoints, and cleaning behind them: only after what they clean is published."""
        # One at a time: tables that change together are due together, and their writers wait for this.
        if any(self._tables[name].checkpoint_if_due() for name in group.changes):
            return
        with self._log_lock:
            self._log.checkpoint_if_due()

    def release(self) -> None:
        """Give the lease back, so that another process need not wait for it to run out."""
        with self._apply_lock, self._log_lock:
            state = self._log.refresh().lease
            if state is not None and state.lease.holder == self._holder and state.lease.duration_ms:
                self._add_lease(state.number, 0)
