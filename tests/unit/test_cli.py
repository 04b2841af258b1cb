"""The command `edgewater`: nouns, what it imports, and how it fails."""

from __future__ import annotations

import argparse
import errno
import importlib
import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent import cli
from edge_agent.cli import NOUNS, Noun, main, noun_parser, top_parser
from edge_agent.contract.errors import RetryError, StopError

ROOT = Path(__file__).parents[2]


def noun_that(monkeypatch: pytest.MonkeyPatch, error: Exception | int) -> None:
    """A noun `test` whose verb `go` raises or returns `error`."""

    def add(parser: argparse.ArgumentParser) -> None:
        verbs = parser.add_subparsers(required=True)

        def run(_arguments: argparse.Namespace) -> int:
            if isinstance(error, int):
                return error
            raise error

        verbs.add_parser("go").set_defaults(run=run)

    monkeypatch.setattr(cli, "_add_commands", lambda noun, parser: add(parser))
    monkeypatch.setitem(NOUNS, "test", Noun("none", "none", "for this test"))


class TestErrors:
    @pytest.mark.parametrize("error", [StopError("do this"), RetryError("do this")])
    def test_one_line_and_status_one(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """An error raised on purpose is one line for a person, without a traceback."""
        noun_that(monkeypatch, error)
        assert main(["test", "go"]) == 1
        assert capsys.readouterr().err == "edgewater: do this\n"

    def test_debug_shows_where(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """With --debug the traceback comes first."""
        noun_that(monkeypatch, StopError("do this"))
        assert main(["--debug", "test", "go"]) == 1
        assert "Traceback" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("module", "extra"),
        [("pyarrow.parquet", "lake"), ("faust", "stream"), ("amqtt.broker", "embedded"), ("x", "all")],
    )
    def test_a_missing_package_names_the_extra(
        self, module: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """What to install, in one line."""
        noun_that(monkeypatch, ModuleNotFoundError(f"No module named '{module}'", name=module))
        assert main(["test", "go"]) == 1
        err = capsys.readouterr().err
        assert f"pip install 'edgewater[{extra}]'" in err
        assert err.count("\n") == 1

    def test_a_missing_module_of_ours_is_a_fault(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A module of Edgewater itself that is missing is no matter of extras."""
        noun_that(monkeypatch, ModuleNotFoundError("No module named 'lake.cli'", name="lake.cli"))
        assert main(["test", "go"]) == 70
        err = capsys.readouterr().err
        assert "this is a fault of Edgewater" in err
        assert "pip install" not in err

    def test_a_fault_is_one_line_that_says_so(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A fault of the program has a status of its own; --debug, before or after the noun, shows where it is."""
        noun_that(monkeypatch, ValueError("a fault"))
        assert main(["test", "go"]) == 70
        assert capsys.readouterr().err == (
            "edgewater: unexpected error: ValueError: a fault; this is a fault of Edgewater: "
            "run again with --debug and report it\n"
        )
        for words in (["--debug", "test", "go"], ["test", "go", "--debug"], ["test", "--debug", "go"]):
            assert main(words) == 70
            err = capsys.readouterr().err
            assert "Traceback" in err
            assert err.endswith("please report it\n")

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (OSError(errno.ENOSPC, "No space", "spool/x"), "spool/x: no space is left on its disk; free some"),
            (OSError(errno.EACCES, "Denied", "/etc/x"), "/etc/x: user "),
            (OSError(errno.EADDRINUSE, "In use", None), "In use: another process listens there; end that one, or give"),
            (OSError(errno.EFBIG, "Too large", "a"), "a: the largest file that is allowed is reached; raise the limit"),
            (OSError(errno.EXDEV, "Cross-device", "a", None, "b"), "a and b: Cross-device; check the path"),
            (FileNotFoundError(errno.ENOENT, "No such file", "none.py"), "none.py: it does not exist; check the path"),
            (ConnectionRefusedError(errno.ECONNREFUSED, "Refused"), "Refused: nothing listens there; start it"),
            (MemoryError(), "not enough memory; free some"),
            (sqlite3.OperationalError("database or disk is full"), "database or disk is full; check the disk"),
            (StopError("url mqtt://me:secret@h is wrong"), "url mqtt://***@h is wrong"),
            (StopError("device \x1b[2Jpump\nsecond line"), "device \\x1b[2Jpump\nsecond line"),
        ],
    )
    def test_what_the_system_refuses(
        self, error: Exception, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A full disk, missing rights, a taken port and so on: the path, what it means, and the next step."""
        noun_that(monkeypatch, error)
        assert main(["test", "go"]) == 1
        err = capsys.readouterr().err
        assert err.startswith("edgewater: ")
        assert words in err
        assert "Traceback" not in err

    def test_a_system_error_about_nothing_is_a_fault(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An error of the system without a path, of a kind that nobody expected, has to be reported."""
        noun_that(monkeypatch, OSError(errno.EBADF, "Bad file descriptor"))
        assert main(["test", "go"]) == 70

    def test_ctrl_c(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ctrl-C is status 130, as shells have it."""

        def interrupted(_noun: Noun, _parser: argparse.ArgumentParser) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(cli, "_add_commands", interrupted)
        assert main(["agent", "run"]) == 130


class TestNouns:
    def test_the_status_is_the_verbs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a verb returns is the exit status."""
        noun_that(monkeypatch, 3)
        assert main(["test", "go"]) == 3

    def test_an_unknown_noun(self, capsys: pytest.CaptureFixture[str]) -> None:
        """The nearest noun is suggested."""
        assert main(["lak"]) == 2
        assert "did you mean lake?" in capsys.readouterr().err

    def test_an_unlike_noun(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Where none is near, all are listed."""
        assert main(["zzzz"]) == 2
        assert "agent, bridge" in capsys.readouterr().err

    @pytest.mark.parametrize("noun", ["agent"])
    def test_a_nouns_own_commands(self, noun: str) -> None:
        """The function that adds the noun's commands exists, and its help can be shown."""
        found = NOUNS[noun]
        parser = argparse.ArgumentParser()
        getattr(importlib.import_module(found.module), found.function)(parser)
        assert parser.format_help()

    def test_options_after_the_noun_are_the_nouns(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`edgewater agent run --help` is the verb's help, with every setting."""
        with pytest.raises(SystemExit) as ended:
            main(["agent", "run", "--help"])
        assert ended.value.code == 0
        out = capsys.readouterr().out
        assert "--mqtt-urls" in out
        assert "--drain-timeout-s" in out

    def test_help_lists_the_nouns(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`edgewater --help` names every noun."""
        with pytest.raises(SystemExit):
            main(["--help"])
        out = capsys.readouterr().out
        assert all(noun in out for noun in NOUNS)

    def test_every_example_is_understood(self) -> None:
        """Each command line that a help text shows parses with the parsers that it belongs to."""
        shown = re.findall(r"^  edgewater (.*?)(?:  .*| [>|] .*)?$", top_parser().format_help(), re.MULTILINE)
        for name in NOUNS:
            for parser in [noun_parser(name), *noun_parser(name).verbs.values()]:
                shown += re.findall(r"^  edgewater (.*?)(?:  .*| [>|] .*)?$", parser.epilog or "", re.MULTILINE)
        assert len(shown) > 15
        for line in shown:
            noun, *rest = shlex.split(line)
            if noun != "help":
                noun_parser(noun).parse_args(rest)

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`--version` prints one line."""
        with pytest.raises(SystemExit) as ended:
            main(["--version"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith("edgewater ")

    def test_only_the_wanted_noun_is_imported(self) -> None:
        """`edgewater agent` loads nothing of the other rooms, and help alone nothing of the agent."""
        code = (
            "import sys; from edge_agent.cli import main\n"
            "try: main(['agent', '--help'])\n"
            "except SystemExit: pass\n"
            "others = {m for m in sys.modules if m.split('.')[0] in ('stream_jobs', 'lake', 'deploy', 'paho')}\n"
            "assert not others, others"
        )
        subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=ROOT, stdout=subprocess.DEVNULL)

    def test_as_a_module(self) -> None:
        """`python -m edge_agent.cli` is the same command."""
        done = subprocess.run(
            [sys.executable, "-m", "edge_agent.cli", "nonsense"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 2
        assert "there is no noun 'nonsense'" in done.stderr
