"""Sources of a replay: rows with their positions, and what is wrong with a row or a file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.contract.errors import EdgewaterError, StopError
from edge_agent.replay import csv_source, lines
from edge_agent.replay.source import Row, Source, open_source

_opened: list[Source] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what a test opened."""
    yield
    while _opened:
        _opened.pop().close()


def opened(
    tmp_path: Path, content: bytes | str, name: str = "data.csv", *, delimiter: str = "", hint: str = "t"
) -> Source:
    """The source of a file with this content."""
    file = tmp_path / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    source = open_source(str(file), "", delimiter, hint)
    _opened.append(source)
    return source


def rows(source: Source, *selected: str, after: int = 0) -> list[Row]:
    """The rows from a position on."""
    return list(source.rows(selected or source.columns(), after))


def readable(found: list[Row]) -> list[tuple[object, ...]]:
    """Line and cells of those that can be read."""
    return [(row.line, *row.cells) for row in found if row.cells is not None]


def reasons(found: list[Row]) -> dict[int, str]:
    """Line -> reason of those that cannot."""
    return {row.line: row.reason for row in found if row.cells is None}


def test_rows_of_a_csv(tmp_path: Path) -> None:
    """A byte order mark, CRLF, empty lines and a last line without an end are nothing special."""
    source = opened(tmp_path, b"\xef\xbb\xbft, a,b\r\n1,2,3\r\n\r\n4,,6")
    assert source.columns() == ["t", "a", "b"]
    assert readable(rows(source)) == [(2, "1", "2", "3"), (4, "4", "", "6")]
    assert readable(rows(source, "b", "t")) == [(2, "3", "1"), (4, "6", "4")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_fits(tmp_path: Path, delimiter: str) -> None:
    """The header has the time's column with one delimiter only; no option is needed."""
    source = opened(tmp_path, delimiter.join("tab") + "\n" + delimiter.join("123") + "\n")
    assert readable(rows(source)) == [(2, "1", "2", "3")]


def test_quoted_cells(tmp_path: Path) -> None:
    """Delimiters, quotes and line ends in quotes belong to the cell, and the next row's line number is right."""
    source = opened(tmp_path, 't,a\n1,"x, ""y"""\n2,"two\nlines"\n3,5" pipe\n4,"z"\n')
    assert readable(rows(source)) == [(2, "1", 'x, "y"'), (3, "2", "two\nlines"), (5, "3", '5" pipe'), (6, "4", "z")]


def test_line_separators_of_unicode_end_no_row(tmp_path: Path) -> None:
    """Only LF ends a line; a row of empty cells is a row, also when TAB stands between them."""
    source = opened(tmp_path, 't,a\n1,"x\u2028y"\n2,x\u2028\x0by\n"3",\x1cz\n')
    assert readable(rows(source)) == [(2, "1", "x\u2028y"), (3, "2", "x\u2028\x0by"), (4, "3", "\x1cz")]
    assert readable(rows(opened(tmp_path, "t\ta\n\t\n \n1\t2\n"))) == [(2, "", ""), (4, "1", "2")]


def test_a_quote_without_an_end_spoils_its_line_only(tmp_path: Path) -> None:
    """The rows behind an opened quote are read, whether another quote follows far below or none at all."""
    body = "".join(f"{number},{number}\n" for number in range(10))
    for broken in (f't,a\n1,"oops\n{body}', f't,a\n1,"oops\n{body}7,"fine"\n'):
        found = rows(opened(tmp_path, broken))
        assert list(reasons(found)) == [2]
        assert "quoted cell has no end" in reasons(found)[2]
        assert len(readable(found)) >= 10


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    """A wrong number of cells, NUL, bytes that are not UTF-8, text behind a quote: each its own reason."""
    found = rows(opened(tmp_path, b't,a\n1\n1,2,3\n1,\x002\n1,\xff\n1,"a"b\n"1,2\n3,4\n'))
    assert readable(found) == [(8, "3", "4")]
    for line, part in {2: "1 cells", 3: "3 cells; the header has 2", 4: "NUL", 5: "not UTF-8 (byte 0xff at 3)"}.items():
        assert part in reasons(found)[line]
    assert "not CSV" in reasons(found)[6]
    assert set(reasons(found)) == {2, 3, 4, 5, 6, 7}


def test_a_huge_line_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line over the limit is unreadable, its memory bounded, and the next row has its right number and position."""
    monkeypatch.setattr(lines, "LINE_BYTES_MAX", 100)
    monkeypatch.setattr(lines, "_CHUNK_BYTES", 64)
    content = b"t,a\n1," + b"9" * 1000 + b"\n2,3\n"
    source = opened(tmp_path, content)
    found = rows(source)
    assert "longer than" in reasons(found)[2]
    assert len(found[0].text) == 100
    assert readable(found) == [(3, "2", "3")]
    assert source.end() == (len(content), hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("name", ["data.csv", "data.jsonl"])
def test_positions_are_ends_of_rows(tmp_path: Path, name: str) -> None:
    """From any row's end on exactly the rows behind it come, with the same lines; digests are of the bytes before."""
    if name.endswith("csv"):
        content = 't,a\n1,2\n\n3,"four\nfive"\nbad\n6,7\n'
    else:
        content = '{"t":1,"a":2}\n\n{"t":3,"a":"x"}\nbad\n{"t":6,"a":7}\n'
    source = opened(tmp_path, content, name)
    whole = rows(source)
    assert len(whole) == 4
    for at, row in enumerate(whole):
        assert rows(source, after=row.end) == whole[at + 1 :]
    ends = [row.end for row in whole]
    expected = {end: hashlib.sha256(content.encode()[:end]).hexdigest() for end in ends}
    assert source.digests([*ends, 10_000]) == expected
    for at, row in enumerate(whole):
        assert rows(source, after=row.end) == whole[at + 1 :]
    iterator = source.rows(source.columns(), ends[0])
    for row in whole[1:]:
        assert next(iterator) == row
        assert source.end() == (row.end, expected[row.end])


def test_a_line_that_grew_after_it_was_sent(tmp_path: Path) -> None:
    """A file that ended inside a line goes on in it: the rest is reported; a line end that was added is nothing."""
    source = opened(tmp_path, "t,a\n1,2\n3,45\n6,7\n")
    found = rows(source, after=len("t,a\n1,2\n3,4"))
    assert reasons(found) == {3: "the line goes on behind what was sent as its end before"}
    assert readable(found) == [(4, "6", "7")]
    assert readable(rows(source, after=len("t,a\n1,2"))) == [(3, "3", "45"), (4, "6", "7")]


def test_rows_of_json_lines(tmp_path: Path) -> None:
    """Keys are columns in the order of their appearance; a key that is missing is an empty cell."""
    source = opened(tmp_path, '{"t": 1, "a": 2.5}\n{"t": 2, "b": true}\n[1]\n{"t": 3\n', "data.ndjson")
    assert source.columns() == ["t", "a", "b"]
    found = rows(source)
    assert readable(found) == [(1, 1, 2.5, None), (2, 2, None, True)]
    assert reasons(found)[3] == "a JSON list, not an object"
    assert "not JSON" in reasons(found)[4]


def test_keys_that_come_late(tmp_path: Path) -> None:
    """A key that none of the first rows has is noticed, and found when it is asked for by name."""
    source = opened(tmp_path, '{"t": 1, "a": 1}\n' * 300 + '{"t": 1, "late": 2}\n', "data.jsonl")
    assert source.columns() == ["t", "a"]
    rows(source, "t", "a")
    assert source.late_columns() == ["late"]
    assert (source.has("never"), source.has("late")) == (False, True)
    assert source.columns() == ["t", "a", "late"]
    assert rows(source, "late")[-1].cells == [2]


def test_rows_of_parquet(tmp_path: Path) -> None:
    """Times, numbers and text of a Parquet file; positions are rows, also inside a row group."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table(
        {
            "t": pa.array([1_706_702_400_000_000_000 + number for number in range(1000)], pa.timestamp("ns")),
            "device": pa.array(["a", "b"] * 500).dictionary_encode(),
            "level": pa.array([None, *range(1, 1000)], pa.int64()),
            "price": pa.array(["1.50"] * 1000).cast(pa.decimal128(5, 2)),
        }
    )
    pq.write_table(table, tmp_path / "data.parquet", row_group_size=300)
    source = open_source(str(tmp_path / "data.parquet"))
    assert (source.columns(), source.size) == (["t", "device", "level", "price"], 1000)
    whole = rows(source, "t", "device", "level", "price")
    assert [row.end for row in whole] == [row.line for row in whole] == list(range(1, 1001))
    assert whole[1].cells is not None
    assert whole[1].cells[1:] == ("b", 1, 1.5)
    assert rows(source, "level", after=450)[0].cells == (450,)
    digest = hashlib.sha256((tmp_path / "data.parquet").read_bytes()).hexdigest()
    assert source.digests([0, 1000, 1001]) == {0: digest, 1000: digest}
    assert source.end() == (1000, digest)
    source.close()


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("empty.csv", b"", "is empty"),
        ("blank.csv", b"\n \n\n", "nothing but empty lines"),
        ("utf16.csv", "t,a\n1,2\n".encode("utf-16"), "iconv"),
        ("latin.csv", "t,Wärme\n1,2\n".encode("latin1"), "latin.csv:1: not UTF-8 (byte 0xe4 at 4"),
        ("nul.csv", b"t,a\0\n1,2\n", "NUL"),
        ("mac.csv", b"t,a\r1,2\r", "CR alone"),
        ("quote.csv", b't,"a\n1,2\n', "quote without an end"),
        ("packed.csv", b"\x1f\x8b\x08\0", "gzip"),
        ("sheet.csv", b"PK\x03\x04....", "spreadsheet"),
        ("really.csv", b"PAR1....PAR1", "--format parquet"),
        ("broken.parquet", b"PAR1....PAR1", "is not Parquet"),
        ("array.jsonl", b'[{"t": 1}]\n', "jq -c"),
        ("none.jsonl", b"hello\nworld\n", "none.jsonl:1: not JSON"),
        ("blank.jsonl", b"\n\n", "nothing but empty lines"),
        ("notes.doc", b"t,a\n", "--format csv, jsonl or parquet"),
    ],
)
def test_files_that_cannot_be_replayed(tmp_path: Path, name: str, content: bytes, part: str) -> None:
    """Each says what is wrong with the file, and what to do."""
    with pytest.raises(StopError) as caught:
        opened(tmp_path, content, name)
    assert part in str(caught.value)
    assert name in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    """Standard input, a folder, a pipe, a name that does not exist: the nearest name is offered."""
    (tmp_path / "data.csv").write_text("t,a\n1,2\n")
    os.mkfifo(tmp_path / "pipe.csv")
    cases = {
        "-": "standard input",
        ".": "directory",
        "pipe.csv": "no regular file",
        "dta.csv": "data.csv",
        "a\0b": "read",
    }
    for name, part in cases.items():
        with pytest.raises(EdgewaterError, match=part):
            open_source(name if name == "-" else str(tmp_path / name))
    with pytest.raises(EdgewaterError, match="one character"):
        open_source(str(tmp_path / "data.csv"), "", "::")


def test_a_sample_that_is_not_utf8_is_an_error_of_the_file(tmp_path: Path) -> None:
    """A Latin-1 file whose header is ASCII is not sent as a heap of dead letters."""
    source = opened(tmp_path, "t,a\n1,2\n3,Wärme\n".encode("latin1"))
    with pytest.raises(StopError, match=r"data\.csv:3: not UTF-8"):
        source.sample()
    with pytest.raises(StopError, match=r"data\.jsonl:2: not UTF-8"):
        opened(tmp_path, b'{"t":1}\n{"t":"\xe4"}\n', "data.jsonl")


def test_many_records_with_quotes_stay_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An opened quote looks ahead no farther than its bound."""
    monkeypatch.setattr(csv_source, "RECORD_BYTES_MAX", 64)
    found = rows(opened(tmp_path, "t,a\n" + '1,"\n' + "2,3\n" * 100 + '4,"\n'))
    assert len(readable(found)) == 100
    assert sorted(reasons(found)) == [2, 103]


def test_json_values_keep_their_types(tmp_path: Path) -> None:
    """Numbers in quotes are text, big integers are exact."""
    source = opened(tmp_path, json.dumps({"t": 1, "a": "2", "b": 2**60 + 1}) + "\n", "data.jsonl")
    assert readable(rows(source)) == [(1, 1, "2", 2**60 + 1)]
