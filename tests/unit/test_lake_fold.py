"""The fold over the transaction log: what counts, and each reason for which a record is void."""

from __future__ import annotations

import pytest

from lake.transaction.checkpoint import decode_checkpoint, encode_checkpoint
from lake.transaction.fold import Fold, Parameters, merged_schema
from lake.transaction.records import Change, Column, Decision, Publication
from tests.kit.lake_log import COLUMNS, Folding, decision, lease, staging


def test_a_decision_moves_its_chain_and_adds_its_files() -> None:
    """After a decision the chain's head is its number, its files live, and it waits to be published."""
    folding = Folding()
    assert folding.give(decision("a", origin=0, adds=("x",))) is None
    fold = folding.fold
    assert fold.chains["j", 0].transaction == 1
    assert fold.tables["t"].files == {"x": 1}
    assert list(fold.pending) == [1]


def test_a_link_from_an_older_transaction_is_void() -> None:
    """A worker that lost its partition names a transaction that is the chain's last no more."""
    folding = Folding()
    assert folding.give(decision("a", origin=0, adds=("x",))) is None
    assert folding.give(decision("b", origin=1, adds=("y",))) is None
    assert folding.give(decision("c", origin=1, adds=("z",))) == "chain"
    assert folding.give(decision("d", origin=0, adds=("z",))) == "chain"
    assert folding.fold.chains["j", 0].transaction == 2
    assert "z" not in folding.fold.tables["t"].files


def test_a_link_to_a_transaction_that_never_was_is_void() -> None:
    """A chain without transactions begins at 0 only."""
    assert Folding().give(decision("a", origin=5)) == "chain"


def test_two_links_of_one_chain_are_void() -> None:
    """One decision moves a chain one step."""
    link = decision("a", origin=0).links[0]
    assert Folding().give(Decision(staging("a"), {}, (link, link))) == "chain"


def test_chains_of_other_partitions_do_not_disturb() -> None:
    """Each (job, partition) is a chain of its own."""
    folding = Folding()
    assert folding.give(decision("a", origin=0, adds=("x",))) is None
    assert folding.give(decision("b", origin=0, partition=1, adds=("y",))) is None


def test_a_second_decision_of_a_staging_id_is_void() -> None:
    """A writer that lost an answer and decides again changes nothing."""
    folding = Folding()
    assert folding.give(decision("a", adds=("x",))) is None
    assert folding.give(decision("a", adds=("x",))) == "decided"
    assert len(folding.fold.pending) == 1


def test_a_decision_of_an_aborted_id_is_void() -> None:
    """After a cleaner has given an id up, its files may be gone."""
    folding = Folding()
    assert folding.abort("a") is None
    assert folding.give(decision("a", adds=("x",))) == "aborted"
    assert folding.fold.tables == {}


def test_an_abort_of_a_decided_id_is_void() -> None:
    """What is decided stays decided, though a cleaner is late."""
    folding = Folding()
    assert folding.give(decision("a", origin=0, adds=("x",))) is None
    assert folding.give(decision("b", origin=1, adds=("y",))) is None
    assert folding.abort("a") == "decided"
    assert folding.abort("b") == "decided"
    assert folding.fold.aborted == {}


def test_a_second_abort_is_void() -> None:
    """Two cleaners may meet."""
    folding = Folding()
    assert folding.abort("a") is None
    assert folding.abort("a") == "aborted"


def test_a_staging_id_expires() -> None:
    """An id whose base lies too far back is void for ever, so that nobody has to remember it."""
    folding = Folding(Parameters(staging_expires_after=3))
    assert folding.give(decision("a", adds=("x",))) is None
    assert folding.abort("b") is None
    assert folding.give(decision("c", adds=("y",))) is None
    assert folding.give(decision("late", base=0, adds=("z",))) == "expired"
    assert folding.give(decision("new", base=4, adds=("z",))) is None
    assert folding.abort("late") == "expired"
    assert set(folding.fold.decided) == {staging("new", 4)}
    assert folding.fold.aborted == {}


@pytest.mark.parametrize("identifier", ["", "x", staging("a", 1), staging("a", 99), staging("a") + "0"])
def test_a_staging_id_that_cannot_be_is_void(identifier: str) -> None:
    """An id of another shape, or of a base that is not before the record."""
    assert Folding().give(Decision(identifier, {})) == "expired"


def test_a_publication_under_an_older_lease_is_void() -> None:
    """An applier that was replaced while it worked does not publish."""
    folding = Folding()
    assert folding.give(lease(0, "one")) is None
    assert folding.give(decision("a", adds=("x",))) is None
    assert folding.give(lease(1, "two")) is None
    assert folding.publish(2, lease_number=1) == "lease"
    assert folding.fold.published is None
    assert folding.publish(2) is None
    assert folding.fold.published_through == 2
    assert folding.fold.pending == {}


def test_a_publication_without_a_lease_or_under_one_given_back_is_void() -> None:
    """Only a holder publishes."""
    folding = Folding()
    assert folding.give(decision("a", adds=("x",))) is None
    assert folding.publish(1) == "lease"
    assert folding.give(lease(0)) is None
    assert folding.give(lease(3, duration_ms=0)) is None
    assert folding.publish(1) == "lease"


def test_a_publication_covers_something_new_that_is_decided() -> None:
    """Neither the past again nor the future."""
    folding = Folding()
    assert folding.give(lease(0)) is None
    assert folding.give(decision("a", adds=("x",))) is None
    assert folding.publish(3) == "order"
    assert folding.publish(2) is None
    assert folding.publish(2) == "order"


def test_a_lease_replaces_the_present_one_only() -> None:
    """Of two processes that take a free lease at once, the second finds it taken."""
    folding = Folding()
    assert folding.give(lease(0, "one")) is None
    assert folding.give(lease(0, "two")) == "lease"
    assert folding.give(lease(1, "three")) is None
    assert folding.fold.lease is not None
    assert (folding.fold.lease.number, folding.fold.lease.lease.holder) == (3, "three")


def test_a_removal_of_a_file_that_is_gone_is_void() -> None:
    """Two compactions of the same files: the second does not count, and adds nothing."""
    folding = Folding()
    assert folding.give(decision("a", adds=("x", "y"))) is None
    assert folding.give(decision("b", adds=("xy",), removes=("x", "y"))) is None
    assert folding.give(decision("c", adds=("xy2",), removes=("x", "y"))) == "files"
    assert folding.fold.tables["t"].files == {"xy": 2}
    assert set(folding.fold.removed["t"]) == {"x", "y"}


def test_a_file_is_added_once() -> None:
    """A path that lives, that was removed, or that is there twice cannot be added."""
    folding = Folding()
    assert folding.give(decision("a", adds=("x",))) is None
    assert folding.give(decision("b", adds=("x",))) == "files"
    assert folding.give(decision("c", removes=("x",))) is None
    assert folding.give(decision("d", adds=("x",))) == "files"
    assert folding.give(decision("e", adds=("y", "y"))) == "files"


def test_a_schema_must_go_with_the_tables() -> None:
    """Two writers create a table with other types: the first decides. Files for no table have no schema."""
    folding = Folding()
    assert folding.give(decision("n", adds=("x",), schema=None)) == "schema"
    assert folding.give(decision("a", adds=("x",))) is None
    assert folding.give(decision("b", adds=("y",), schema=(Column("ts", "timestamp"), Column("value", "string")))) == (
        "schema"
    )
    assert folding.give(decision("c", adds=("y",))) is None
    assert folding.fold.tables["t"].created == 2


def test_columns_are_added_and_widened_and_nothing_else() -> None:
    """The merged schema has every column, in the wider type; folds must agree."""
    small, large = (Column("a", "integer"),), (Column("b", "double"), Column("a", "long"))
    assert merged_schema(small, large) == (Column("a", "long"), Column("b", "double"))
    assert merged_schema(large, small) == large
    assert merged_schema(small, (Column("a", "string"),)) is None
    assert merged_schema(small, (Column("a", "double"),)) is None
    assert merged_schema(small, (Column("a", "integer", "sum"),)) is None
    folding = Folding()
    assert folding.give(decision("a", adds=("x",))) is None
    assert folding.give(decision("b", adds=("y",), schema=(*COLUMNS, Column("n", "long")))) is None
    assert folding.fold.tables["t"].schema == (*COLUMNS, Column("n", "long"))
    assert (folding.fold.tables["t"].created, folding.fold.tables["t"].schema_number) == (1, 2)


def test_what_is_void_changes_nothing() -> None:
    """A decision over two tables of which one does not fit leaves the other alone."""
    folding = Folding()
    good, bad = Change(schema=COLUMNS), Change(schema=None)
    assert folding.give(Decision(staging("a"), {"good": good, "missing": bad})) == "schema"
    assert folding.fold.tables == {}
    assert folding.fold.decided == {}


def test_old_snapshots_are_forgotten_and_the_last_one_never() -> None:
    """Publications and removed files are kept for the time that snapshots are, by the records' own times."""
    folding = Folding(Parameters(snapshots_kept_s=10))
    folding.give(lease(0))
    for step in range(5):
        folding.at_us += 4_000_000
        assert folding.give(decision(f"{step}", adds=(f"f{step}",), removes=(f"f{step - 1}",) if step else ())) is None
        assert folding.publish(folding.fold.number) is None
    fold = folding.fold
    assert [published.through for published in fold.publications] == [6, 8, 10]
    assert fold.forgotten_through == 4
    assert set(fold.removed["t"]) == {"f1", "f2", "f3"}
    folding.at_us += 100_000_000
    folding.give(decision("last", adds=("z",)))
    assert folding.publish(folding.fold.number) is None
    assert [published.through for published in fold.publications] == [12]
    assert fold.removed == {}


def _eventful() -> Fold:
    folding = Folding()
    folding.give(lease(0))
    folding.give(decision("a", origin=0, adds=("x", "y")))
    folding.abort("b")
    folding.publish(2)
    folding.give(decision("c", origin=2, adds=("z",), removes=("x",)))
    folding.give(decision("void", origin=2))
    return folding.fold


def test_a_checkpoint_gives_the_fold_back() -> None:
    """What is written and read is the same state, and goes on in the same way."""
    fold = _eventful()
    again = decode_checkpoint(encode_checkpoint(fold), fold.number, Parameters())
    assert vars(again) == vars(fold)
    for state in (fold, again):
        folding = Folding()
        folding.fold = state
        assert folding.give(decision("d", origin=2)) == "chain"
        assert folding.give(decision("b", origin=5)) == "aborted"
        assert folding.abort("a") == "decided"
        assert folding.give(decision("d", origin=5, removes=("z",))) is None
        assert folding.give(Publication(1, 10, {"t": 3})) is None
    assert vars(again) == vars(fold)
