"""What authors of functions use: the decorator, `readings`, and what a function may return."""

from __future__ import annotations

import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest

import edge_agent
from edge_agent.contract import wire
from edge_agent.contract.columns import Column
from edge_agent.contract.errors import RejectError
from edge_agent.functions.api import declaration_of, every, readings
from edge_agent.functions.loader import load_builtin, load_file
from edge_agent.functions.rows import BULK_ROWS_MAX, Body, ReadingsCollector

TS = 1_700_000_000_000_000
Row = tuple[int, str, float]


def columns(body: Body) -> dict[str, Column]:
    """The columns of a batch's body."""
    rows, data = body
    message = wire.encode_batch(data, device="d", epoch=1, seq=1, rows=rows, stream="readings")
    return {column.name: column for column in wire.decode_columns(*wire.decode_header(message))}


def rows(body: Body) -> list[Row]:
    """The rows of a batch's body, as a reader of the tables would see them."""
    found = columns(body)
    codes = found["name"].buffers[0]
    formats = {1: "B", 2: "h", 4: "i"}
    names = memoryview(codes).cast(formats[found["name"].width])
    ts = memoryview(found["ts"].buffers[0]).cast("q")
    values = memoryview(found["value"].buffers[0]).cast("d")
    return [(ts[i], found["name"].names[names[i]], values[i]) for i in range(body[0])]


def collected(*results: Any, batch_rows: int = 1000) -> list[list[Row]]:
    """The batches made of some calls' results, the unfinished one last."""
    collector = ReadingsCollector(batch_rows, "tank")
    batches = [rows(body) for result in results for body in collector.add(result, TS)]
    return batches + ([rows(collector.take())] if collector.rows else [])


class TestEvery:
    def test_it_declares_and_leaves_the_function_alone(self) -> None:
        """A decorated function is still the function, so that it can be called and tested as any other."""

        @every(0.5, stream="alarms")
        def siren() -> dict[str, int]:
            return {"on": 1}

        found = declaration_of(siren)
        assert found is not None
        assert (found.interval_s, found.stream) == (0.5, "alarms")
        assert siren() == {"on": 1}

    @pytest.mark.parametrize("seconds", [0, -1, 0.0001, 1e9, float("nan"), "1", True, None])
    def test_an_interval_outside_its_bounds(self, seconds: Any) -> None:
        """A wrong interval is an error where the file is loaded, and quotes it."""
        with pytest.raises(RejectError, match="every"):
            every(seconds)

    def test_a_stream_that_no_table_can_have(self) -> None:
        """The stream's name is checked with the decorator."""
        with pytest.raises(RejectError, match="stream name"):
            every(1, stream="my stream")


class TestReturned:
    def test_a_mapping(self) -> None:
        """A mapping gives one row each, stamped with the time of the call."""
        assert collected({"a": 1, "b": 2.5}) == [[(TS, "a", 1.0), (TS, "b", 2.5)]]

    def test_rows_with_and_without_time(self) -> None:
        """Pairs take the time of the call, triples their own."""
        assert collected([("a", 1), (TS - 5, "a", 2)]) == [[(TS, "a", 1.0), (TS - 5, "a", 2.0)]]

    def test_a_generator(self) -> None:
        """Any iterable of rows will do."""
        assert collected((name, 1) for name in "ab") == [[(TS, "a", 1.0), (TS, "b", 1.0)]]

    @pytest.mark.parametrize("nothing", [None, {}, []])
    def test_nothing(self, nothing: Any) -> None:
        """A function that has nothing to say makes no batch."""
        assert collected(nothing) == []

    def test_rows_of_several_calls_become_one_batch(self) -> None:
        """Rows are gathered up to batch_rows, over calls, and cut exactly there."""
        batches = collected(*({"a": i, "b": i} for i in range(5)), batch_rows=4)
        assert [len(batch) for batch in batches] == [4, 4, 2]

    def test_values_keep_their_meaning(self) -> None:
        """Floats as they are (also infinite and not-a-number), booleans as 1 and 0, exact integers."""
        ((a, b, c, d),) = collected({"a": float("inf"), "b": float("nan"), "c": True, "d": 1 << 60})
        assert (a[2], b[2] != b[2], c[2], d[2]) == (float("inf"), True, 1.0, float(1 << 60))

    @pytest.mark.parametrize("value", ["12", None, (1 << 53) + 1, 10**400, [1], 1j])
    def test_a_value_that_no_column_holds(self, value: Any) -> None:
        """The error names value and reading; the whole call's rows are left out, those of other calls are not."""
        collector = ReadingsCollector(1000, "tank")
        list(collector.add({"good": 1}, TS))
        with pytest.raises(RejectError, match=r"value .* of 'bad'"):
            collector.add({"before": 1, "bad": value}, TS)
        assert rows(collector.take()) == [(TS, "good", 1.0)]

    @pytest.mark.parametrize(
        "wrong", ["text", object(), [1], [("a",)], [("a", 1, 2, 3)], {"": 1}, {3: 1}, [(1.5, "a", 1)], {"\ud800": 1}]
    )
    def test_other_shapes_are_errors(self, wrong: Any) -> None:
        """What is no row, or has no proper name or time, is refused before anything is gathered."""
        collector = ReadingsCollector(1000, "tank")
        with pytest.raises(RejectError):
            list(collector.add(wrong, TS))
        assert collector.rows == 0

    def test_names_bound_a_batch_too(self) -> None:
        """A batch is cut when its names become large, although it has few rows."""
        batches = collected({f"{i}{'x' * 50_000}": i for i in range(10)})
        assert len(batches) > 2
        assert sum(len(batch) for batch in batches) == 10

    @pytest.mark.parametrize(("names", "width"), [(3, 1), (300, 2)])
    def test_codes_are_as_narrow_as_they_can(self, names: int, width: int) -> None:
        """A byte a row up to 256 names."""
        collector = ReadingsCollector(1000, "tank")
        list(collector.add({f"n{i}": i for i in range(names)}, TS))
        assert columns(collector.take())["name"].width == width


class TestReadings:
    def test_columns_go_through_as_they_are(self) -> None:
        """Arrays become a batch of their own, after the single rows that came before."""
        bulk = readings(ts=array("q", [1, 2]), names=["a", "b"], codes=array("B", [1, 0]), values=array("d", [5, 6]))
        assert collected({"single": 1}, bulk) == [[(TS, "single", 1.0)], [(1, "b", 5.0), (2, "a", 6.0)]]

    def test_many_rows_become_several_batches(self) -> None:
        """More rows than a batch may have are cut, in order."""
        count = 2 * BULK_ROWS_MAX + 1
        bulk = readings(
            ts=array("q", range(count)),
            names=["a"],
            codes=array("B", bytes(count)),
            values=array("d", bytes(8 * count)),
        )
        batches = collected(bulk)
        assert [len(batch) for batch in batches] == [BULK_ROWS_MAX, BULK_ROWS_MAX, 1]
        assert [row[0] for batch in batches for row in batch] == list(range(count))

    @pytest.mark.parametrize(
        "change",
        [
            {"ts": array("d", [1.0])},
            {"ts": [1]},
            {"codes": array("B", [1])},
            {"codes": array("h", [-1])},
            {"values": array("d", [])},
            {"names": [1]},
            {"names": [""]},
        ],
    )
    def test_wrong_columns(self, change: dict[str, Any]) -> None:
        """Other types, unequal lengths, codes without a name: refused when the batch is made, in the author's code."""
        good = {"ts": array("q", [1]), "names": ["a"], "codes": array("B", [0]), "values": array("d", [1.0])}
        readings(**good)  # type: ignore[arg-type]
        with pytest.raises(RejectError):
            readings(**{**good, **change})  # type: ignore[arg-type]


class TestLoader:
    def load(self, tmp_path: Path, text: str, name: str = "tank_functions.py") -> Any:
        path = tmp_path / name
        path.write_text(text)
        return load_file(path)

    def test_functions_in_order_with_the_files_version(self, tmp_path: Path) -> None:
        """Decorated functions of the file, by name; the version is the digest of the file's bytes."""
        text = "from edge_agent import every\n@every(1)\ndef b(): pass\n@every(2)\ndef a(): pass\ndef c(): pass\n"
        program = self.load(tmp_path, text)
        assert list(program.functions) == ["b", "a"]
        assert program.version.hex() != self.load(tmp_path, text + "#\n").version.hex()
        assert program.version == self.load(tmp_path, text).version
        assert len(program.version) == 8

    def test_a_file_may_import_its_neighbours(self, tmp_path: Path) -> None:
        """As for a script, the file's own folder is on the import path; what it imports is not declared twice."""
        (tmp_path / "neighbour_of_tank.py").write_text(
            "from edge_agent import every\nLEVEL = 3\n@every(1)\ndef other(): pass\n"
        )
        program = self.load(
            tmp_path,
            "from edge_agent import every\nfrom neighbour_of_tank import LEVEL, other\n"
            "@every(1)\ndef tank(): return {'level': LEVEL}\n",
        )
        assert list(program.functions) == ["tank"]
        assert program.functions["tank"].call() == {"level": 3}

    def test_main_is_not_run(self, tmp_path: Path) -> None:
        """A file that is a script as well does not run its main part."""
        text = "from edge_agent import every\n@every(1)\ndef f(): pass\nif __name__ == '__main__': raise SystemExit\n"
        assert list(self.load(tmp_path, text).functions) == ["f"]

    def test_a_file_that_declares_nothing(self, tmp_path: Path) -> None:
        """The error says what to write."""
        with pytest.raises(RejectError, match="@every"):
            self.load(tmp_path, "def f(): pass\n")

    def test_an_unknown_name(self, tmp_path: Path) -> None:
        """A function that was removed from its file says which there are."""
        program = self.load(tmp_path, "from edge_agent import every\n@every(1)\ndef f(): pass\n")
        assert program.function("")[0] == "f"
        with pytest.raises(RejectError, match="declares f"):
            program.function("g")

    def test_the_built_in_function(self) -> None:
        """`host` comes with the package and has a version too."""
        program = load_builtin("host")
        assert list(program.functions) == ["host"]
        assert len(program.version) == 8


class TestPublic:
    def test_exported_names(self) -> None:
        """What authors may import is sorted and complete."""
        assert edge_agent.__all__ == [
            "FunctionKit",
            "Message",
            "Readings",
            "every",
            "on_stream",
            "on_topic",
            "readings",
        ]
        assert edge_agent.every is every
        with pytest.raises(AttributeError, match="nothing_like_it"):
            _ = edge_agent.nothing_like_it

    def test_a_functions_process_is_light(self) -> None:
        """The process of a function loads neither SQLite nor MQTT nor TLS; the package alone loads no other."""
        code = (
            "import sys, edge_agent; before = set(sys.modules); assert 'msgspec' not in before, before;"
            "import edge_agent.functions.child;"
            "heavy = {'sqlite3', 'paho', 'ssl', 'asyncio', 'http', 'email', 'pyarrow'} & set(sys.modules);"
            "assert not heavy, heavy"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=Path(edge_agent.__file__).parents[1])
