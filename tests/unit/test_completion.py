"""Completion in real shells: what Tab offers after a command line that was begun."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.cli import NOUNS
from edge_agent.completion import SHELLS, commands, script
from tests.kit.wait import until

CASES = [
    ("edgewater la", {"lake"}),
    ("edgewater lake qu", {"query"}),
    ("edgewater lake query --form", {"--format"}),
    ("edgewater lake query --format cs", {"csv"}),
    ("edgewater agent run --mqtt-version ", {"3.1.1", "5"}),
    ("edgewater lake query --dir sub", {"subfolder"}),
    ("edgewater agent run --spool-po", {"--spool-policy"}),
    ("edgewater agent run --spool-policy drop-o", {"drop-oldest"}),
    ("edgewater agent run --compress t", {"true"}),
    ("edgewater agent run --device x bo", {"boiler.py"}),
    ("edgewater agent run --config edge", {"edge.toml"}),
    ("edgewater help la", {"lake"}),
    ("edgewater completion z", {"zsh"}),
    ("edgewater settings brid", {"bridge"}),
    ("edgewater --vers", {"--version"}),
    ("edgewater agent run --device ", set()),
]
"""What stands before Tab, and words that are offered (all of them, when there are several)."""


def needs(shell: str) -> str:
    """The shell's path; skips where it is not installed."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"needs {shell}: it is not installed (apt-get install {shell})")
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with files to complete, and the scripts."""
    for name in ("boiler.py", "boat.txt", "edge.toml", "edge.py"):
        (tmp_path / name).touch()
    (tmp_path / "subfolder").mkdir()
    (tmp_path / "subfile").touch()
    for shell in SHELLS:
        (tmp_path / f"complete.{shell}").write_text(script(shell))
    return tmp_path


def offered(found: str) -> set[str]:
    """Lines without what shells put after a word."""
    return {line.split("\t")[0].rstrip("/ ") for line in found.splitlines() if line.strip()}


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_bash(folder: Path, line: str, expected: set[str]) -> None:
    """bash calls the function with the words so far; what it leaves in COMPREPLY is offered."""
    words = line.split(" ")
    code = (
        f"set -u; . ./complete.bash; COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}; "
        '_edgewater; printf "%s\\n" "${COMPREPLY[@]-}"'
    )
    done = subprocess.run(
        [needs("bash"), "--norc", "--noprofile", "-c", code],
        cwd=folder, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert offered(done.stdout) == expected
    assert done.stderr == ""


@pytest.mark.parametrize(("line", "expected"), CASES)
def test_fish(folder: Path, line: str, expected: set[str]) -> None:
    """fish says itself what it offers."""
    code = f"source complete.fish; complete -C {shlex.quote(line)}"
    done = subprocess.run(
        [needs("fish"), "--no-config", "-c", code],
        cwd=folder, capture_output=True, text=True, check=True, timeout=30, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    assert offered(done.stdout) == expected
    assert done.stderr == ""


class Typed:
    """A shell on a terminal of its own, into which is typed."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._master, slave = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "PS1": "> ", "HOME": str(folder), "ZDOTDIR": str(folder)}
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self._seen = ""

    def types(self, text: str) -> None:
        """As at a keyboard."""
        os.write(self._master, text.encode())

    def until_shown(self, pattern: str) -> str:
        """Wait until the terminal shows it."""

        def shown() -> str:
            with contextlib.suppress(BlockingIOError):
                self._seen += os.read(self._master, 65536).decode("utf-8", "replace")
            # zsh takes back the blank after a word when the next word begins.
            self._seen = self._seen.replace(" \b", "")
            return self._seen if re.search(pattern, self._seen) else ""

        try:
            return until(shown, 30, f"{pattern} on the terminal")
        except AssertionError as error:
            raise AssertionError(f"{error}; the terminal shows {self._seen!r}") from None

    def close(self) -> None:
        """End the shell."""
        self._process.kill()
        self._process.wait(10)
        os.close(self._master)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("edgewater la\tqu\t", "edgewater lake query "),
        ("edgewater lake query --for\tcs\t", "edgewater lake query --format csv"),
        ("edgewater lake query --dir sub\t", "edgewater lake query --dir subfolder/"),
        ("edgewater agent run boi\t", "edgewater agent run boiler.py"),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_typed_at_a_terminal(folder: Path, shell: str, line: str, shown: str) -> None:
    """Tab completes in place, in an interactive shell that has read the script."""
    options = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"]}[shell]
    begin = {"bash": "", "zsh": "autoload -Uz compinit && compinit -u; "}[shell]
    typed = Typed([needs(shell), *options], folder)
    try:
        typed.types(f"{begin}. ./complete.{shell}; echo re''ady\n")
        typed.until_shown("\nready")
        typed.types(line)
        typed.until_shown(re.escape(shown))
    finally:
        typed.close()


def test_every_noun_and_option_is_known() -> None:
    """The script is made from the parsers that run: each noun is there, and a setting that is declared is an option."""
    found = {command.path: command for command in commands()}
    assert set(NOUNS) < set(found[""].verbs)
    names = {name for option in found["agent run"].options for name in option.names}
    assert {"--drain-timeout-s", "--mqtt", "--help", "-h", "--debug"} <= names


def test_making_a_script_loads_no_outside_library() -> None:
    """A shell's start is not delayed by libraries of the cloud."""
    code = (
        "import sys; from edge_agent.completion import script; script('bash')\n"
        "heavy = {name.split('.')[0] for name in sys.modules} & set(sys.argv[1:])\nassert not heavy, heavy"
    )
    libraries = ["pyarrow", "duckdb", "deltalake", "faust", "kafka", "aiokafka", "amqtt", "paho", "waitress"]
    subprocess.run([sys.executable, "-c", code, *libraries], check=True, timeout=60)
