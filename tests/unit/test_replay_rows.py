"""Which columns become readings, what a cell is, and when a row cannot be read."""

from __future__ import annotations

import math
from datetime import UTC
from pathlib import Path

import pytest

from edge_agent.contract.errors import StopError
from edge_agent.contract.streams import DEAD_LETTER_CHARACTERS_MAX
from edge_agent.replay.rows import Choice, RowReader, choose_columns, number, row_text
from edge_agent.replay.source import Row, open_source
from edge_agent.replay.times import time_reader

READ_TIME = time_reader("auto", UTC)


def chosen(tmp_path: Path, text: str, wanted: tuple[str, ...] = (), others: tuple[str, ...] = ("t",)) -> Choice:
    """The columns chosen of a CSV with this text."""
    (tmp_path / "data.csv").write_text(text)
    source = open_source(str(tmp_path / "data.csv"), hint="t")
    try:
        return choose_columns(source, others, wanted, READ_TIME, "data.csv")
    finally:
        source.close()


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1.5", 1.5),
        (" -2e3 ", -2000.0),
        ("", None),
        ("  ", None),
        (None, None),
        ("nan", None),
        (math.nan, None),
        (7, 7.0),
        ("9007199254740992", 2.0**53),
        (2**60, 2.0**60),
        ("1e300", 1e300),
        ("inf", math.inf),
        ("-Infinity", -math.inf),
    ],
)
def test_cells_that_are_numbers_or_empty(cell: object, value: float | None) -> None:
    """Text and numbers as float64; an empty cell and NaN are no reading."""
    assert number(cell) == value


@pytest.mark.parametrize(
    "cell",
    ["abc", "1,5", "1_000", "0x10", True, [1], {"a": 1}, "9007199254740993", 2**53 + 1, 10**400, "1e999", "1" * 400],
)
def test_cells_that_are_no_numbers(cell: object) -> None:
    """Nothing is guessed, and no integer loses digits without a word."""
    with pytest.raises(ValueError, match=r"no number|no exact float64"):
        number(cell)


def test_columns_of_numbers_become_readings(tmp_path: Path) -> None:
    """At least half of the cells that are not empty have to be numbers; empty and nameless columns are left out."""
    text = "t,room,level,mixed,mostly,empty,\n" + "1,a,1,x,1,,1\n" + "2,b,,y,x,,2\n" + "3,c,3,3,3,,3\n"
    assert chosen(tmp_path, text) == Choice(("level", "mostly"), ("room", "mixed", "empty", ""))
    assert chosen(tmp_path, text, ("mixed",)).columns == ("mixed",)
    assert chosen(tmp_path, text, others=("t", "level")).columns == ("mostly",)


@pytest.mark.parametrize(
    ("text", "wanted", "others", "part"),
    [
        (
            "time,a\n1,2\n",
            (),
            ("tiem",),
            "--time: data.csv has no column 'tiem'; did you mean time? The columns are: time, a",
        ),
        ("t,a\n1,2\n", (), ("t", "device"), "--device-column: data.csv has no column 'device'"),
        ("t,level\n1,2\n", ("levle",), ("t",), "--columns: data.csv has no column 'levle'; did you mean level?"),
        ("t,a\n1,x\n", (), ("t",), "no numeric column"),
        (
            "t,a\n1,x\n",
            ("a",),
            ("t",),
            "--columns: 'a' of data.csv has no number in its first 1 rows: 'x' is no number",
        ),
        ("t,a,a\n1,2,3\n", (), ("t",), "2 columns named 'a'"),
        ("t,t,a\n1,2,3\n", (), ("t",), "2 columns named 't'"),
        ("t,a\n1,2\n", ("t",), ("t",), "already the time"),
        ("t,a\n", (), ("t",), "no row that can be read"),
        ("t,a\nroom1,2\n", (), ("t",), "--time: column 't' of data.csv has no time in its first 1 rows"),
        ("t," + "x" * 2000 + "\n1,2\n", (), ("t",), "shorten it"),
        ("t," + ",".join(f"{n:0>500}" for n in range(400)) + "\n1" + ",2" * 400 + "\n", (), ("t",), "--columns a,b"),
    ],
)
def test_columns_that_are_not_there(
    tmp_path: Path, text: str, wanted: tuple[str, ...], others: tuple[str, ...], part: str
) -> None:
    """A mistake in the names or in the file is one error with the value and what there is."""
    with pytest.raises(StopError) as caught:
        chosen(tmp_path, text, wanted, others)
    assert part in str(caught.value)


def test_a_row_is_read_whole_or_not_at_all() -> None:
    """One cell that is no number makes the row unreadable, and the reason names its column."""
    reader = RowReader(READ_TIME, ("a", "b"), with_device=False)
    assert reader.read(Row(0, 1, ("1", "2", ""), b"")) == (1_000_000, "", [2.0, None])
    with pytest.raises(ValueError, match="b: 'x' is no number"):
        reader.read(Row(0, 1, ("1", "2", "x"), b""))
    with pytest.raises(ValueError, match="why not"):
        reader.read(Row(0, 1, None, b"", "why not"))


def test_a_device_is_checked() -> None:
    """A name that may not name a device makes the row unreadable; a number may."""
    reader = RowReader(READ_TIME, ("a",), with_device=True)
    assert reader.read(Row(0, 1, (1, 17, 2), b"")) == (1_000_000, "17", [2.0])
    for bad in ("", "a/b", None, "..", "x" * 200):
        with pytest.raises(ValueError, match="device name"):
            reader.read(Row(0, 1, ("1", bad, "2"), b""))


def test_the_text_of_a_dead_letter_is_bounded_and_printable() -> None:
    """Bytes that are not UTF-8 and NUL are escapes, and a long line is cut; of Parquet it is the cells as JSON."""
    assert row_text(Row(0, 1, None, b"1,\xff\0\r\n")) == "1,\\xff\\x00"
    assert len(row_text(Row(0, 1, None, b"\xff" * 10_000))) == DEAD_LETTER_CHARACTERS_MAX
    assert row_text(Row(0, 1, ("a", None, 1.5), "")) == '["a", null, 1.5]'
