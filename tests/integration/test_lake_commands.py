"""The commands that read a lake, as processes: on terminals of any kind, in pipes, and when interrupted."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.kit.landed_lake import landed_lake
from tests.kit.wait import until

ROOT = Path(__file__).parents[2]
_ENDLESS = "SELECT count(*) FROM range(1000000) a, range(1000000) b WHERE hash(a.range) % 7 = hash(b.range) % 11 + 1"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory of `up` with a lake in it."""
    folder = tmp_path_factory.mktemp("up")
    landed_lake(folder / "lake")
    return str(folder)


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "edge_agent.cli", *words]


def _environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "COLUMNS"))}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **changes}


def _run(*words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        _command(*words), env=_environment(**environment), capture_output=True, timeout=60, check=False
    )


def _on_terminal(*words: str, columns: int = 80, **environment: str) -> tuple[str, int]:
    """What a terminal of so many columns gets, standard error included, and the exit status."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(
        _command(*words), env=_environment(**environment), stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        got = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not part:
                break
            got += part
        os.close(ours)
        return got.decode(errors="replace").replace("\r\n", "\n"), process.wait(60)


@pytest.mark.parametrize(
    "words",
    [
        ["lake", "query", "SELECT count(*) AS n FROM readings"],
        ["lake", "tables"],
        ["lake", "schema", "readings_1m"],
        ["lake", "status"],
        ["lake", "log"],
        ["dead-letters", "list"],
        ["dead-letters", "show", "edgewater.batches/0/7"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_each_command_runs_and_fits(directory: str, words: list[str]) -> None:
    """As a process on a terminal: status 0, no line wider than it of what is a table, no colour."""
    text, status = _on_terminal(*words, "--dir", directory, NO_COLOR="1")
    assert status == 0, text
    assert "\x1b" not in text
    tables = [line for line in text.splitlines() if "  " in line]
    assert all(len(line) <= 80 for line in tables), text


def test_a_terminal_of_few_columns_gets_a_table_that_fits(directory: str) -> None:
    """Columns are left out at the right and named below."""
    text, status = _on_terminal("lake", "query", "FROM readings LIMIT 2", "--dir", directory, columns=50)
    assert status == 0
    lines = text.splitlines()
    assert all(len(line) <= 50 for line in lines[:4])
    assert lines[-1].startswith("(no place for ")
    assert lines[-1].endswith("; --format csv or json gives all)")


def test_a_terminal_without_utf_8_gets_ascii(directory: str) -> None:
    """Charts, marks of what was cut, and letters that it does not have."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    text, status = _on_terminal(
        "lake", "query", "SELECT ts, value FROM readings WHERE device = 'pi4'", "--chart", "--dir", directory, **plain
    )
    assert status == 0
    assert text.isascii()
    assert "#" in text
    text, status = _on_terminal(
        "lake", "query", "SELECT 'grün' AS s, repeat('a', 200) AS l", "--dir", directory, **plain
    )
    assert status == 0
    assert "gr\\xfcn" in text
    assert "a~\n" in text


def test_a_terminal_gets_no_control_characters_in_csv_and_json(directory: str) -> None:
    """A pipe gets what is there; eyes get escapes."""
    sql = "SELECT E'\\x1b[2J' AS s"
    for form in ("csv", "json"):
        text, status = _on_terminal("lake", "query", sql, "--format", form, "--dir", directory)
        assert (status, "\x1b" in text) == (0, False)
    assert b"\x1b[2J" in _run("lake", "query", sql, "--format", "csv", "--dir", directory).stdout


def test_bytes_go_into_pipes_only(directory: str) -> None:
    """Parquet and raw payloads are refused on a terminal, with what to do instead."""
    text, status = _on_terminal("lake", "query", "FROM readings", "--format", "parquet", "--dir", directory)
    assert (status, text) == (
        1,
        "edgewater: Parquet is not for a terminal; add --output FILE, or send it into a pipe\n",
    )
    found = _run("lake", "query", "FROM readings", "--format", "parquet", "--dir", directory)
    assert pq.read_table(io.BytesIO(found.stdout)).num_rows == 20
    text, status = _on_terminal("dead-letters", "show", "edgewater.batches/0/7#2", "--raw", "--dir", directory)
    assert status == 1
    assert "--raw writes bytes that a terminal may obey" in text
    found = _run("dead-letters", "show", "edgewater.batches/0/7#2", "--raw", "--dir", directory)
    assert found.stdout == b"\xed\x47\x00\x1b[2J" * 1000


def test_machines_get_utf_8_whatever_the_locale(directory: str) -> None:
    """A pipe's encoding does not depend on who runs the command."""
    found = _run(
        "lake", "query", "SELECT 'grün' AS s", "--format", "json", "--dir", directory,
        LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0",
    )  # fmt: skip
    assert json.loads(found.stdout) == {"s": "grün"}
    found = _run(
        "lake", "query", "SELECT 'grün' AS s", "--format", "csv", "--dir", directory,
        LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0",
    )  # fmt: skip
    assert found.stdout == '"s"\n"grün"\n'.encode()


@pytest.mark.parametrize("form", ["csv", "table"])
def test_ctrl_c_ends_a_query_at_once(directory: str, tmp_path: Path, form: str) -> None:
    """Status 130, nothing on the way to --output is left, no temporary files either."""
    output = tmp_path / "out"
    output.mkdir()
    spill = tmp_path / "tmp"
    spill.mkdir()
    command = _command("lake", "query", _ENDLESS, "--format", form, "--output", str(output / "a"), "--dir", directory)
    with subprocess.Popen(
        command, env=_environment(TMPDIR=str(spill)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        until(lambda: list(spill.iterdir()), 30)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
    assert list(output.iterdir()) == []
    assert list(spill.iterdir()) == []


def test_ctrl_c_ends_a_long_answer_too(directory: str) -> None:
    """While rows are being written."""
    command = _command("lake", "query", "FROM range(1000000000000)", "--format", "csv", "--dir", directory)
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(100_000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_reader_that_has_seen_enough_is_no_error(directory: str, form: str) -> None:
    """`| head -1` ends the query quietly."""
    command = _command("lake", "query", "FROM range(100000000)", "--format", form, "--dir", directory)
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.long
def test_errors_are_one_message_and_status_one(directory: str, tmp_path: Path) -> None:
    """Wrong SQL with its place, a table and an id that are not there, a directory without a lake; never a traceback."""
    for words, text in (
        (["lake", "query", "SELECT valeu FROM readings"], "there is no column valeu; did you mean value?\n\nLINE 1: "),
        (
            ["lake", "query", "SELECT * FROM read_text('/etc/passwd')"],
            "a query reads the lake's tables and nothing else",
        ),
        (["lake", "query", _ENDLESS, "--timeout-s", "0.1"], "the query took longer than 0.1 s"),
        (["lake", "schema", "reading"], "did you mean readings?"),
        (["lake", "status", "--device", "pi44"], "did you mean pi4?"),
        (["dead-letters", "show", "x"], "there is no dead letter 'x'"),
    ):
        found = _run(*words, "--dir", directory)
        assert (found.returncode, found.stdout) == (1, b"")
        assert found.stderr.decode().startswith("edgewater: ")
        assert text in found.stderr.decode()
        assert b"Traceback" not in found.stderr
    found = _run("lake", "tables", "--dir", str(tmp_path))
    assert found.returncode == 1
    assert f"there is no lake in {tmp_path}".encode() in found.stderr


@pytest.mark.parametrize("words", [["lake", "query"], ["lake", "status"], ["dead-letters", "list"]])
def test_help_has_examples_and_exit_statuses(words: list[str]) -> None:
    """As they are written."""
    found = _run(*words, "--help")
    assert found.returncode == 0
    text = found.stdout.decode()
    assert f"examples:\n  edgewater {' '.join(words)}" in text
    assert "exit status: 0 done, 1 it failed" in text
