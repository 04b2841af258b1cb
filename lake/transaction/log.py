"""The transaction log in storage: reading it into a fold, adding to it, checkpoints, and cleaning behind them.

Adding a record, in this order:

1. read what others added, so that number N - 1 is folded; sync the folder if any of that is not known to be durable;
2. create N if absent; "exists" means that somebody else has N, unless the random id there is ours (a lost answer);
3. read the checkpoints again: if one covers N, a cleaner had removed the true N before, and ours is not in the log;
4. fold it: the verdict says whether it counts.

**Delivery**: when `add` returns, the record is durable and everybody will fold it at its number. `kill -9` within it
leaves the record there or not; the fold of whoever opens the lake next says which. **Bounds**: `add` tries
`TRIES_MAX` numbers before it raises RetryError; a fold is read from the highest checkpoint, so that opening costs
that plus the records since."""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.contract.clock import Clock
from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import RetryError, StopError
from lake import layout
from lake.storage import Storage
from lake.transaction.checkpoint import decode_checkpoint, due, encode_checkpoint
from lake.transaction.fold import Fold, Parameters
from lake.transaction.records import RECORD_FORMAT, VERSION, Body, Record, decode_record, encode_record

__all__ = ["TransactionLog"]

TRIES_MAX = 1000
_READS_MAX = 100


class TransactionLog:
    """One process's view of the log. Not thread-safe: the lake calls it under one lock."""

    def __init__(self, storage: Storage, parameters: Parameters, clock: Clock, writer: str) -> None:
        self._storage = storage
        self._parameters = parameters
        self._clock = clock
        self._writer = writer
        self._durable_through = 0
        self._checkpoint = 0
        self._trusted = 0
        self.fold = Fold(parameters)

    def refresh(self) -> Fold:
        """Fold every record that is in the log now; the fold."""
        for _ in range(_READS_MAX):
            while (content := self._storage.read(layout.transaction_path(self.fold.number + 1))) is not None:
                self.fold.apply(decode_record(content, self.fold.number + 1))
            # A checkpoint above what we had trusted says that a cleaner may have been here meanwhile: then a missing
            # number need not be the end, and a number we read may be a late writer's, put into the cleaned range.
            highest = self._highest_checkpoint()
            if highest <= self._trusted:
                self._trusted = self.fold.number
                self._checkpoint = max(self._checkpoint, highest)
                return self.fold
            self._load(highest)
        raise RetryError("the transaction log is cleaned faster than it can be read; try again")

    def _highest_checkpoint(self) -> int:
        numbers = layout.numbers_in(self._storage.list(layout.CHECKPOINTS))
        return numbers[-1] if numbers else 0

    def _load(self, number: int) -> None:
        content = self._storage.read(layout.checkpoint_path(number))
        if content is None:
            return  # cleaned away meanwhile: a higher one is there
        self.fold = decode_checkpoint(content, number, self._parameters)
        if self.fold.number != number:
            raise StopError(f"checkpoint {number} says that it is {self.fold.number}; is this file in its place?")
        self._checkpoint = self._trusted = number
        self._durable_through = max(self._durable_through, number)

    def records(self) -> list[tuple[Record, str | None]]:
        """The records still in storage behind its lowest checkpoint, each with the reason if it is void."""
        checkpoints = layout.numbers_in(self._storage.list(layout.CHECKPOINTS))
        reader = TransactionLog(self._storage, self._parameters, self._clock, self._writer)
        if checkpoints:
            reader._load(checkpoints[0])
        found = []
        while (content := self._storage.read(layout.transaction_path(reader.fold.number + 1))) is not None:
            record = decode_record(content, reader.fold.number + 1)
            found.append((record, reader.fold.apply(record)))
        return found

    def sync(self) -> None:
        """Make every folded record durable, as whoever acts on one must."""
        if self._durable_through < self.fold.number:
            number = self.fold.number
            self._storage.sync(layout.TRANSACTIONS)
            self._durable_through = number

    def add(self, body: Callable[[Fold], Body | None], point: str) -> tuple[int, str | None] | None:
        """Add one record; its number and the verdict on it, or None when `body` no longer wants to.

        `body` is asked anew before each try, with the fold up to the number before. `point` names the crash points.
        RetryError: it is not known whether the record is in the log; reading the log will tell.
        """
        identifier = layout.new_id()
        for _ in range(TRIES_MAX):
            self.refresh()
            self.sync()
            wanted = body(self.fold)
            if wanted is None:
                return None
            number = self.fold.number + 1
            record = Record(RECORD_FORMAT, VERSION, number, identifier, self._clock.time_us(), self._writer, wanted)
            if not self._create(record, point):
                continue
            if self._highest_checkpoint() >= number:
                continue  # not in the log: everything up to that checkpoint was cleaned before we wrote
            return number, self._fold_own(record)
        raise RetryError(f"no free number in the transaction log within {TRIES_MAX} tries; other writers are faster")

    def _create(self, record: Record, point: str) -> bool:
        """Whether the log has `record` at its number: created now, or by an attempt whose answer was lost."""
        path = layout.transaction_path(record.number)
        if self._storage.create(path, encode_record(record), point):
            self._durable_through = record.number
            return True
        content = self._storage.read(path)
        return content is not None and decode_record(content, record.number).id == record.id

    def _fold_own(self, record: Record) -> str | None:
        assert record.number == self.fold.number + 1
        self._trusted = record.number
        return self.fold.apply(record)

    def checkpoint_if_due(self) -> bool:
        """Write a checkpoint and clean behind the one before it, if enough records came since; whether it did."""
        if not due(self.fold, self._checkpoint):
            return False
        self.sync()
        number = self.fold.number
        path = layout.checkpoint_path(number)
        if not self._storage.create(path, encode_checkpoint(self.fold), "lake.checkpoint"):
            self._storage.sync(layout.CHECKPOINTS)
        self._checkpoint = number
        self._clean()
        return True

    def _clean(self) -> None:
        """Unlink what lies below the last checkpoint but one, which stays for readers that have just chosen it."""
        checkpoints = layout.numbers_in(self._storage.list(layout.CHECKPOINTS))
        if len(checkpoints) < 2:
            return
        through = checkpoints[-2]
        for number in layout.numbers_in(self._storage.list(layout.TRANSACTIONS)):
            if number <= through:
                crash_point("lake.clean.before_unlink")
                self._storage.delete(layout.transaction_path(number))
        for number in checkpoints[:-2]:
            self._storage.delete(layout.checkpoint_path(number))
