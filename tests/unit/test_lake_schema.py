"""Which rows a table takes: exact types, known columns, and clear refusals before anything is written."""

from __future__ import annotations

import pyarrow as pa
import pytest

from edge_agent.contract.errors import RejectError
from lake.schema import COLUMNS_MAX, KNOWN_TABLES, READINGS, arrow_schema, columns_of, fitted
from lake.transaction.records import Column
from tests.kit.lake_rows import readings

COLUMNS = (Column("a", "long"), Column("s", "string"))


def test_dictionaries_count_as_their_values_and_stay_dictionaries() -> None:
    """A dictionary column fits a string column, and is not decoded for that."""
    fit = fitted(readings(3), columns_of(READINGS, "readings"), "readings")
    assert fit.column_names == READINGS.names
    assert pa.types.is_dictionary(fit.schema.field("device").type)


def test_absent_columns_are_null_and_order_does_not_matter() -> None:
    """Columns are matched by name."""
    fit = fitted(pa.table({"s": ["x"]}), COLUMNS, "t")
    assert fit.to_pylist() == [{"a": None, "s": "x"}]
    fit = fitted(pa.table({"s": pa.array(["x"], pa.large_string()), "a": [1]}), COLUMNS, "t")
    assert fit.schema == pa.schema([("a", pa.int64()), ("s", pa.string())])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"a": pa.array([1.5])}, r"column 'a' of table t is long \(int64\), the rows have double"),
        ({"a": pa.array([1], pa.int32())}, "the rows have integer"),
        ({"a": pa.array(["1"])}, "the rows have string"),
        ({"s": pa.array([b"1"])}, "the rows have binary"),
        ({"b": pa.array([1])}, "table t has no column 'b'; its columns are a, s"),
        ({"a": pa.array([1], pa.uint64())}, "type uint64, which a lake does not store"),
        ({"s": pa.array([["x"]])}, "which a lake does not store"),
        ({"a": pa.array([1], pa.timestamp("ns"))}, "which a lake does not store"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_column(rows: dict[str, pa.Array], message: str) -> None:
    """No value is changed to make it fit, as Delta's own writers do."""
    with pytest.raises(RejectError, match=message):
        fitted(pa.table(rows), COLUMNS, "t")


@pytest.mark.parametrize(
    "schema",
    [
        pa.schema([]),
        pa.schema([("a", pa.int64()), ("A", pa.int64())]),
        pa.schema([("", pa.int64())]),
        pa.schema([("x" * 129, pa.int64())]),
        pa.schema([(f"c{i}", pa.int64()) for i in range(COLUMNS_MAX + 1)]),
        pa.schema([("n", pa.null())]),
    ],
)
def test_tables_that_are_refused(schema: pa.Schema) -> None:
    """No columns, too many, names that some reader confuses, types without a place."""
    with pytest.raises(RejectError):
        columns_of(schema, "t")


@pytest.mark.parametrize("name", sorted(KNOWN_TABLES))
def test_known_tables_go_through_records_and_back(name: str) -> None:
    """Columns in the log hold all of a known table's schema, its folds included."""
    assert arrow_schema(columns_of(KNOWN_TABLES[name], name)).equals(KNOWN_TABLES[name], check_metadata=True)
