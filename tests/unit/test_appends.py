"""What one transaction appends: parts that go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import lake
from edge_agent.contract.errors import RejectError
from stream_jobs.appends import Appends, joined

BIG = (1 << 53) + 1


@pytest.fixture
def here(tmp_path: Path) -> lake.Lake:
    """A lake whose table t has a double and a string."""
    found = lake.open(tmp_path / "lake", create=True)
    found.commit({"t": pa.table({"level": [0.5], "name": ["a"]})})
    return found


def test_whole_numbers_become_floating_point_where_that_is_exact(here: lake.Lake) -> None:
    """Also beyond 2^53 where the number has a place; null stays null."""
    appends = Appends(here.check)
    appends.add({"t": pa.table({"level": [1, None, -(1 << 63), 1 << 62]})})
    (part,) = appends.tables["t"]
    assert part["level"].to_pylist() == [1.0, None, -(2.0**63), 2.0**62]
    assert part["name"].null_count == 4


@pytest.mark.parametrize("number", [BIG, -BIG, (1 << 63) - 1])
def test_whole_numbers_without_a_place_are_refused(here: lake.Lake, number: int) -> None:
    """The lake's own reason says why, and nothing is appended."""
    appends = Appends(here.check)
    with pytest.raises(RejectError, match="column 'level' of table t is double"):
        appends.add({"other": pa.table({"a": [1]}), "t": pa.table({"level": [number]})})
    assert appends.tables == {}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"new": ["text"]}, "column 'new' of table u was double in rows just before, these have string; send one type"),
        ({"NEW": [1.0]}, "column 'NEW' of table u was 'new' in rows just before"),
        ({"new": [BIG]}, "column 'new' of table u was double"),
    ],
)
def test_the_first_of_a_transaction_decides_how_a_new_table_is(
    here: lake.Lake, second: dict[str, Any], message: str
) -> None:
    """Another type or spelling is refused then; what fits, or can be converted, still comes."""
    appends = Appends(here.check)
    appends.add({"u": pa.table({"new": [1.5]})})
    with pytest.raises(RejectError, match=message):
        appends.add({"u": pa.table(second)})
    appends.add({"u": pa.table({"new": [2], "more": ["x"]})})
    here.commit({table: joined(parts) for table, parts in appends.tables.items()})
    rows = here.snapshot().query("SELECT * FROM u ORDER BY new").arrow().to_pylist()
    assert rows == [{"new": 1.5, "more": None}, {"new": 2.0, "more": "x"}]


def test_a_dictionary_and_plain_text_are_one_column() -> None:
    """However the parts have it, and whichever lack it."""
    text = pa.array(["a", "b"])
    parts = [pa.table({"t": text.dictionary_encode(), "n": [1, 2]}), pa.table({"t": text}), pa.table({"n": [3]})]
    table = joined(parts)
    assert table["t"].to_pylist() == ["a", "b", "a", "b", None]
    assert table["n"].to_pylist() == [1, 2, None, None, 3]
    assert joined(parts[:1]) is parts[0]


def test_rows_without_rows_say_nothing() -> None:
    """A table without rows is not appended, and decides no type."""
    appends = Appends()
    appends.add({"t": pa.table({"a": pa.array([], pa.string())})})
    appends.add({"t": pa.table({"a": [1]})})
    assert [part.num_rows for part in appends.tables["t"]] == [1]
