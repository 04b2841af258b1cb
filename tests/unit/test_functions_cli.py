"""`edgewater functions`: new files that run and whose tests pass, checks with file and line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import functions_cli
from edge_agent.cli import main


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def failed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of an error."""
    assert main(["functions", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("edgewater: ")
    assert error.count("\n") == 1
    return error


class TestNew:
    def test_what_it_writes_passes_its_own_test(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The function file is one, and pytest passes on the test beside it."""
        assert main(["functions", "new", "green_house"]) == 0
        assert "wrote test_green_house.py" in capsys.readouterr().out
        root = Path(functions_cli.__file__).parents[1]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_green_house.py"]
        done = subprocess.run(
            command, cwd=here, env={"PYTHONPATH": str(root), "PATH": ""}, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert "4 passed" in done.stdout
        assert main(["functions", "check", "green_house.py"]) == 0
        listed = capsys.readouterr().out.splitlines()
        assert listed[1].split() == ["green_house", "@every(10)", "->", "stream", "readings"]
        assert len(listed) == 4

    def test_it_goes_where_it_is_told(self, here: Path) -> None:
        """--dir names a folder that exists."""
        (here / "sub").mkdir()
        assert main(["functions", "new", "a", "--dir", "sub"]) == 0
        assert sorted(path.name for path in (here / "sub").iterdir()) == ["a.py", "test_a.py"]

    @pytest.mark.parametrize("existing", ["a.py", "test_a.py"])
    def test_nothing_is_overwritten(self, here: Path, existing: str, capsys: pytest.CaptureFixture[str]) -> None:
        """When one of both is there, neither is written."""
        (here / existing).write_text("mine")
        assert "not overwritten" in failed(capsys, "new", "a")
        assert [path.name for path in here.iterdir()] == [existing]
        assert (here / existing).read_text() == "mine"

    @pytest.mark.parametrize(
        "name", ["", "a b", "a-b", "../a", "1a", "class", "json", "edge_agent", "test_a", "x" * 65, "ä"]
    )
    def test_names_that_no_module_can_have(self, here: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Also those that would hide a module of others."""
        assert repr(name)[:20] in failed(capsys, "new", name)
        assert list(here.iterdir()) == []

    def test_a_folder_that_is_not_there(self, capsys: pytest.CaptureFixture[str]) -> None:
        """It is not made."""
        assert "folder nowhere does not exist" in failed(capsys, "new", "a", "--dir", "nowhere")


class TestCheck:
    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("def f(:\n", "bad.py:1: SyntaxError"),
            ("x = 'open\n", "bad.py:1: SyntaxError"),
            ("\n\n1 / 0\n", "bad.py:3: ZeroDivisionError: division by zero"),
            ("x = 1\n", "bad.py declares no function; put @every(10)"),
            ("from edge_agent import evry\n", "bad.py:1: ImportError"),
            ("from edge_agent import every\n@every\ndef f(): pass\n", "as @every(10)"),
            ("from edge_agent import every\n@every(1)\ndef f(x): pass\n", "bad.py:2: function f takes 1 arguments"),
            ("from edge_agent import on_stream\n@on_stream('readings')\ndef f(x): pass\n", "for ever"),
            ("import os\nos._exit(4)\n", "ended its process with status 4"),
            ("import sys\nsys.exit(4)\n", "bad.py:2: SystemExit: 4"),
            ("x = '\0'\n", "bad.py"),
        ],
    )
    def test_what_is_wrong_has_its_place(
        self, here: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One line with file and line, status 1."""
        (here / "bad.py").write_text(text)
        assert says in failed(capsys, "check", "bad.py")

    def test_files_that_are_none(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Missing, a folder, bytes that are no text."""
        (here / "raw.py").write_bytes(b"\xff\xfe\x00")
        (here / "boiler.py").touch()
        assert "does not exist; did you mean boiler.py?" in failed(capsys, "check", "boler.py")
        assert "does not exist; check the path" in failed(capsys, "check", "zzz.py")
        assert "there is no folder nowhere" in failed(capsys, "check", "nowhere/a.py")
        assert "Is a directory" in failed(capsys, "check", ".")
        assert "raw.py" in failed(capsys, "check", "raw.py")

    def test_no_function_is_called(self, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """The file is run, its functions are not; what it prints is no answer."""
        (here / "quiet.py").write_text(
            "from edge_agent import every, on_stream, on_topic\nprint('loading')\n"
            "@every(0.001, stream='s')\ndef f(): open('called', 'w')\n"
            "@on_topic('a/#')\ndef g(m): pass\n@on_stream('s')\ndef h(rows): pass\n"
            "def app(environ, start_response): pass\n"
        )
        assert main(["functions", "check", "quiet.py"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1:] == [
            "  f      @every(0.001) -> stream s",
            '  g      @on_topic("a/#") -> stream readings',
            '  h      @on_stream("s") -> stream readings',
            "  quiet  serves HTTP",
        ]
        assert not (here / "called").exists()

    def test_a_file_that_takes_too_long(
        self, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It is ended, and the error says so."""
        monkeypatch.setattr(functions_cli, "CHECK_TIMEOUT_S", 0.5)
        (here / "slow.py").write_text("import time\ntime.sleep(60)\n")
        assert "takes more than 0.5 s to load" in failed(capsys, "check", "slow.py")
