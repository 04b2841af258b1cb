"""Columns of many batches as one Arrow table."""

from __future__ import annotations

from array import array

import pyarrow as pa
import pytest

from edge_agent.contract import wire
from edge_agent.contract.columns import Column, booleans, dictionary, floats, integers, strings, timestamps
from edge_agent.contract.errors import DecodeError, RejectError
from stream_jobs.arrow_columns import Batch, StreamColumns, arrow_table, check_stream_columns, fitting
from tests.kit.worker_world import NOW_US, epoch

EVERYTHING: StreamColumns = {
    "at": "timestamp", "f": "float64", "i": "int64", "b": "bool", "s": "string", "d": "dictionary",
}  # fmt: skip


def batch(columns: list[Column], seq: int = 1, device: str = "pi", **fields: object) -> Batch:
    """A batch as it comes from the wire."""
    message = wire.encode_batch(
        wire.encode_columns(columns), device=device, epoch=epoch(), seq=seq, rows=columns[0].rows, stream="s",
        **fields,  # type: ignore[arg-type]
    )  # fmt: skip
    header, body = wire.decode_header(message)
    return Batch(header, wire.decode_columns(header, body), NOW_US)


def text_table(*parts: Column, kind: str = "dictionary") -> list[str | None]:
    """One text column of several batches, as Python values."""
    table = arrow_table([batch([part], seq) for seq, part in enumerate(parts, 1)], {"d": kind})
    table.validate(full=True)
    found: list[str | None] = table["d"].to_pylist()
    return found


def test_every_type_with_and_without_nulls() -> None:
    """Each contract type becomes its Arrow type, nulls included, over batches of odd sizes."""
    first = [
        timestamps("at", [1, None, 3]), floats("f", [0.5, float("inf"), None]),
        integers("i", [None, 2**63 - 1, -(2**63)]),
        booleans("b", [True, None, False]), strings("s", ["ä", None, ""]), strings("d", ["x", "x", None]),
    ]  # fmt: skip
    second = [
        timestamps("at", [5]), floats("f", [1.0]), integers("i", [7]), booleans("b", [True]), strings("s", ["y"]),
        strings("d", ["x"]),
    ]  # fmt: skip
    table = arrow_table([batch(first), batch(second, 2)], EVERYTHING)
    table.validate(full=True)
    assert table["at"].type == pa.timestamp("us", tz="UTC")
    assert table["at"].cast(pa.int64()).to_pylist() == [1, None, 3, 5]
    assert table["f"].to_pylist() == [0.5, float("inf"), None, 1.0]
    assert table["i"].to_pylist() == [None, 2**63 - 1, -(2**63), 7]
    assert table["b"].to_pylist() == [True, None, False, True]
    assert table["s"].to_pylist() == ["ä", None, "", "y"]
    assert table["d"].to_pylist() == ["x", "x", None, "x"]
    assert table["s"].type == pa.string()
    assert table["d"].type == pa.dictionary(pa.int32(), pa.string())


def test_provenance() -> None:
    """Each row says which device, epoch, seq, row, function, version, time received and trace it came from."""
    one = batch(
        [floats("f", [1.0, 2.0])], function="host", function_version=bytes(range(8)), trace=bytes(range(24)),
    )  # fmt: skip
    other = batch([floats("f", [3.0])], 2, "pi-2")
    rows = arrow_table([one, other], {"f": "float64"}).to_pylist()
    assert [(r["device"], r["epoch"], r["seq"], r["row"]) for r in rows] == [
        ("pi", epoch(), 1, 0), ("pi", epoch(), 1, 1), ("pi-2", epoch(), 2, 0),
    ]  # fmt: skip
    assert [r["function"] for r in rows] == ["host", "host", None]
    assert [r["function_version"] for r in rows] == ["0001020304050607", "0001020304050607", None]
    assert [r["trace"] for r in rows] == [
        "000102030405060708090a0b0c0d0e0f-1011121314151617", "000102030405060708090a0b0c0d0e0f-1011121314151617", None,
    ]  # fmt: skip
    assert {r["received_at"].timestamp() for r in rows} == {NOW_US / 1e6}


def test_dictionaries_of_different_entries_and_widths_become_one() -> None:
    """Codes are renumbered where batches have other entries, in another order, twice, or of another width."""
    assert text_table(
        dictionary("d", array("B", [0, 1, 0]), ("a", "b")),
        dictionary("d", array("B", [0, 1]), ("a", "b")),
        dictionary("d", array("h", [1, 0]), ("a", "b")),
        dictionary("d", array("i", [0, 1, 2]), ("b", "c", "b")),
        dictionary("d", [None, 0], ("z",)),
        strings("d", ["plain", "q", None]),
    ) == ["a", "b", "a", "a", "b", "b", "a", "b", "c", "b", None, "z", "plain", "q", None]


def test_a_string_column_takes_dictionaries_and_text() -> None:
    """A stream's string column is plain text whatever the device chose."""
    assert text_table(strings("d", ["x", "x", "x"]), strings("d", ["1", "2"]), kind="string") == [
        "x",
        "x",
        "x",
        "1",
        "2",
    ]


@pytest.mark.parametrize(
    "bad",
    [
        Column("d", "dictionary", 2, None, (bytes([0, 2]),), ("a", "b"), 1),
        Column("d", "dictionary", 2, None, (bytes([0, 7]),), (), 1),
        Column("d", "dictionary", 2, None, ((-1).to_bytes(2, "little", signed=True) * 2,), ("a", "b"), 2),
        Column("d", "dictionary", 2, b"\x03", (bytes([0, 9]),), ("b", "a"), 1),
        Column("d", "string", 2, None, (array("i", [0, 5, 9]).tobytes(), b"xx")),
        Column("d", "string", 2, None, (array("i", [0, -1, 2]).tobytes(), b"xx")),
        Column("d", "string", 2, None, (array("i", [1, 0, 2]).tobytes(), b"xx")),
        Column("d", "string", 1, None, (array("i", [0, 2]).tobytes(), b"\xff\xfe")),
    ],
)
@pytest.mark.parametrize("kind", ["string", "dictionary"])
def test_buffers_that_point_elsewhere_are_refused(bad: Column, kind: str) -> None:
    """Codes beyond the entries, offsets beyond the data, text that is not UTF-8: DecodeErrors, alone or in company."""
    good = dictionary("d", array("B", [0, 1]), ("b", "a"))
    for parts in ([bad], [good, bad], [bad, good]):
        batches = [batch([good], seq)._replace(columns=[part]) for seq, part in enumerate(parts, 1)]
        with pytest.raises(DecodeError, match="column 'd'"):
            arrow_table(batches, {"d": kind})


def test_fitting_orders_columns_and_refuses_others() -> None:
    """Columns come in the stream's order; a missing, further or differently typed one is named by a DecodeError."""
    columns = [floats("b", [1.0]), integers("a", [1])]
    assert [column.name for column in fitting(columns, {"a": "int64", "b": "float64"})] == ["a", "b"]
    with pytest.raises(DecodeError, match="'a', 'b'"):
        fitting(columns, {"a": "int64"})
    with pytest.raises(DecodeError, match="'a' has type int64, the stream's is float64"):
        fitting(columns, {"a": "float64", "b": "float64"})


@pytest.mark.parametrize(
    ("columns", "text"),
    [({"device": "string"}, "has a column device"), ({}, "no columns"), ({"a": "float"}, "use one of timestamp")],
)
def test_columns_a_stream_cannot_have(columns: StreamColumns, text: str) -> None:
    """Names of the provenance, unknown types and nothing at all are refused when a job is written."""
    with pytest.raises(RejectError, match=text):
        check_stream_columns("s", columns)
