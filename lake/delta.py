"""The only module that speaks to deltalake: decided changes into each table's Delta log, and back to file lists.

Facts about deltalake 1.6.6 that shape this module: it takes an application transaction of any number from a fresh
handle, so the number is compared first and committed on the same handle, where a concurrent commit of the same
application is refused; it takes files that are missing and schemas that differ, so both are checked before staging;
it syncs nothing, so the log's files are synced here; a handle that is kept gets slower with every commit, so it is
opened anew at each checkpoint.

Tables are not partitioned (docs/adr/0005-unpartitioned-delta-tables.md).

**Delivery**: `commit` may be repeated and interrupted anywhere: each transaction enters a table's log once, since the
log itself keeps the last transaction number of the lake. What it returns is durable. Delta checkpoints are synced
before log files are removed. **Bounds**: one Delta commit per table and call, whatever the number of decisions;
`RETRIES_MAX` tries against others; a Delta checkpoint every `COMMITS_BETWEEN_CHECKPOINTS` commits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import RejectError, RetryError, StopError
from lake.layout import TABLES
from lake.schema import arrow_schema
from lake.storage import Storage
from lake.transaction.records import Change, Column, File, RemovedFile

__all__ = ["COMMITS_BETWEEN_CHECKPOINTS", "DeltaLog", "files_at", "net_changes"]

COMMITS_BETWEEN_CHECKPOINTS = 50
RETRIES_MAX = 20

_LOG_KEPT_BEYOND_SNAPSHOTS_S = 600
_NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)


def net_changes(changes: Sequence[Change]) -> tuple[list[File], list[RemovedFile]]:
    """What remains to be done of `changes`, in order: a file added by one and removed by a later one is in neither."""
    adds: dict[str, File] = {}
    removes: dict[str, RemovedFile] = {}
    for change in changes:
        for removed in change.removes:
            if adds.pop(removed.path, None) is None:
                removes[removed.path] = removed
        adds.update((file.path, file) for file in change.adds)
    return list(adds.values()), list(removes.values())


class DeltaLog:
    """The Delta log of one table of a lake, as its applier sees it. Not thread-safe."""

    def __init__(self, storage: Storage, folder: str, lake_id: str, snapshots_kept_s: int) -> None:
        self._folder = folder
        self._storage = storage
        self._location = storage.location(folder)
        self._application = f"edgewater/{lake_id}"
        self._configuration: dict[str, str | None] = {
            "delta.logRetentionDuration": f"interval {snapshots_kept_s + _LOG_KEPT_BEYOND_SNAPSHOTS_S} seconds",
            "delta.checkpointInterval": str(COMMITS_BETWEEN_CHECKPOINTS),
            "delta.enableExpiredLogCleanup": "false",
        }
        self._table: DeltaTable | None = None
        self._synced = -1

    def commit(self, schema: tuple[Column, ...], changes: dict[int, Change], through: int, at_ms: int) -> int:
        """Commit those of `changes` (transaction number -> change) that the table has not; the table's version then.

        `through` is the last transaction of the group, for all tables the same; `at_ms` the time of it. RetryError
        when it cannot be done now."""
        for _ in range(RETRIES_MAX):
            try:
                table = self._opened(schema)
                present = table.transaction_version(self._application) or 0
                missing = [change for number, change in sorted(changes.items()) if number > present]
                if any(change.adds or change.removes for change in missing):
                    crash_point("lake.apply.before_commit")
                    self._commit(table, missing, through, at_ms)
                    crash_point("lake.apply.after_commit")
                    table.update_incremental()
                version = int(table.version())
                self._sync(version)
            except CommitFailedError:
                self._table = None  # somebody else applied, or changed the table: look again
            except (DeltaError, OSError) as error:
                self._table = None
                raise RetryError(f"Delta log of {self._folder}: {error}") from error
            else:
                return version
        raise RetryError(f"Delta log of {self._folder}: others commit all the time ({RETRIES_MAX} tries)")

    def start_from(self, version: int) -> None:
        """Before the first commit: everything up to `version` (-1: nothing) is published, so durable and whole.

        A file of the log after it that power loss has cut short is removed: its decisions are applied again.
        """
        if self._synced >= 0 or self._table is not None:
            return
        self._synced = version
        while (content := self._storage.read(self._log_path(version + 1))) is not None:
            version += 1
            if not _is_whole(content):
                self._storage.delete(self._log_path(version))
                return

    def _log_path(self, version: int) -> str:
        return f"{self._folder}/_delta_log/{version:020d}.json"

    def _opened(self, schema: tuple[Column, ...]) -> DeltaTable:
        """The table at its last version, with all columns of `schema`."""
        table = self._table
        if table is not None:
            table.update_incremental()
        else:
            try:
                table = DeltaTable(self._location)
            except TableNotFoundError:
                table = DeltaTable.create(
                    self._location, arrow_schema(schema), mode="ignore", configuration=self._configuration
                )
        self._add_columns(table, schema)
        self._table = table
        return table

    def _add_columns(self, table: DeltaTable, schema: tuple[Column, ...]) -> None:
        """A commit of its own: if nothing follows it, the next to apply finds the columns there, and nobody misses
        them.
        """
        wanted = {field.name: field for field in DeltaSchema.from_arrow(arrow_schema(schema)).fields}
        present = {field.name: field for field in table.schema().fields}
        # No Edgewater of this version changes a type: a newer one did.
        if changed := [name for name in wanted if name in present and wanted[name].type != present[name].type]:
            raise StopError(
                f"{self._folder} has columns {', '.join(changed)} in another type than the lake's log says; "
                "upgrade Edgewater wherever it uses this lake"
            )
        if absent := [field for name, field in wanted.items() if name not in present]:
            crash_point("lake.apply.before_columns")
            table.alter.add_columns(absent, post_commithook_properties=_NO_HOOKS)
            crash_point("lake.apply.after_columns")
            table.update_incremental()

    def _commit(self, table: DeltaTable, changes: list[Change], through: int, at_ms: int) -> None:
        adds, removes = net_changes(changes)
        data_change = any(change.data_change for change in changes)
        actions: list[AddAction | RemoveAction] = [
            *(AddAction(file.path, file.size, {}, at_ms, data_change, json.dumps(file.stats)) for file in adds),
            *(RemoveAction(file.path, data_change, at_ms, file.size, {}) for file in removes),
        ]
        table.create_write_transaction(
            actions,
            mode="append",
            schema=table.schema(),
            commit_properties=CommitProperties(app_transactions=[Transaction(self._application, through)]),
            post_commithook_properties=_NO_HOOKS,
        )

    def _sync(self, version: int) -> None:
        """Make the log's files up to `version` durable."""
        if version > self._synced:
            self._storage.sync_files([self._log_path(number) for number in range(self._synced + 1, version + 1)])
            # The folder _delta_log itself, and the table's: both are new with the first commit.
            if self._synced < 0:
                self._storage.sync(self._folder)
                self._storage.sync(TABLES)
            self._synced = version

    def checkpoint_if_due(self) -> bool:
        """Write a Delta checkpoint and remove old log files, if enough commits came since the last; whether it did.

        RetryError: storage.
        """
        if self._table is None or self._synced - self._last_checkpoint() < COMMITS_BETWEEN_CHECKPOINTS:
            return False
        try:
            # A fresh handle: the kept one has become slow, and may hold more than the synced version.
            table = DeltaTable(self._location, version=self._synced)
            table.create_checkpoint()
            crash_point("lake.delta_checkpoint.before_sync")
            log = f"{self._folder}/_delta_log"
            self._storage.sync_files([f"{log}/{self._synced:020d}.checkpoint.parquet", f"{log}/_last_checkpoint"])
            table.cleanup_metadata()
        except (DeltaError, OSError) as error:
            raise RetryError(f"Delta checkpoint of {self._folder}: {error}") from error
        finally:
            self._table = None
        return True

    def _last_checkpoint(self) -> int:
        content = self._storage.read(f"{self._folder}/_delta_log/_last_checkpoint")
        try:
            return int(json.loads(content)["version"]) if content else 0
        except (ValueError, KeyError, TypeError):
            return 0  # cut short by power loss: Delta readers ignore it, and the next checkpoint replaces it


def _is_whole(content: bytes) -> bool:
    """Whether a file of a Delta log is what it was when it was written: lines of JSON, without a newline after the
    last.
    """
    try:
        lines = [json.loads(line) for line in content.splitlines()]
    except ValueError:
        return False
    return bool(lines) and not content.endswith(b"\n")


def files_at(storage: Storage, folder: str, version: int) -> pa.Table:
    """The files of a table's version: column `path` (within the table), and `min.<column>`, `max.<column>` where known.

    RejectError when the version is not there any more.
    """
    try:
        table = DeltaTable(storage.location(folder), version=version)
        actions: Any = table.get_add_actions(flatten=True)
    except (DeltaError, OSError) as error:
        raise RejectError(
            f"version {version} of {folder} cannot be read any more ({error}); take a newer snapshot"
        ) from error
    return pa.table(actions)
