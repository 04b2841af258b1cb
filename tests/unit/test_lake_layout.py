"""Names and paths of a lake."""

from __future__ import annotations

import pytest

from edge_agent.contract.errors import RejectError
from lake import layout


def test_a_staging_id_tells_its_base() -> None:
    """The number within the id is read from it, and from nothing that is none."""
    assert layout.staging_base(layout.new_staging(0x1234)) == 0x1234
    assert layout.staging_base("1234") is None
    assert layout.staging_base(layout.new_staging(1) + "x") is None
    assert layout.new_staging(1) != layout.new_staging(1)


def test_numbers_sort_and_other_names_are_no_numbers() -> None:
    """A listing gives the numbers in order, whatever else lies there."""
    names = [layout.transaction_path(number).rpartition("/")[2] for number in (10, 9, 123456789)]
    assert layout.numbers_in([*names, "staging", "1.json", names[0] + ".tmp"]) == [9, 10, 123456789]


@pytest.mark.parametrize("name", ["", "1a", "A", "a-b", "a.b", "a/b", "../x", "x" * 64, "readings_partials", "a\n"])
def test_table_names_that_are_refused(name: str) -> None:
    """What some reader or file system could stumble over is no table name."""
    with pytest.raises(RejectError, match="table name"):
        layout.check_table_name(name)


def test_table_names_that_are_taken() -> None:
    """Lower case, digits, underscores."""
    assert layout.check_table_name("readings_1m") == "readings_1m"
