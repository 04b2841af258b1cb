"""Landing: what runs in the worker's own threads - take partitions up, run one step, apply what is decided.

One thread steps (fold to decision), another applies, so that the Parquet of the next transaction is written while the
last one is being published. The step thread waits for it before it hands over the next: never more than one behind.

**Delivery**: after FencedError or GivenUpError the state in memory is worthless; the caller takes the partitions up
again. A transaction that was decided and not applied is applied by whoever comes next.
**Bounds**: one step, one applying, both interruptible while they wait for a lake that cannot. A lake with TABLES_MAX
tables gets no new ones from here: what would make one is a dead letter.
"""

from __future__ import annotations

import logging
import threading
import zlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NoReturn

from edge_agent.contract.clock import Clock
from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import FencedError, LimitError, RejectError, RetryError, StopError
from edge_agent.contract.topics import LOG_BATCHES
from lake.schema import KNOWN_TABLES
from stream_jobs.appends import Check, Rows
from stream_jobs.jobs import Job

from .batching import Record
from .freshness import WINDOW_TRANSACTIONS, Freshness
from .recovery import LogView, Partition, read_facts, restore
from .steps import Phases, StepResult, run_step
from .transaction import LakeView, commit, repeated

__all__ = ["Counts", "Landing"]

_log = logging.getLogger("edgewater.worker")

REFUSALS_MAX = 5
TABLES_MAX = 1000
"""Tables of a lake beyond which rows make no new one: somebody names streams after what changes."""
_TOLD_INTERVAL_S = 10.0
_TOLD_CHARACTERS_MAX = 300


@dataclass(slots=True)
class Counts:
    """What this process has landed since it started."""

    rows: int = 0
    batches: int = 0
    transactions: int = 0
    dead_letters: int = 0
    skipped_rows: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def add(self, result: StepResult) -> None:
        """Count one decided step."""
        self.rows += result.rows
        self.batches += result.batches
        self.transactions += 1
        self.dead_letters += result.dead_letters
        self.skipped_rows += result.skipped_rows
        self.outcomes.update({outcome.value: count for outcome, count in result.outcomes.items()})


class Landing:
    """The worker's work on partitions. `take_up` and `step` are for one thread at a time."""

    def __init__(
        self,
        *,
        job: Job,
        lake: LakeView,
        link: Callable[..., Any],
        open_log: Callable[[], LogView],
        clock: Clock,
        alarm: Callable[[str], None],
        check: Check | None = None,
        tables: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """`check` and `tables` (the names of those that there are) are the lake's."""
        self.job_name = job.name
        self.counts = Counts()
        self.phases = Phases()
        self.freshness = Freshness()
        self.last_transaction = 0
        self.applied_transaction = 0
        self.waiting_for = ""
        self.applying_waits_for = ""
        self._job = job
        self._lake = lake
        self._link = link
        self._open_log = open_log
        self._clock = clock
        self._alarm = alarm
        self._check = check
        self._tables = tables
        self._tables_seen: set[str] = set()
        self._log_client: LogView | None = None
        self._first_table: Sequence[int] | None = None
        self._refusals = 0
        self._failed: Counter[str] = Counter()
        self._told_at_s: dict[str, float] = {}
        self._woken = threading.Event()
        self._applier = ThreadPoolExecutor(1, "apply")
        self._applying: Future[None] | None = None
        self._unpublished: deque[tuple[int, Sequence[tuple[Any, Any]]]] = deque(maxlen=WINDOW_TRANSACTIONS)

    def wake(self) -> None:
        """End a pause between tries, so that it is looked again whether anybody still waits."""
        self._woken.set()

    def close(self) -> None:
        """Wait for the applying under way, close the connection to the log, let another worker apply from now on."""
        self._applier.shutdown(wait=True)
        self._forget_log()
        try:
            self._lake.close()
        except RetryError as error:
            _log.warning("the lake's lease was not given back: %s", error)

    # Partitions

    def take_up(self, numbers: Sequence[int], given_up: Callable[[], bool]) -> dict[int, Partition]:
        """The partitions as the lake has them, each at the offset to read from. GivenUpError once `given_up()`."""
        return repeated(lambda: self._take_up(numbers), given_up, self._woken, self._report)

    def _take_up(self, numbers: Sequence[int]) -> dict[int, Partition]:
        found = {}
        try:
            if self._log_client is None:
                self._log_client = self._open_log()
            log = self._log_client
            first_table = self._first_table or self._table_1(log)
            for number in numbers:
                head = self._lake.chain(self._job.name, number)
                partition, problem = restore(number, head, read_facts(log, number, head), first_table)
                found[number] = partition
                if problem:
                    self._alarm(problem)
        except (RetryError, FencedError) as error:
            self._forget_log()
            if isinstance(error, FencedError):
                raise RetryError(f"the log changed while it was asked: {error}") from None
            raise
        return found

    def _table_1(self, log: LogView) -> Sequence[int]:
        tables = log.tables()
        if tables is None:
            raise RetryError("the log has no shard table yet; the first bridge writes it")
        self._first_table = tables[0].partitions
        return self._first_table

    def _forget_log(self) -> None:
        if self._log_client is not None:
            self._log_client.close()
            self._log_client = None

    def first_offset(self, number: int, offset: int, end: int) -> int:
        """The offset of the partition's first record from `offset` on, below `end`, as another reader sees the log."""
        if self._log_client is None:
            self._log_client = self._open_log()
        return next((record.offset for record in self._log_client.read(LOG_BATCHES, number, offset, end)), end)

    # Steps

    def step(
        self,
        partitions: Mapping[int, Partition],
        records: Mapping[int, Sequence[Record]],
        given_up: Callable[[], bool],
    ) -> StepResult:
        """Land `records` in one transaction. FencedError or GivenUpError: take the partitions up again."""
        crash_point("worker.step.before")
        moved = [partitions[number] for number in records]
        folds = {partition.number: partition.fold for partition in moved}

        def retry(action: Callable[[], Any]) -> Any:
            return repeated(action, given_up, self._woken, self._report)

        asked = self._check

        def check(table: str, rows: Rows) -> Rows:
            assert asked is not None
            if table not in self._tables_seen:
                self._check_room(table, retry(self._tables))
            found = retry(lambda: asked(table, rows))
            self._tables_seen.add(table)
            return found

        result = run_step(self._job, folds, records, self.phases, None if asked is None else check)
        for partition in moved:
            partition.last_crc = zlib.crc32(records[partition.number][-1].value)
        crash_point("worker.prepare.before")
        try:
            self.last_transaction = commit(
                self._lake,
                result.appends,
                moved,
                job=self._job.name,
                phases=self.phases,
                retry=retry,
                link=self._link,
            )
        except RejectError as error:
            self._refused(error)
        self._refusals = 0
        self.counts.add(result)
        self._tell_failures(result)
        if self._applying is not None:
            self._applying.result()
        self._unpublished.append((self.last_transaction, result.samples))
        self._applying = self._applier.submit(self._apply)
        return result

    def _check_room(self, table: str, tables: Collection[str]) -> None:
        names = self._tables_seen.union(tables)
        if table not in names and table not in KNOWN_TABLES and len(names) >= TABLES_MAX:
            raise LimitError(
                "tables of the lake", len(names) + 1, TABLES_MAX,
                f"{table} would be a new one: name streams after what rows are, not after where they come from",
            )  # fmt: skip

    def _tell_failures(self, result: StepResult) -> None:
        """Log what failed, so that whoever runs a job sees it: a line for each step in _TOLD_INTERVAL_S."""
        now_s = self._clock.monotonic_s()
        for step, (count, last) in result.failures.items():
            self._failed[step] += count
            if now_s >= self._told_at_s.get(step, -_TOLD_INTERVAL_S) + _TOLD_INTERVAL_S:
                _log.warning(
                    "step %s failed for %d batches, which are in the table dead_letters; the last: %s",
                    step, self._failed.pop(step), last[:_TOLD_CHARACTERS_MAX],
                )  # fmt: skip
                self._told_at_s[step] = now_s

    def _refused(self, error: RejectError) -> NoReturn:
        """What was checked was refused: another worker changed the table in between, so the check will say it now."""
        self._refusals += 1
        if self._refusals < REFUSALS_MAX:
            raise FencedError(f"a table was changed while the step ran: {error}") from None
        raise StopError(f"the lake refuses what it took when asked: {error}; please report it") from error

    def apply_rest(self) -> None:
        """Apply what is decided, here or elsewhere, in the applying thread; nothing when that is under way."""
        if self._applying is None or self._applying.done():
            self._applying = self._applier.submit(self._apply)

    def _apply(self) -> None:
        crash_point("worker.apply.before")
        try:
            with self.phases.timed("apply"):
                self.applied_transaction = max(self.applied_transaction, self._lake.apply())
        except (RetryError, FencedError) as error:
            # Decided is decided: the next applying, here or elsewhere, makes it visible.
            self._report_applying(str(error))
            return
        self._report_applying("")
        while self._unpublished and self._unpublished[0][0] <= self.applied_transaction:
            _, samples = self._unpublished.popleft()
            self.freshness.published(self._clock.time_us(), self._clock.monotonic_s(), samples)

    def _report_applying(self, problem: str) -> None:
        if problem and problem != self.applying_waits_for:
            _log.warning("decided, and not applied yet: %s", problem)
        self.applying_waits_for = problem

    def _report(self, problem: str) -> None:
        if problem and problem != self.waiting_for:
            _log.warning("waiting: %s", problem)
        elif self.waiting_for and not problem:
            _log.info("going on")
        self.waiting_for = problem
