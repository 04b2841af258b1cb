"""Records of the lake's transaction log made by hand, a log over a directory, and a storage that goes wrong on demand.

**Delivery**: nothing is kept but in the test's folder. **Bounds**: none but the test's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import RetryError
from lake.storage import DirectoryStorage
from lake.transaction.fold import Fold, Parameters
from lake.transaction.log import TransactionLog
from lake.transaction.records import (
    RECORD_FORMAT,
    VERSION,
    Abort,
    Body,
    Change,
    Column,
    Decision,
    File,
    Lease,
    Link,
    Publication,
    Record,
    RemovedFile,
    State,
)

__all__ = [
    "AT_US",
    "COLUMNS",
    "FaultyStorage",
    "Folding",
    "MemoryStorage",
    "decision",
    "lease",
    "open_log",
    "staging",
]

AT_US = 1_790_000_000_000_000
COLUMNS = (Column("ts", "timestamp"), Column("value", "double"))


def staging(name: str, base: int = 0) -> str:
    """A staging id that is `name` in hexadecimal, of `base`."""
    return f"{base:016x}-{name.encode().hex():0>32}"


def decision(
    name: str,
    *,
    origin: int | None = None,
    base: int = 0,
    adds: tuple[str, ...] = (),
    removes: tuple[str, ...] = (),
    schema: tuple[Column, ...] | None = COLUMNS,
    partition: int = 0,
) -> Decision:
    """A decision of staging id `name` over table `t`; with `origin`, a link of job `j` too."""
    change = Change(
        schema=schema,
        adds=tuple(File(path, 10, {"numRecords": 1}) for path in adds),
        removes=tuple(RemovedFile(path, 10) for path in removes),
    )
    links = () if origin is None else (Link("j", partition, origin, 7, "topic", State()),)
    return Decision(staging(name, base), {"t": change} if adds or removes or schema else {}, links)


def lease(replaces: int, holder: str = "h", duration_ms: int = 10_000) -> Lease:
    """A lease of a holder at no place."""
    return Lease(replaces, holder, duration_ms, "", "")


class Folding:
    """A fold that numbers what it is given."""

    def __init__(self, parameters: Parameters | None = None) -> None:
        self.fold = Fold(parameters or Parameters())
        self.at_us = AT_US

    def give(self, body: Body) -> str | None:
        """Fold `body` as the next record; the reason if it is void."""
        number = self.fold.number + 1
        return self.fold.apply(Record(RECORD_FORMAT, VERSION, number, f"{number:032x}", self.at_us, "test", body))

    def publish(self, through: int, lease_number: int | None = None) -> str | None:
        """Publish up to `through`, under the present lease unless told otherwise."""
        present = self.fold.lease.number if self.fold.lease else 0
        return self.give(Publication(present if lease_number is None else lease_number, through, {"t": through}))

    def abort(self, name: str, base: int = 0) -> str | None:
        """Abort the staging id `name`."""
        return self.give(Abort(staging(name, base)))


class FaultyStorage(DirectoryStorage):
    """A directory whose `create` calls `before` and `after` around itself, which may raise, wait or write."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before: Callable[[str], None] = lambda path: None
        self.after: Callable[[str], None] = lambda path: None

    def create(self, path: str, content: bytes, point: str) -> bool:
        self.before(path)
        created = super().create(path, content, point)
        self.after(path)
        return created

    def lose_the_next_answer(self) -> None:
        """The next `create` takes place, and its caller hears of a failure."""

        def lose(path: str) -> None:
            self.after = lambda path: None
            raise RetryError(f"no answer for {path}")

        self.after = lose


def open_log(root: Path, storage: DirectoryStorage | None = None) -> TransactionLog:
    """A transaction log in `root`."""
    storage = storage or DirectoryStorage(root)
    storage.make_folders()
    return TransactionLog(storage, Parameters(), ManualClock(AT_US), "test")


class MemoryStorage:
    """Storage in a dictionary, shared by all who hold it. `create` calls `around("before")` and `around("after")`."""

    def __init__(self, around: Callable[[str], None]) -> None:
        self.objects: dict[str, bytes] = {}
        self._around = around

    def create(self, path: str, content: bytes, point: str) -> bool:
        """As a directory's, between the two calls of `around`."""
        self._around("before")
        created = path not in self.objects
        self.objects.setdefault(path, content)
        self._around("after")
        return created

    def read(self, path: str) -> bytes | None:
        """The content."""
        return self.objects.get(path)

    def list(self, folder: str) -> list[str]:
        """Names right below `folder`."""
        heads = (path.rpartition("/") for path in self.objects)
        return [name for head, _, name in heads if head == folder]

    def delete(self, path: str) -> None:
        """Forget it."""
        self.objects.pop(path, None)

    def sync(self, folder: str) -> None:
        """Memory is as durable as it gets here."""

    def open_output(self, path: str) -> BinaryIO:
        """Not used by the log."""
        raise NotImplementedError

    def sync_files(self, paths: Iterable[str]) -> None:
        """Not used by the log."""
        raise NotImplementedError

    def size(self, path: str) -> int | None:
        """Bytes of an object."""
        content = self.objects.get(path)
        return None if content is None else len(content)

    def location(self, path: str) -> str:
        """Not used by the log."""
        return f"memory:{path}"
