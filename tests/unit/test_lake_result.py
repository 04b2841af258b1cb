"""The shapes in which an answer leaves."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edge_agent.contract.errors import RejectError
from lake.result import Result
from lake.shapes import write_csv, write_parquet
from lake.terminal import escaped

UTC_US = pa.timestamp("us", tz="UTC")


def _result() -> Result:
    return Result(
        pa.table(
            {
                "ts": pa.array([0, 1 << 62, None], pa.int64()).cast(UTC_US),
                "n": pa.array([1 << 60, None, -3], pa.int64()),
                "x": pa.array([1.5, math.nan, -math.inf]),
                "s": ["plain", 'a,"b"\nc', "\x1b[2Jwiped"],
                "b": pa.array([b"\x00\xff", None, b""]),
                "l": pa.array([[1.0, math.inf], None, []]),
            }
        )
    )


def test_json_has_every_value() -> None:
    """One object a line; what JSON has no number for is a string; bytes are hexadecimal; times beyond Python's too."""
    rows = [json.loads(line) for line in _result().json().splitlines()]
    assert rows[0] == {
        "ts": "1970-01-01 00:00:00.000000Z", "n": 1 << 60, "x": 1.5, "s": "plain", "b": "00ff", "l": [1.0, "Infinity"],
    }  # fmt: skip
    assert (rows[1]["n"], rows[1]["x"], rows[2]["x"]) == (None, "NaN", "-Infinity")
    assert rows[1]["ts"].endswith("Z")
    assert "\x1b" not in _result().json()


def test_csv_reads_back() -> None:
    """A header, quoted text, empty nulls."""
    rows = list(csv.DictReader(io.StringIO(_result().csv())))
    assert [row["s"] for row in rows] == ["plain", 'a,"b"\nc', "\x1b[2Jwiped"]
    assert rows[0]["ts"] == "1970-01-01 00:00:00.000000Z"
    assert (rows[0]["b"], rows[1]["n"], rows[0]["l"]) == ("00ff", "", '[1.0, "Infinity"]')


def test_the_terminal_table_is_safe_and_aligned() -> None:
    """Control characters are shown, not obeyed; numbers stand right; long cells are cut."""
    text = _result().render(cell_characters_max=30)
    assert "\x1b" not in text
    assert "\\x1b[2Jwiped" in text
    lines = text.splitlines()
    assert len(lines) == 6
    assert set(lines[1]) == {"-", " "}
    assert lines[-1] == "(… is cut; --format csv or json gives all)"


def test_the_terminal_table_fits() -> None:
    """Text is cut, numbers and times never; what has no place is named; an encoding without … has another mark."""
    table = pa.table({"name": ["a" * 40], "epoch": [1 << 60], "reason": ["b" * 40], "last": [1]})
    text = Result(table).render(width=60, ellipsis="~")
    assert text.splitlines() == [
        "name                            epoch  reason           last",
        "----------------  -------------------  ---------------  ----",
        f"{'a' * 15}~  1152921504606846976  {'b' * 14}~     1",
        "(~ is cut; --format csv or json gives all)",
    ]
    lines = Result(table).render(width=40).splitlines()
    assert max(map(len, lines[:3])) <= 40
    assert lines[-1] == "(no place for last; --format csv or json gives all)"
    assert "a" * 40 in Result(table).render(width=60, whole=["name"])
    assert Result(table).render(width=1).splitlines()[0] == "…"
    assert len(Result(table).render(width=500).splitlines()) == 3


def test_wide_letters_take_two_columns() -> None:
    """Columns stay aligned on a terminal."""
    lines = Result(pa.table({"s": ["你好", "ab"], "n": [1, 2]})).render().splitlines()
    assert [lines[2], lines[3]] == ["你好  1", "ab    2"]


def test_the_terminal_table_says_what_it_leaves_out() -> None:
    """Ten rows of a hundred, and how to get the others."""
    text = Result(pa.table({"n": list(range(100))})).render(rows_max=10)
    assert len(text.splitlines()) == 13
    assert "(10 of 100 rows; --format csv or json gives all" in text


def test_a_total_that_is_known_otherwise_is_told() -> None:
    """A table made of the first rows of a long answer."""
    text = Result(pa.table({"n": [1, 2]})).render(2, total="more than 1,000,000", hint="--json")
    assert text.splitlines()[-1] == "(2 of more than 1,000,000 rows; --json, LIMIT and WHERE choose)"
    assert Result(pa.table({})).render() == "(no columns)"


def test_csv_for_a_spreadsheet_has_no_formulas() -> None:
    """Text, names of columns too, that a spreadsheet program would run gets a mark before it; numbers do not."""
    table = pa.table({"=name": ["=1+1", "+1", "-a", "@x", "\tx", "\rx", "plain", None, ""], "n": [-1.5] * 9})
    output = io.StringIO()
    write_csv(table.schema, table.to_batches(), output, spreadsheet=True)
    rows = list(csv.reader(io.StringIO(output.getvalue(), newline="")))
    assert rows[0] == ["'=name", "n"]
    assert [row[0] for row in rows[1:]] == ["'=1+1", "'+1", "'-a", "'@x", "'\tx", "'\rx", "plain", "", ""]
    assert {row[1] for row in rows[1:]} == {"-1.5"}
    assert Result(table).csv().splitlines()[1] == '"=1+1",-1.5'


def test_dictionaries_and_rare_types_have_a_form() -> None:
    """Decimals, times of day, intervals, structs, lists of times: each as CSV, JSON and a cell."""
    table = pa.table(
        {
            "d": pa.array(["x", None]).dictionary_encode(),
            "c": pa.array([Decimal(1), None], pa.decimal128(10, 2)),
            "t": pa.array([1, None], pa.time64("us")),
            "i": pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
            "s": pa.array([{"a": [b"x"]}, None], pa.struct({"a": pa.list_(pa.binary())})),
        }
    )
    assert list(csv.reader(io.StringIO(Result(table).csv())))[1] == [
        "x", "1.00", "00:00:00.000001", "[1, 2, 3]", '{"a": ["78"]}',
    ]  # fmt: skip
    assert json.loads(Result(table).json().splitlines()[0]) == {
        "d": "x", "c": "1.00", "t": "00:00:00.000001", "i": [1, 2, 3], "s": {"a": ["78"]},
    }  # fmt: skip
    assert len(Result(table).render().split("\n")) == 4


def test_parquet_goes_into_a_pipe() -> None:
    """No seeking is needed; a type without a form is an error that says what to do."""
    table = _result().arrow()
    read, write = os.pipe()
    with open(write, "wb") as output:
        write_parquet(table.schema, table.to_batches(), output)
    with open(read, "rb") as pipe:
        assert pq.read_table(io.BytesIO(pipe.read())).drop_columns("x").equals(table.drop_columns("x"))
    odd = pa.table({"i": pa.array([(1, 2, 3)], pa.month_day_nano_interval())})
    with pytest.raises(RejectError, match="Parquet has no form for a column of the answer"):
        write_parquet(odd.schema, odd.to_batches(), io.BytesIO())


def test_an_answer_without_rows_has_its_columns() -> None:
    """Headers are there, and JSON is empty."""
    result = Result(pa.table({"n": pa.array([], pa.int64())}))
    assert result.render().splitlines() == ["n", "-", "(no rows)"]
    assert result.csv() == '"n"\n'
    assert result.json() == ""
    assert len(result) == 0


def test_it_is_an_arrow_stream() -> None:
    """Whoever takes the PyCapsule interface takes the answer."""
    again = pa.table(_result())
    assert again.drop_columns("x").equals(_result().arrow().drop_columns("x"))
    assert _result().columns == ["ts", "n", "x", "s", "b", "l"]


def test_escaping_leaves_readable_text_alone() -> None:
    """Letters of all languages are text; control characters, direction marks and lone bytes are not."""
    assert escaped("grüß 你好") == "grüß 你好"
    assert escaped("a\nb\x9b\u202e") == "a\\nb\\x9b\\u202e"
