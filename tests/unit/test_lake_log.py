"""The transaction log in storage: races for a number, lost answers, checkpoints, and writers that wake up late."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import RetryError, StopError
from lake import layout
from lake.transaction.checkpoint import RECORDS_BETWEEN_MIN
from lake.transaction.fold import Fold
from lake.transaction.lease import LeaseWatch, own_place, own_process, process_is_gone
from lake.transaction.log import TransactionLog
from lake.transaction.records import (
    RECORD_FORMAT,
    VERSION,
    Body,
    Decision,
    Lease,
    Publication,
    Record,
    encode_record,
)
from tests.kit.lake_log import AT_US, FaultyStorage, Folding, decision, lease, open_log, staging


def _decide(log: TransactionLog, name: str, origin: int | None = None) -> int | None:
    """The number of a decision of id `name`, None when it is void or was decided already."""
    wanted = decision(name, origin=origin, adds=(name,), base=log.refresh().number)

    def body(fold: Fold) -> Body | None:
        return None if fold.why_void(wanted, fold.number + 1) else wanted

    added = log.add(body, "test")
    return added[0] if added and added[1] is None else None


def test_a_record_is_read_by_everybody(tmp_path: Path) -> None:
    """What one log adds, another finds."""
    one, two = open_log(tmp_path), open_log(tmp_path)
    assert _decide(one, "a", 0) == 1
    assert _decide(two, "b", 1) == 2
    assert vars(one.refresh()) == vars(two.refresh())


def test_the_loser_of_a_number_goes_on_with_the_next(tmp_path: Path) -> None:
    """Another writer takes the number between our reading and our creating: we evaluate again, behind it."""
    storage = FaultyStorage(tmp_path)
    one, two = open_log(tmp_path, storage), open_log(tmp_path)

    def other_first(path: str) -> None:
        storage.before = lambda path: None
        assert _decide(two, "b", 0) == 1

    storage.before = other_first
    seen: list[int] = []

    def body(fold: Fold) -> Body | None:
        seen.append(fold.number)
        return decision("a", adds=("a",))

    assert one.add(body, "test") == (2, None)
    assert seen == [0, 1]


def test_the_loser_of_a_number_learns_that_it_is_fenced(tmp_path: Path) -> None:
    """Two workers move the same chain from the same origin: the second's decision is not even written."""
    storage = FaultyStorage(tmp_path)
    one, two = open_log(tmp_path, storage), open_log(tmp_path)

    def other_first(path: str) -> None:
        storage.before = lambda path: None
        assert _decide(two, "b", 0) == 1

    storage.before = other_first
    assert _decide(one, "a", 0) is None
    assert one.refresh().chains["j", 0].staging == two.refresh().chains["j", 0].staging
    assert one.fold.number == 1


def _contend(root: Path, name: str, count: int, gate: multiprocessing.synchronize.Barrier) -> None:
    log = open_log(root)
    gate.wait(30)
    for index in range(count):
        assert _decide(log, f"{name}{index}") is not None


def test_processes_that_contend_get_a_number_each(tmp_path: Path) -> None:
    """Four processes add 25 records each: numbers 1 to 100 without a gap, each id once."""
    open_log(tmp_path)
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(4)
    processes = [context.Process(target=_contend, args=(tmp_path, f"p{i}-", 25, gate)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    fold = open_log(tmp_path).refresh()
    assert fold.number == 100
    assert len(fold.decided) == 100


def test_a_lost_answer_is_recognised_by_the_random_id(tmp_path: Path) -> None:
    """The record is there, though its writer heard "exists": it does not write another."""
    storage = FaultyStorage(tmp_path)
    log = open_log(tmp_path, storage)
    original = storage.create

    def exists(path: str, content: bytes, point: str) -> bool:
        original(path, content, point)
        return False

    storage.create = exists  # type: ignore[method-assign]
    assert log.add(lambda fold: decision("a", adds=("a",)), "test") == (1, None)
    assert log.refresh().number == 1


def test_a_lost_answer_that_raised_is_found_by_reading(tmp_path: Path) -> None:
    """After an error whose record is there all the same, deciding again finds it decided."""
    storage = FaultyStorage(tmp_path)
    log = open_log(tmp_path, storage)
    wanted = decision("a", adds=("a",))
    storage.lose_the_next_answer()
    with pytest.raises(RetryError):
        log.add(lambda fold: wanted, "test")
    assert log.add(lambda fold: None if wanted.staging in fold.decided else wanted, "test") is None
    assert log.fold.decided == {wanted.staging: 1}


def _fill(log: TransactionLog, through: int) -> None:
    """Add and publish decisions until the log's number is at least `through`."""
    log.refresh()
    if log.fold.lease is None:
        log.add(lambda fold: lease(0), "test")
    while log.fold.number < through:
        added = log.add(lambda fold: decision(f"{fold.number}", base=fold.number), "test")
        assert added is not None
        assert added[1] is None
        log.add(lambda fold: Publication(1, fold.number, {"t": fold.number}), "test")


def test_checkpoints_bound_what_is_read_and_kept(tmp_path: Path) -> None:
    """After 1,000 records there are two checkpoints and the records behind the older one; the state is the same."""
    log = open_log(tmp_path)
    _fill(log, 10)
    for target in range(20, 1000, 10):
        _fill(log, target)
        log.checkpoint_if_due()
    kept = layout.numbers_in(os.listdir(tmp_path / layout.TRANSACTIONS))
    checkpoints = layout.numbers_in(os.listdir(tmp_path / layout.CHECKPOINTS))
    assert len(checkpoints) == 2
    assert kept[0] == checkpoints[0] + 1
    assert len(kept) < 3 * RECORDS_BETWEEN_MIN
    assert vars(open_log(tmp_path).refresh()) == vars(log.fold)


def test_a_reader_that_a_cleaner_overtook_starts_from_the_checkpoint(tmp_path: Path) -> None:
    """A missing number is the end of the log only when no checkpoint lies beyond it."""
    writer, reader = open_log(tmp_path), open_log(tmp_path)
    _fill(writer, 5)
    reader.refresh()
    for target in (150, 300):
        _fill(writer, target)
        assert writer.checkpoint_if_due()
    assert not (tmp_path / layout.transaction_path(6)).exists()
    assert vars(reader.refresh()) == vars(writer.fold)


def test_a_record_written_into_the_cleaned_range_is_not_in_the_log(tmp_path: Path) -> None:
    """A writer sleeps before it creates its number, which is cleaned meanwhile: its record does not count there."""
    storage = FaultyStorage(tmp_path)
    sleeper, writer = open_log(tmp_path, storage), open_log(tmp_path)
    _fill(writer, 5)

    def sleep(path: str) -> None:
        storage.before = lambda path: None
        for target in (150, 300):
            _fill(writer, target)
            assert writer.checkpoint_if_due()

    storage.before = sleep
    number = _decide(sleeper, "late")
    assert number is not None
    assert number > 300
    assert vars(writer.refresh()) == vars(sleeper.fold)
    stray = layout.numbers_in(os.listdir(tmp_path / layout.TRANSACTIONS))[0]
    assert stray < 10


def test_a_reader_does_not_take_a_stray_record_for_the_log(tmp_path: Path) -> None:
    """A slow reader comes to the number where a stray record lies, right before records that are still there."""
    storage = FaultyStorage(tmp_path)
    writer = open_log(tmp_path, storage)
    _fill(writer, 120)
    assert writer.checkpoint_if_due()
    first = writer.fold.number
    reader = open_log(tmp_path)
    reader.fold = Fold(reader.fold.parameters)  # reads from 1, as one that began before the checkpoint
    _fill(writer, 240)
    assert writer.checkpoint_if_due()
    assert not (tmp_path / layout.transaction_path(first)).exists()
    slow = open_log(tmp_path)
    folding = Folding()
    while folding.fold.number < first - 1:
        folding.give(decision(f"x{folding.fold.number}", base=folding.fold.number))
    slow.fold = folding.fold
    stray = Record(RECORD_FORMAT, VERSION, first, "f" * 32, AT_US, "zombie", decision("stray", base=first - 1))
    storage.create(layout.transaction_path(first), encode_record(stray), "test")
    assert vars(slow.refresh()) == vars(writer.fold)
    assert staging("stray", first - 1) not in slow.fold.decided


def test_a_lost_answer_after_cleaning_is_not_decided_twice(tmp_path: Path) -> None:
    """The answer is lost, the record is checkpointed and cleaned; deciding again finds the id among the decided."""
    storage = FaultyStorage(tmp_path)
    unlucky, writer = open_log(tmp_path, storage), open_log(tmp_path)
    _fill(writer, 5)
    wanted = decision("a", adds=("a",), base=5)
    storage.lose_the_next_answer()
    with pytest.raises(RetryError):
        unlucky.add(lambda fold: wanted, "test")
    for target in (150, 300):
        _fill(writer, target)
        assert writer.checkpoint_if_due()
    assert unlucky.add(lambda fold: None if wanted.staging in fold.decided else wanted, "test") is None
    assert unlucky.fold.decided[wanted.staging] == 6


def test_a_damaged_record_stops_the_reader(tmp_path: Path) -> None:
    """Nothing after a record that cannot be read is guessed."""
    log = open_log(tmp_path)
    _fill(log, 3)
    (tmp_path / layout.transaction_path(2)).write_bytes(b"{}")
    with pytest.raises(StopError, match="transaction 2 is damaged"):
        open_log(tmp_path).refresh()


def test_records_come_with_their_verdicts(tmp_path: Path) -> None:
    """What a person sees of the log says which records are void."""
    log = open_log(tmp_path)
    _decide(log, "a", 0)
    log.add(lambda fold: Decision(staging("b"), {}, decision("b", origin=0).links), "test")
    assert [(record.number, reason) for record, reason in log.records()] == [(1, None), (2, "chain")]


def _watched(duration_ms: int = 10_000, place: str = "", process: str = "") -> Folding:
    folding = Folding()
    folding.give(Lease(0, "holder", duration_ms, place, process))
    return folding


def test_a_lease_runs_out_by_the_watchers_own_clock() -> None:
    """Free only after its duration without a sign of life; each sign begins it anew."""
    clock = ManualClock(AT_US)
    watch, folding = LeaseWatch(clock), _watched()
    assert LeaseWatch(clock).free(None)
    assert not watch.free(folding.fold.lease)
    clock.advance(9)
    assert not watch.free(folding.fold.lease)
    folding.give(decision("a", adds=("x",)))
    assert folding.publish(2) is None
    assert not watch.free(folding.fold.lease)
    clock.advance(9)
    assert not watch.free(folding.fold.lease)
    clock.advance(2)
    assert watch.free(folding.fold.lease)


def test_a_lease_of_long_ago_is_free_at_first_sight() -> None:
    """Who opens a lake that was left alone need not wait; later only the own clock counts, whatever the wall says."""
    clock = ManualClock(AT_US + 20_000_000)
    assert LeaseWatch(clock).free(_watched().fold.lease)
    clock = ManualClock(AT_US)
    watch, folding = LeaseWatch(clock), _watched()
    assert not watch.free(folding.fold.lease)
    clock.jump(1000)
    assert not watch.free(folding.fold.lease)


def test_a_lease_given_back_is_free() -> None:
    """A duration of 0 is no lease."""
    assert LeaseWatch(ManualClock(AT_US)).free(_watched(duration_ms=0).fold.lease)


def test_a_holder_that_was_killed_here_is_seen_to_be_gone() -> None:
    """At the same place a dead process loses its lease at once; one elsewhere, or alive, does not."""
    assert not process_is_gone(own_place(), own_process())
    assert not process_is_gone("elsewhere", "1 1")
    child = os.fork()
    if child == 0:
        signal.pause()
    stat = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    process = f"{child} {stat[19]}"
    assert not process_is_gone(own_place(), process)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert process_is_gone(own_place(), process)
    assert LeaseWatch(ManualClock(AT_US)).free(_watched(place=own_place(), process=process).fold.lease)
