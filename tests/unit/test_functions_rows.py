"""What functions return for streams of their own: one value, one row, one batch at a time, and every error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from edge_agent.contract import limits, wire
from edge_agent.contract.errors import LimitError, RejectError
from edge_agent.functions.row_values import rows_of_body
from edge_agent.functions.rows import ReadingsCollector, collector
from edge_agent.functions.table_rows import BATCH_BYTES, ROW_BYTES_MAX, TableCollector

TS = 1_700_000_000_000_000
Row = dict[str, Any]


def batches(*results: Any, batch_rows: int = 1000) -> list[list[Row]]:
    """The batches of some calls' results on the stream `events`, the unfinished one last, as a reader sees them."""
    found = collector("door", "events", batch_rows)
    bodies = [body for result in results for body in found.add(result, TS)]
    if found.rows:
        bodies.append(found.take())
    return [rows_of_body(body, rows) for rows, body in bodies]


def rows(*results: Any) -> list[Row]:
    """The rows of some calls, without the time they share."""
    found = [row for batch in batches(*results) for row in batch]
    assert all(row.pop("ts") == TS for row in found)
    return found


def types(result: Any) -> dict[str, str]:
    """Column -> type on the wire."""
    made = TableCollector("door", "events", 1000)
    list(made.add(result, TS))
    count, body = made.take()
    return {column.name: column.type for column in wire.decode_body(body, count)}


def refused(*results: Any) -> str:
    """The error of the last result; rows of the earlier ones stay as they are."""
    found = collector("door", "events", 1000)
    for result in results[:-1]:
        list(found.add(result, TS))
    before = found.rows
    with pytest.raises(RejectError) as raised:
        found.add(results[-1], TS)
    assert found.rows == before
    return str(raised.value)


@dataclass
class Door:
    """A row with declared types."""

    name: str
    angle: float
    opened: int | None = None
    at: datetime | None = None


class Pair(NamedTuple):
    """A row as a named tuple."""

    level: float
    note: str


class TestValues:
    @pytest.mark.parametrize(
        ("value", "type_", "back"),
        [
            (1.5, "float64", 1.5),
            (7, "int64", 7),
            ((1 << 53) + 1, "int64", (1 << 53) + 1),
            ((1 << 63) - 1, "int64", (1 << 63) - 1),
            (-(1 << 63), "int64", -(1 << 63)),
            (True, "bool", True),
            ("größer \U0001f600", "dictionary", "größer \U0001f600"),
            ("", "dictionary", ""),
            (Decimal("0.5"), "float64", 0.5),
            (Fraction(1, 4), "float64", 0.25),
            (np.float32(0.5), "float64", 0.5),
            (np.float64(0.1), "float64", 0.1),
            (np.int64(1 << 60), "int64", 1 << 60),
            (np.uint8(200), "int64", 200),
            (np.bool_(True), "bool", True),
            (np.str_("text"), "dictionary", "text"),
            (pd.Timestamp("1970-01-01 00:00:01", tz="UTC"), "timestamp", 1_000_000),
            (datetime(1970, 1, 1, 0, 0, 1, 5, tzinfo=UTC), "timestamp", 1_000_005),
            (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), "timestamp", 0),
            (datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC), "timestamp", -1),
        ],
    )
    def test_a_value_and_its_type(self, value: Any, type_: str, back: Any) -> None:
        """Each kind of value has its column type, and comes back as the very value."""
        assert types({"x": value})["x"] == type_
        (row,) = rows({"x": value})
        assert row["x"] == back
        assert type(row["x"]) is type(back)

    @pytest.mark.parametrize(
        ("value", "says"),
        [
            (1 << 63, "beyond 64 bits; send it as text"),
            (-(1 << 63) - 1, "beyond 64 bits"),
            ([1, 2], "is a list; a column takes one value a row"),
            ({"a": 1}, "is a dict"),
            ((1, 2), "is a tuple"),
            (b"raw", "is a bytes; a column takes numbers, text, booleans, times or None: send value.hex()"),
            (object(), "is an object"),
            (1j, "is a complex"),
            (np.complex128(1), "is a complex128"),
            (np.datetime64("2025-01-01"), "gives no float"),
            (pd.NaT, "is no time; send None"),
            (pd.Timestamp("2025-01-01"), "has no time zone"),
            (date(2025, 1, 1), "is a date; send a datetime with a time zone"),
            (datetime(2025, 1, 1), "has no time zone; say which one"),  # noqa: DTZ001 - naive on purpose
            ("\ud800", "lone surrogate"),
            (np.array([1, 2]), "gives no float"),
            (Decimal("sNaN"), "gives no float"),
        ],
    )
    def test_a_value_that_no_column_holds(self, value: Any, says: str) -> None:
        """The error names function, column and value, and what to do; no row of the call is taken."""
        text = refused({"good": 1}, [{"good": 2}, {"good": 3, "bad": value}])
        assert says in text
        assert "column 'bad' of function door" in text

    def test_a_text_over_its_limit(self) -> None:
        """64 KiB of text is the most; the error has both numbers."""
        assert rows({"x": "a" * limits.STRING_BYTES_MAX})
        assert "65537 exceeds its limit of 65536" in refused({"x": "a" * (limits.STRING_BYTES_MAX + 1)})


class TestRows:
    @pytest.mark.parametrize("nothing", [None, [], {}, (), iter(())])
    def test_nothing(self, nothing: Any) -> None:
        """A function that has nothing to say makes no batch."""
        assert batches(nothing) == []

    def test_shapes(self) -> None:
        """A mapping, a dataclass, a named tuple are one row; lists, tuples and generators of them are rows."""
        row = {"level": 1.0, "note": "a"}
        many: list[Any] = [row, [row], (row,), (each for each in [row]), Pair(1.0, "a"), [Pair(1.0, "a")]]
        assert rows(*many) == [row] * len(many)
        assert rows(Door("front", 1)) == [{"name": "front", "angle": 1.0}]

    @pytest.mark.parametrize("wrong", [5, 1.5, "text", b"bytes", [1], [("a", 1)], [None], Door, object()])
    def test_other_shapes_are_errors(self, wrong: Any) -> None:
        """What is no row is refused, and the error names function and stream."""
        text = refused(wrong)
        assert "function door" in text
        assert "stream events" in text

    def test_absent_and_null(self) -> None:
        """A column that a row has not, or has as None, is null there; one of nothing but None comes with a value."""
        assert rows([{"a": 1}, {"b": "x"}, {"a": None, "b": None, "c": None}]) == [
            {"a": 1, "b": None}, {"a": None, "b": "x"}, {"a": None, "b": None},
        ]  # fmt: skip
        assert batches({"a": None}) == [[{"ts": TS}]]

    def test_times_of_their_own(self) -> None:
        """`ts` is whole microseconds or an aware datetime; None and none are the time of the call."""
        at = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
        found = batches([{"ts": 5, "a": 1}, {"ts": at, "a": 2}, {"ts": None, "a": 3}, {"a": 4}])
        assert [row["ts"] for row in found[0]] == [5, 1_000_000, TS, TS]

    @pytest.mark.parametrize("ts", [1.5, "now", True, 1 << 63, datetime(2025, 1, 1)])  # noqa: DTZ001 - naive on purpose
    def test_a_time_that_is_none(self, ts: Any) -> None:
        """Anything else is an error that names the column."""
        assert "column 'ts' of function door" in refused({"ts": ts, "a": 1})

    @pytest.mark.parametrize(
        "name", ["device", "epoch", "seq", "row", "function", "function_version", "received_at", "trace", "Device"]
    )
    def test_reserved_names(self, name: str) -> None:
        """Where a row comes from is not the function's to say."""
        assert "is taken" in refused({name: 1})

    @pytest.mark.parametrize("name", ["", 5, None, "x" * 129, "\ud800", "a\0b", "TS"])
    def test_names_that_no_column_can_have(self, name: Any) -> None:
        """Text of 1 to 128 characters, UTF-8."""
        assert "column name" in refused({name: 1})

    def test_names_that_differ_in_case_only(self) -> None:
        """Tables do not tell them apart."""
        assert "only in case" in refused({"Temp": 1}, {"temp": 1})


class TestTypes:
    def test_integers_that_meet_a_float(self) -> None:
        """A column of integers becomes one of floats, in the same batch where that is exact."""
        found = batches({"a": 1}, {"a": None}, {"a": 0.5}, {"a": 2})
        assert [[row["a"] for row in batch] for batch in found] == [[1.0, None, 0.5, 2.0]]
        assert all(type(row["a"]) is float for row in found[0] if row["a"] is not None)

    def test_integers_that_no_float_is(self) -> None:
        """Where it is not exact the earlier rows go as the integers they are, and a later one is an error."""
        large = (1 << 53) + 1
        found = batches({"a": large}, {"a": 0.5})
        assert [[row["a"] for row in batch] for batch in found] == [[large], [0.5]]
        assert "has no exact float64" in refused({"a": 0.5}, {"a": large})

    @pytest.mark.parametrize(
        ("first", "second"), [(1, "x"), ("x", 1), (1, True), (True, 1), (1.5, True), ("x", None), (1.5, "x")]
    )
    def test_mixtures_are_errors(self, first: Any, second: Any) -> None:
        """One type a column; null goes with all of them."""
        if second is None:
            assert len(rows({"a": first}, {"a": second})) == 2
        else:
            assert "one type a column" in refused({"a": first}, {"a": second})

    def test_annotations_decide(self) -> None:
        """An int in a float field travels as float64; text in it is an error that says so."""
        assert types(Door("front", 90)) == {"ts": "timestamp", "name": "dictionary", "angle": "float64"}
        assert "by its annotation" in refused(Door("front", "wide"))  # type: ignore[arg-type]
        assert "by its annotation" in refused(Door("front", 1.0, opened=0.5))  # type: ignore[arg-type]

    def test_a_refused_call_leaves_no_type_behind(self) -> None:
        """The type of a column that came with a refused call is not remembered."""
        made = TableCollector("door", "events", 1000)
        with pytest.raises(RejectError):
            made.add([{"new": "text"}, {"bad": []}], TS)
        list(made.add({"new": 1}, TS))
        assert made.rows == 1


class TestBounds:
    def test_a_batch_is_cut_by_rows_and_bytes(self) -> None:
        """At batch_rows rows, and when its texts grow large: each batch fits its message uncompressed."""
        assert [len(batch) for batch in batches([{"a": i} for i in range(5)], batch_rows=2)] == [2, 2, 1]
        made = TableCollector("door", "events", 16_384)
        bodies = list(made.add(({"a": f"{i}{'x' * 1000}"} for i in range(1000)), TS))
        assert len(bodies) > 2
        assert max(len(body) for _, body in bodies) < BATCH_BYTES + ROW_BYTES_MAX

    def test_a_row_over_its_limit(self) -> None:
        """A row that could not go alone is an error with both numbers."""
        with pytest.raises(LimitError, match="exceeds its limit of 131072"):
            TableCollector("door", "events", 10).add({f"c{i}": "x" * 50_000 for i in range(3)}, TS)

    def test_columns(self) -> None:
        """255 columns beside ts go; more in one row are an error, more in one batch are two batches."""
        assert len(rows({f"c{i}": i for i in range(255)})[0]) == 255
        assert "exceeds its limit of 255" in refused({f"c{i}": i for i in range(256)})
        found = batches({f"c{i}": 1 for i in range(200)}, {f"d{i}": 1 for i in range(200)})
        assert [len(batch) for batch in found] == [1, 1]
        assert "exceeds its limit of 1024" in refused(*({f"c{n}_{i}": 1 for i in range(205)} for n in range(5)))

    def test_a_generator_without_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A call has so many rows and no more, whatever it yields."""
        monkeypatch.setattr("edge_agent.functions.table_rows.CALL_ROWS_MAX", 100)
        monkeypatch.setattr("edge_agent.functions.rows.CALL_ROWS_MAX", 100)

        def endless(row: Any) -> Iterator[Any]:
            while True:
                yield row

        assert "exceeds its limit of 100" in refused(endless({"a": 1}))
        with pytest.raises(LimitError, match="exceeds its limit of 100"):
            ReadingsCollector(1000, "tank").add(endless(("a", 1)), TS)


class TestReadings:
    def readings(self, result: Any) -> list[tuple[str, float]]:
        """Name and value of each row of a function `tank` on the default stream."""
        made = collector("tank", "readings", 1000)
        bodies = [*made.add(result, TS)] + ([made.take()] if made.rows else [])
        return [(row["name"], row["value"]) for rows, body in bodies for row in rows_of_body(body, rows)]

    @pytest.mark.parametrize("number", [5, 5.0, np.int32(5), np.float32(5), Decimal(5), Fraction(5)])
    def test_a_number_is_named_after_its_function(self, number: Any) -> None:
        """One value needs no name."""
        assert self.readings(number) == [("tank", 5.0)]

    def test_booleans_are_one_and_zero(self) -> None:
        """As before, numpy's too."""
        assert self.readings(True) == [("tank", 1.0)]
        assert self.readings({"a": np.bool_(False)}) == [("a", 0.0)]

    def test_a_dataclass_is_a_mapping(self) -> None:
        """Its fields are the names."""

        @dataclass
        class Room:
            temperature: float
            people: int

        assert self.readings(Room(21.5, 3)) == [("temperature", 21.5), ("people", 3.0)]

    def test_times_may_be_datetimes(self) -> None:
        """A triple's time is microseconds or an aware datetime."""
        made = collector("tank", "readings", 1000)
        list(made.add([(datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC), "a", 1)], TS))
        rows, body = made.take()
        assert rows_of_body(body, rows)[0]["ts"] == 2_000_000

    @pytest.mark.parametrize("wrong", ["text", {"a": "text"}, [{"a": 1}], {"a": None}, {"a": (1 << 53) + 1}])
    def test_what_is_no_reading_says_where_it_belongs(self, wrong: Any) -> None:
        """The error names the function and proposes a stream of its own."""
        with pytest.raises(RejectError, match=r"function tank a stream of its own.*stream='tank_rows'"):
            self.readings(wrong)

    def test_an_own_mapping_type(self) -> None:
        """Any Mapping will do."""

        class Lazy(Mapping[str, float]):
            def __getitem__(self, key: str) -> float:
                return 2.0

            def __iter__(self) -> Iterator[str]:
                return iter(["a"])

            def __len__(self) -> int:
                return 1

        assert self.readings(Lazy()) == [("a", 2.0)]
