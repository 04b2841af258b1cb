"""Parquet files and their statistics: what readers skip files by must never be wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lake.schema import READINGS, columns_of, fitted
from lake.storage import DirectoryStorage
from lake.transaction.records import File
from lake.writer import STATISTIC_CHARACTERS_MAX, write_file
from tests.kit.lake_rows import readings


def _written(tmp_path: Path, rows: pa.Table) -> tuple[File, Path]:
    storage = DirectoryStorage(tmp_path)
    storage.make_folders()
    file = write_file(storage, rows, "t", "staging", 0)
    return file, tmp_path / "tables" / "t" / file.path


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    """Plain columns in the file, whatever encodings; its size is the record's."""
    rows = fitted(readings(1000), columns_of(READINGS, "readings"), "readings")
    file, path = _written(tmp_path, rows)
    assert pq.read_schema(path).equals(READINGS)
    assert pq.read_table(path).equals(rows.cast(READINGS))
    assert path.stat().st_size == file.size


def test_the_codec_and_encodings_are_those_measured(tmp_path: Path) -> None:
    """zstd everywhere, delta encoding for times and integers, dictionaries for strings and repeating floats."""
    rows = readings(1000, values=[round(i % 50 / 7, 2) for i in range(1000)])
    _, path = _written(tmp_path, rows)
    group = pq.ParquetFile(path).metadata.row_group(0)
    encodings = {group.column(i).path_in_schema: group.column(i).encodings for i in range(group.num_columns)}
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}
    assert "DELTA_BINARY_PACKED" in encodings["ts"]
    assert "DELTA_BINARY_PACKED" in encodings["seq"]
    assert "RLE_DICTIONARY" in encodings["device"]
    assert "RLE_DICTIONARY" in encodings["value"]


def test_statistics_bound_the_rows(tmp_path: Path) -> None:
    """Rows, lowest, highest and nulls of each column, in the Delta protocol's names and forms."""
    file, _ = _written(tmp_path, readings(3, values=[2.5, None, -1.0]))
    assert file.stats["numRecords"] == 3
    assert file.stats["minValues"]["value"] == -1.0
    assert file.stats["maxValues"]["value"] == 2.5
    assert file.stats["nullCount"]["value"] == 1
    assert file.stats["minValues"]["ts"] == "2026-09-21T14:13:20.000000Z"
    assert file.stats["maxValues"]["ts"] == "2026-09-21T14:13:22.000000Z"
    assert (file.stats["minValues"]["device"], file.stats["maxValues"]["name"]) == ("pi4", "b")
    assert file.stats["nullCount"]["trace"] == 3
    assert "trace" not in file.stats["minValues"]


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_float_outside_the_common_order_has_no_bounds(tmp_path: Path, odd: float) -> None:
    """Readers disagree on where NaN sorts, and JSON has no infinities."""
    file, _ = _written(tmp_path, readings(3, values=[1.0, odd, 2.0]))
    assert "value" not in file.stats["minValues"]
    assert "value" not in file.stats["maxValues"]


def test_hostile_values_leave_bounds_out(tmp_path: Path) -> None:
    """Times that no calendar has and endless strings are stored, and are no bounds."""
    times = pa.array([-(1 << 62), 0, 1 << 62], pa.int64()).cast(pa.timestamp("us", "UTC"))
    rows = pa.table({"ts": times, "s": ["a", "b" * (STATISTIC_CHARACTERS_MAX + 1), "\x00\x1b[2J"]})
    file, path = _written(tmp_path, rows)
    assert "ts" not in file.stats["minValues"]
    assert "ts" not in file.stats["maxValues"]
    assert file.stats["minValues"]["s"] == "\x00\x1b[2J"
    assert "s" not in file.stats["maxValues"]
    assert pq.read_table(path).equals(rows)


@pytest.mark.parametrize(
    ("moment_us", "text"),
    [
        (-62_135_596_800_000_000, "0001-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_times_at_the_edges_have_four_digits_of_year(tmp_path: Path, moment_us: int, text: str) -> None:
    """Years 1 to 9999, and before 1970."""
    times = pa.array([moment_us], pa.int64()).cast(pa.timestamp("us", "UTC"))
    file, _ = _written(tmp_path, pa.table({"ts": times}))
    assert file.stats["minValues"]["ts"] == text


def test_several_row_groups_have_common_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounds of a file are those of all its row groups."""
    monkeypatch.setattr("lake.writer.ROW_GROUP_ROWS", 10)
    file, path = _written(tmp_path, readings(35))
    assert pq.ParquetFile(path).metadata.num_row_groups == 4
    assert (file.stats["minValues"]["value"], file.stats["maxValues"]["value"]) == (0.0, 34.0)
