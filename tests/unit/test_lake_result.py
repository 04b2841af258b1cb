"""The shapes in which an answer leaves."""

from __future__ import annotations

import csv
import io
import json
import math

import pyarrow as pa

from lake.result import Result
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
    assert len(lines) == 5
    assert set(lines[1]) == {"-", " "}


def test_the_terminal_table_says_what_it_leaves_out() -> None:
    """Ten rows of a hundred, and how to get the others."""
    text = Result(pa.table({"n": list(range(100))})).render(rows_max=10)
    assert len(text.splitlines()) == 13
    assert "(10 of 100 rows; --format csv or json gives all" in text


def test_an_answer_without_rows_has_its_columns() -> None:
    """Headers are there, and JSON is empty."""
    result = Result(pa.table({"n": pa.array([], pa.int64())}))
    assert result.render().splitlines() == ["n", "-"]
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
