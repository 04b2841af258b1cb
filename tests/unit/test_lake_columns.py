"""Tables that take on columns: at the end, null in what was there before, for every reader, whoever adds at once."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field
from deltalake.schema import PrimitiveType

import lake
from edge_agent.contract.errors import FencedError, LimitError, RejectError, StopError
from lake.aggregate import partials_from
from lake.schema import COLUMNS_MAX, DEAD_LETTERS, KNOWN_TABLES, columns_of, columns_with, known_columns
from lake.transaction.fold import Fold, Parameters
from lake.transaction.growth import grown, grows_only
from lake.transaction.records import Change, Column, Decision
from tests.kit.lake_rows import readings

A, B = Column("a", "long"), Column("b", "string")


@pytest.fixture
def here(tmp_path: Path) -> lake.Lake:
    """An empty lake."""
    return lake.open(tmp_path / "lake", create=True)


def _rows(here: lake.Lake, at: int | None = None) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = here.snapshot(at).query("SELECT * FROM t ORDER BY a").arrow().to_pylist()
    return rows


def _folder(here: lake.Lake) -> str:
    return f"{here.location}/tables/t"


def test_a_new_column_is_added_at_the_end_and_null_before(here: lake.Lake) -> None:
    """Rows that have a column more bring it to the table; rows without it still fit."""
    first = here.commit({"t": pa.table({"a": [1]})})
    here.commit({"t": pa.table({"b": ["x"], "a": [2]})})
    here.commit({"t": pa.table({"a": [3]})})
    assert _rows(here) == [{"a": 1, "b": None}, {"a": 2, "b": "x"}, {"a": 3, "b": None}]
    assert [column.name for column in here.snapshot().columns("t")] == ["a", "b"]
    assert _rows(here, first) == [{"a": 1, "b": None}]
    assert here.snapshot().query("SELECT a FROM t WHERE b = 'x'").arrow().to_pylist() == [{"a": 2}]


def test_a_column_comes_without_rows_too(here: lake.Lake) -> None:
    """An empty table that has a column more is enough."""
    here.commit({"t": pa.table({"a": [1]})})
    here.commit({"t": pa.table({"a": pa.array([], pa.int64()), "on": pa.array([], pa.bool_())})})
    assert _rows(here) == [{"a": 1, "on": None}]
    assert DeltaTable(_folder(here)).schema().fields[1].name == "on"


def test_plain_readers_read_old_and_new_files(here: lake.Lake) -> None:
    """deltalake, Polars and DuckDB see all columns in all rows: the Delta table's own schema has them."""
    here.commit({"t": pa.table({"a": [1]})})
    here.commit({"t": pa.table({"a": [2], "b": ["x"], "at": pa.array([0], pa.timestamp("us", tz="UTC"))})})
    expected = [(1, None), (2, "x")]
    table = DeltaTable(_folder(here)).to_pyarrow_table().sort_by("a")
    assert table.column_names == ["a", "b", "at"]
    assert list(zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)) == expected
    frame = pl.scan_delta(_folder(here)).sort("a").collect()
    assert frame.select("a", "b").rows() == expected
    dataset = DeltaTable(_folder(here)).to_pyarrow_dataset()
    with duckdb.connect() as connection:
        assert connection.from_arrow(dataset).order("a").project("a, b").fetchall() == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": ["1"]}, r"column 'a' of table t is long \(int64\), the rows have string \(string\); convert it"),
        ({"a": pa.array([1], pa.int32())}, "the rows have integer"),
        ({"A": [1]}, "table t has no column 'A' but 'a', and upper and lower case do not differ; rename it"),
        ({"new": [["x"]]}, "column 'new' of table t has type list<.*which a lake does not store"),
        ({"n": [1], "N": [1]}, "there twice"),
        ({"x" * 129: [1]}, "too long"),
    ],
)
def test_what_a_table_cannot_take_is_refused(here: lake.Lake, rows: dict[str, object], message: str) -> None:
    """Another type, a name that some reader confuses, a type without a place; nothing is changed."""
    here.commit({"t": pa.table({"a": [1]})})
    with pytest.raises(RejectError, match=message):
        here.check("t", pa.table(rows))
    with pytest.raises(RejectError, match=message):
        here.commit({"t": pa.table(rows)})
    assert _rows(here) == [{"a": 1}]


def test_a_table_has_a_most_of_columns(here: lake.Lake) -> None:
    """Those it has and the new ones count together."""
    here.commit({"t": pa.table({f"c{i}": [1] for i in range(COLUMNS_MAX - 1)})})
    here.commit({"t": pa.table({"last": [1]})})
    with pytest.raises(LimitError, match=f"columns of table t of {COLUMNS_MAX + 1} exceeds its limit of {COLUMNS_MAX}"):
        here.prepare({"t": pa.table({"more": [1]})})


def test_a_mergeable_table_takes_columns_that_fold(here: lake.Lake) -> None:
    """A column that says how its partial rows fold is added; one that does not could never be read."""
    partials = partials_from(readings(10))
    here.commit({"readings_1m": partials})
    with pytest.raises(RejectError, match="folds by None"):
        here.check("readings_1m", partials.append_column("unit", pa.array(["V"] * partials.num_rows)))
    field = pa.field("late", pa.int64(), metadata={b"edgewater.fold": b"sum"})
    here.commit({"readings_1m": partials.append_column(field, pa.array([1] * partials.num_rows))})
    answer = here.snapshot().query("SELECT count, late FROM readings_1m").arrow().to_pylist()
    assert answer == [{"count": 10, "late": 1}] * 2


def test_two_writers_that_add_other_columns_both_add(tmp_path: Path) -> None:
    """Each staged before the other decided; the table has both columns, each row its own."""
    one, two = lake.open(tmp_path, create=True), lake.open(tmp_path)
    one.commit({"t": pa.table({"a": [1]})})
    left, right = one.prepare({"t": pa.table({"a": [2], "l": [1]})}), two.prepare({"t": pa.table({"a": [3], "r": [1]})})
    one.decide(left)
    two.decide(right)
    one.apply()
    assert _rows(two) == [{"a": 1, "l": None, "r": None}, {"a": 2, "l": 1, "r": None}, {"a": 3, "l": None, "r": 1}]


def test_two_writers_that_create_a_table_with_other_columns_both_land(tmp_path: Path) -> None:
    """The second one's columns are added to the table that the first creates."""
    one, two = lake.open(tmp_path, create=True), lake.open(tmp_path)
    left, right = one.prepare({"t": pa.table({"a": [1]})}), two.prepare({"t": pa.table({"b": ["x"]})})
    one.decide(left)
    two.decide(right)
    one.apply()
    assert _rows(one) == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


@pytest.mark.parametrize("other", [{"x": ["text"]}, {"x": pa.array([1], pa.int32())}, {"X": [1]}])
def test_of_two_writers_that_add_what_does_not_go_together_one_is_void(
    tmp_path: Path, other: dict[str, object]
) -> None:
    """One name in two types, widening ones too, or in two spellings: the second prepares again and is told why."""
    one, two = lake.open(tmp_path, create=True), lake.open(tmp_path)
    one.commit({"t": pa.table({"a": [1]})})
    stale = two.prepare({"t": pa.table(other)})
    one.commit({"t": pa.table({"x": [1]})})
    before = len(one.records())
    with pytest.raises(FencedError, match=r"\(schema\): the table's columns have been changed by another transaction"):
        two.decide(stale)
    assert len(one.records()) == before
    with pytest.raises(RejectError):
        two.prepare({"t": pa.table(other)})
    assert _rows(two) == [{"a": 1, "x": None}, {"a": None, "x": 1}]


def test_a_column_that_was_added_before_a_crash_is_found_there(here: lake.Lake) -> None:
    """The Delta commit that adds it has no transaction number: whoever applies goes on behind it."""
    here.commit({"t": pa.table({"a": [1]})})
    number = here.decide(here.prepare({"t": pa.table({"a": [2], "b": ["x"]})}))
    DeltaTable(_folder(here)).alter.add_columns([Field("b", PrimitiveType("string"))])
    again = lake.open(here.location)
    here.close()
    assert again.apply() == number
    assert _rows(again) == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]
    assert [action["operation"] for action in DeltaTable(_folder(here)).history()].count("ADD COLUMN") == 1


def test_a_delta_table_in_other_types_stops_the_applier(here: lake.Lake) -> None:
    """A newer Edgewater would have done that; this one does not guess."""
    here.commit({"t": pa.table({"a": [1]})})
    here.decide(here.prepare({"t": pa.table({"b": ["x"]})}))
    DeltaTable(_folder(here)).alter.add_columns([Field("b", PrimitiveType("long"))])
    with pytest.raises(StopError, match="tables/t has columns b in another type than the lake's log says; upgrade"):
        here.apply()


def test_a_known_table_that_grew_takes_on_its_columns(here: lake.Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lake written before `dead_letters` had `job`: queries know it at once, the table with its next rows."""
    old = pa.schema([field for field in DEAD_LETTERS if field.name != "job"])
    with monkeypatch.context() as before:
        before.setitem(KNOWN_TABLES, "dead_letters", old)
        here.commit({"dead_letters": pa.table({"reason": ["r1"]})})
        assert "job" not in [column.name for column in here.snapshot().columns("dead_letters")]
    sql = "SELECT reason, job FROM dead_letters ORDER BY reason"
    assert here.snapshot().query(sql).arrow().to_pylist() == [{"reason": "r1", "job": None}]
    assert here.snapshot().scan("dead_letters", columns=["job"])["job"].to_pylist() == [None]
    here.commit({"dead_letters": pa.table({"reason": ["r2"], "job": ["alerts"]})})
    assert here.snapshot().query(sql).arrow()["job"].to_pylist() == [None, "alerts"]
    assert DeltaTable(f"{here.location}/tables/dead_letters").schema().fields[-1].name == "job"


def test_grown_only_adds() -> None:
    """Same columns in any order, or fewer, change nothing; new ones come last; all else is refused."""
    assert grown((A, B), (B, A)) == (A, B)
    assert grown((A, B), (A,)) == (A, B)
    assert grown((A,), (B, A)) == (A, B)
    assert grown((), (A, B)) == (A, B)
    assert grown((A,), (Column("a", "string"),)) is None
    assert grown((A,), (Column("a", "integer"),)) is None
    assert grown((Column("a", "integer"),), (A,)) is None
    assert grown((A,), (Column("A", "long"),)) is None
    assert grown((A,), (Column("a", "long", "sum"),)) is None
    assert grown((A,), tuple(Column(f"c{i}", "long") for i in range(COLUMNS_MAX))) is None


def test_a_decision_without_schemas_grows_nothing() -> None:
    """Nothing to refuse."""
    fold = Fold(Parameters())
    assert grows_only(fold, Decision("s", {"t": Change()}))
    assert grows_only(fold, Decision("s", {"t": Change((A, B))}))
    assert not grows_only(fold, Decision("s", {"t": Change((A, Column("A", "long")))}))


def test_columns_with_and_known_columns_leave_what_fits_alone() -> None:
    """The very tuple comes back when there is nothing to add."""
    columns = columns_of(DEAD_LETTERS, "dead_letters")
    assert columns_with(columns, DEAD_LETTERS, "dead_letters") is columns
    assert known_columns(columns, "dead_letters") == columns
    assert known_columns((A,), "t") == (A,)
    foreign = (Column("job", "long"),)
    assert known_columns(foreign, "dead_letters") == foreign
