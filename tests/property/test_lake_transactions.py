"""Seeded interleavings of writers, appliers and a reader over one transaction log, with lost replies and crashes.

Everything is the product's code but the storage and the tables' Delta logs, which are in memory. At every access to
storage another actor may act, so that each step of one happens between any two steps of another."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import FencedError, RetryError
from lake.transaction import checkpoint, coordinator
from lake.transaction.coordinator import Coordinator
from lake.transaction.fold import Fold, Parameters
from lake.transaction.log import TransactionLog
from lake.transaction.records import Change, Column, Decision, File, Link, State
from tests.kit.lake_log import AT_US, COLUMNS, MemoryStorage, staging

TABLES = ("a", "b")
STEPS = 120


class _KilledError(Exception):
    """The actor is dead from here on."""


class MemoryTable:
    """A table's Delta log: versions with the application's transaction and the files live in them."""

    def __init__(self) -> None:
        self.versions: list[tuple[int, tuple[str, ...]]] = [(0, ())]


@dataclass
class _Handle:
    """An applier's view of a table. As deltalake: it commits on what it loaded, or is refused when that is old."""

    table: MemoryTable
    around: Callable[[str], None]

    def start_from(self, version: int) -> None:
        """Nothing is ever torn in memory."""

    def checkpoint_if_due(self) -> bool:
        """Nothing to keep short."""
        return False

    def commit(self, schema: tuple[Column, ...], changes: dict[int, Change], through: int, at_ms: int) -> int:
        """See `lake.delta.DeltaLog.commit`."""
        while True:
            loaded = len(self.table.versions)
            present, files = self.table.versions[-1]
            missing = [change for number, change in sorted(changes.items()) if number > present]
            self.around("before")
            if loaded != len(self.table.versions):
                continue
            if missing:
                added = tuple(file.path for change in missing for file in change.adds)
                self.table.versions.append((through, files + added))
            version = len(self.table.versions) - 1
            self.around("after")
            return version


@dataclass
class World:
    """The storage, the tables, and who acts on them."""

    generator: random.Random
    clock: ManualClock = field(default_factory=lambda: ManualClock(AT_US))
    tables: dict[str, MemoryTable] = field(default_factory=lambda: {name: MemoryTable() for name in TABLES})
    acting: list[Actor] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    fenced: set[str] = field(default_factory=set)
    moved_on: dict[tuple[int, int], str] = field(default_factory=dict)
    steps_left: int = STEPS

    def __post_init__(self) -> None:
        self.storage = MemoryStorage(self.around)
        self.actors = [Actor(self, name, partition) for name, partition in (("x", 0), ("y", 0), ("z", 1))]

    def around(self, when: str) -> None:
        """Something else may happen here: another actor acts, a reply is lost, the actor is killed, time passes."""
        if self.steps_left <= 0 or not self.acting:
            return
        event = self.generator.random()
        if event < 0.25 and len(self.acting) < 3:
            # Now and then long enough for the log to be cleaned beneath whoever waits here.
            for _ in range(self.generator.choice([1, 1, 1, 2, 5, 25])):
                self.act()
        elif event < 0.32:
            raise RetryError(f"no answer {when} the access")
        elif event < 0.36:
            raise _KilledError
        elif event < 0.45:
            self.clock.advance(self.generator.choice([1, 6, 11]))

    def act(self) -> None:
        """An actor that is not in the middle of something does its next step."""
        self.steps_left -= 1
        idle = [actor for actor in self.actors if actor not in self.acting]
        actor = self.generator.choice(idle)
        self.acting.append(actor)
        try:
            actor.act()
        except _KilledError:
            self.actors[self.actors.index(actor)] = Actor(self, f"{actor.name}'", actor.partition)
        except RetryError:
            pass
        finally:
            self.acting.remove(actor)

    def read(self, coordinator: Coordinator) -> None:
        """Take the last snapshot and hold it against the log: whole transactions, all decided ones, nothing else."""

        def check(fold: Fold) -> None:
            for published in fold.publications:
                wanted = Counter(name for name, number in fold.decided.items() if number <= published.through)
                for table in TABLES:
                    paths = self.tables[table].versions[published.versions[table]][1]
                    files = Counter(path.removeprefix(f"{table}/") for path in paths)
                    assert files == wanted, (table, published, files - wanted, wanted - files)

        coordinator.view(check)


class Actor:
    """A process: it moves a chain that others move too, decides anew what it is not sure of, applies and reads."""

    def __init__(self, world: World, name: str, partition: int) -> None:
        self.world = world
        self.name = name
        self.partition = partition
        log = TransactionLog(world.storage, Parameters(), world.clock, name)
        holder = f"{name}-{world.generator.getrandbits(64)}"
        self.coordinator = Coordinator(
            log, lambda table: _Handle(world.tables[table], world.around), world.clock, holder
        )
        self.unsure: Decision | None = None
        self.origin: int | None = None
        self.count = 0

    def act(self) -> None:
        """One step, by lot."""
        step = self.world.generator.random()
        if step < 0.5:
            self.decide()
        elif step < 0.85:
            self.coordinator.apply()
        elif step < 0.95:
            self.world.read(self.coordinator)
        else:
            self.coordinator.release()

    def _prepare(self) -> Decision:
        self.count += 1

        def made(fold: Fold) -> Decision:
            if self.origin is None:
                head = fold.chains.get(("j", self.partition))
                self.origin = head.transaction if head else 0
            name = staging(f"{self.name}{self.count}"[-16:], fold.number)
            changes = {table: Change(COLUMNS, (File(f"{table}/{name}", 1, {}),)) for table in TABLES}
            return Decision(name, changes, (Link("j", self.partition, self.origin, 0, "", State()),))

        return self.coordinator.view(made)

    def decide(self) -> None:
        """Move the chain one step, or find out what became of the last try."""
        decision = self.unsure or self._prepare()
        self.unsure = decision
        try:
            number = self.coordinator.decide(decision)
        except FencedError:
            self.world.fenced.add(decision.staging)
            self.unsure = self.origin = None
            return
        self.world.acknowledged[decision.staging] = number
        (link,) = decision.links
        first = self.world.moved_on.setdefault((link.partition, link.origin), decision.staging)
        assert first == decision.staging, f"two transactions went on from {link.origin}"
        self.unsure = None
        self.origin = number


class _InTurn:
    """An executor without threads, so that a seed repeats itself."""

    def __init__(self, workers: int, prefix: str) -> None:
        self.map = map

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture(autouse=True)
def small_and_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints and cleaning after every few records; one thing after the other."""
    monkeypatch.setattr(checkpoint, "RECORDS_BETWEEN_MIN", 6)
    monkeypatch.setattr(coordinator, "ThreadPoolExecutor", _InTurn)


@settings(max_examples=300)
@given(seed=st.integers(0, 1 << 32))
def test_transactions_are_whole_and_none_is_lost_or_doubled(seed: int) -> None:
    """Whatever happens between two steps: what was acknowledged is in both tables once; what was fenced, never."""
    world = World(random.Random(seed))
    while world.steps_left > 0:
        world.act()
    # Everybody is gone; somebody new rolls forward what is left.
    world.clock.advance(60)
    last = Actor(world, "last", 9)
    last.coordinator.apply()
    world.read(last.coordinator)
    decided = last.coordinator.view(lambda fold: dict(fold.decided))
    assert last.coordinator.view(lambda fold: len(fold.pending)) == 0
    for name, number in world.acknowledged.items():
        assert decided[name] == number
    assert not world.fenced & set(decided)
    for table in TABLES:
        files = Counter(path.removeprefix(f"{table}/") for path in world.tables[table].versions[-1][1])
        assert files == Counter(list(decided))
