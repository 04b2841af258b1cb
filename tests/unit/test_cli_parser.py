"""Command lines that cannot be understood: one line with what is wrong, the nearest right word, and the next step."""

from __future__ import annotations

import pytest

from edge_agent.cli_parser import Parser


def parser() -> Parser:
    """A noun with two verbs."""
    top = Parser(prog="edgewater pump")
    verbs = top.add_subparsers(metavar="VERB", required=True)
    start = verbs.add_parser("start", help="begin", epilog="examples:\n  edgewater pump start   the\n     pump\n")
    start.add_argument("--device", required=True)
    start.add_argument("--speed", type=float)
    start.add_argument("--count", type=int)
    start.add_argument("--mode", choices=("slow", "fast"))
    start.add_argument("--dry", action="store_true")
    start.add_argument("file", metavar="FILE.py")
    verbs.add_parser("stop")
    return top


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "edgewater pump: a verb is missing; use one of start, stop; `edgewater pump --help` shows more"),
        ("strat", "edgewater pump: there is no verb 'strat'; did you mean start? `edgewater pump --help` shows more"),
        ("xyz", "edgewater pump: there is no verb 'xyz'; use one of start, stop; `edgewater pump --help` shows more"),
        ("--devcie start", "edgewater pump: there is no option --devcie; `edgewater pump --help` shows more"),
        ("start --devcie x f", "there is no option --devcie; did you mean --device? `edgewater pump start --help`"),
        ("start --devcie=mqtt://a:secret@b", "there is no option --devcie; did you mean --device?"),
        ("start --dev x f", "there is no option --dev; did you mean --device?"),
        ("start -x --device x f", "there is no option -x; `edgewater pump start --help` shows more"),
        ("start --zzzzzzzz", "there is no option --zzzzzzzz; `edgewater pump start --help` shows more"),
        ("start --device", "option --device needs a value;"),
        ("start --device --dry f", "option --device needs a value;"),
        ("start --device x", "edgewater pump start: FILE.py is missing; `edgewater pump start --help` shows more"),
        ("start", "edgewater pump start: --device, FILE.py is missing;"),
        ("start --device x f g", "'g' is one argument too many; it takes FILE.py;"),
        ("start --device x f mqtt://a:secret@b", "'mqtt://***@b' is one argument too many"),
        ("start --device x --speed fast f", "option --speed is 'fast'; use a number;"),
        ("start --device x --count 1.5 f", "option --count is '1.5'; use a whole number;"),
        ("start --device x --mode fst f", "option --mode is 'fst'; did you mean fast?"),
        ("start --device x --mode 9 f", "option --mode is '9'; use one of slow, fast;"),
        ("start --device x --dry=1 f", "option --dry takes no value, but has '1';"),
    ],
)
def test_one_line_with_the_nearest_word_and_the_next_step(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options, verbs, choices, numbers, missing and extra arguments; exit status 2, no usage dump, no password."""
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(line.split())
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert "secret" not in err


def test_what_is_right_is_taken() -> None:
    """The same values as argparse gives; --debug may stand at the verb; after -- all is argument."""
    found = parser().parse_args(["start", "--device", "x", "--speed=1.5", "--debug", "--", "--odd"])
    assert (found.device, found.speed, found.file, found.debug) == ("x", 1.5, "--odd", True)
    assert not hasattr(parser().parse_args(["stop"]), "debug")


def test_a_text_that_begins_like_an_option() -> None:
    """SQL with a leading comment is a text, as argparse has it for whatever has a blank in it."""
    found = parser().parse_args(["start", "--device", "x", "-- how many\nSELECT 1"])
    assert found.file == "-- how many\nSELECT 1"


def test_examples_are_shown_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks and blanks of an epilog stay, in verbs too; a long list of options is not repeated in the usage."""
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(["start", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "examples:\n  edgewater pump start   the\n     pump\n" in out
    assert out.startswith("usage: edgewater pump start --device DEVICE [options] FILE.py\n")
