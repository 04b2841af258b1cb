"""The parser of every `edgewater` command: argparse with errors that help, and help that shows examples as written.

What is mistyped is named with its nearest neighbour and the command that shows more:

    edgewater agent run: there is no option --devcie; did you mean --device? `edgewater agent run --help` shows more

Options are never abbreviated: a script that relies on an abbreviation breaks when a second option begins alike. Sub-
parsers are of the same class, so a noun's module uses `parser.add_subparsers()` and `add_parser()` as with argparse;
`epilog="examples:\\n  edgewater ..."` is shown as it is written.

**Delivery**: exit status 2 for a command line that cannot be understood, and nothing has been done by then.
**Bounds**: one message of one line; a value in it has at most 200 characters and no password.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from edge_agent.contract.errors import quoted, redacted

__all__ = ["EXIT_USAGE", "Parser", "nearest"]

EXIT_USAGE = 2
_OPTIONS_SHOWN_MAX = 6
_REWORDED = (
    (r"expected one argument", r"{} needs a value"),
    (r"expected at least one argument", r"{} needs at least one value"),
    (r"expected (\d+) arguments", r"{} needs \1 values"),
    (r"ignored explicit argument (.*)", r"{} takes no value, but has \1"),
    (r"invalid (?:int|_?count) value: (.*)", r"{} is \1; use a whole number"),
    (r"invalid float value: (.*)", r"{} is \1; use a number"),
    (r"invalid \w+ value: (.*)", r"{} is \1, which cannot be used"),
    (r"not allowed with argument (.*)", r"{} cannot be given together with \1"),
)
"""argparse's messages about one argument -> ours; {} is the argument."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `name` was probably meant to be."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return near[0] if near else None


def _or_list(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return f"did you mean {near}?" if near else f"use one of {', '.join(known)}"


class Parser(argparse.ArgumentParser):
    """The parser of the command, a noun or a verb."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        keywords["allow_abbrev"] = False
        super().__init__(*arguments, **keywords)
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS,
            help="show where an error came from, and more of the log",
        )  # fmt: skip

    def add_subparsers(self, **keywords: Any) -> argparse._SubParsersAction[Any]:
        """As argparse; the verbs stand first, under a title of their own."""
        action = super().add_subparsers(**{"title": "verbs", **keywords, "metavar": "VERB"})
        self._action_groups.insert(0, self._action_groups.pop())
        return action

    # -- what there is: for errors and completion ------------------------------------------------------------------

    @property
    def options(self) -> list[argparse.Action]:
        """The options, in order."""
        return [action for action in self._actions if action.option_strings and action.help != argparse.SUPPRESS]

    @property
    def arguments(self) -> list[argparse.Action]:
        """The arguments that are no options, in order, a verb not among them."""
        return [action for action in self._actions if not action.option_strings and action is not self._verb_action]

    @property
    def verbs(self) -> dict[str, Parser]:
        """The verbs below this noun."""
        return {} if self._verb_action is None else dict(self._verb_action.choices or {})

    @property
    def verb_help(self) -> dict[str, str]:
        """What the verbs say of themselves."""
        shown = [] if self._verb_action is None else self._verb_action._get_subactions()  # noqa: SLF001 - no public way
        return {action.dest: action.help or "" for action in shown}

    @property
    def _verb_action(self) -> argparse._SubParsersAction[Parser] | None:
        return next((each for each in self._actions if isinstance(each, argparse._SubParsersAction)), None)  # noqa: SLF001

    # -- errors ----------------------------------------------------------------------------------------------------

    def parse_known_args(  # type: ignore[override]  # of argparse's overloads we offer the one that is used
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse, but nothing is left over: what this parser does not know is its error, said in its name."""
        given = list(sys.argv[1:] if args is None else args)
        self._check_options(given)
        found, rest = super().parse_known_args(given, namespace)
        if rest:
            self.error(self._left_over(rest))
        return found, rest

    def _check_options(self, given: Sequence[str]) -> None:
        """Before anything else: a mistyped option would otherwise be called a missing one."""
        for word in given:
            if word == "--" or (self._verb_action is not None and not word.startswith("-")):
                return
            name = word.partition("=")[0]
            if word.startswith("--") and " " not in word and name not in self._option_string_actions:
                self.error(self._unknown_option(name))

    def _unknown_option(self, name: str) -> str:
        near = nearest(name, [text for action in self.options for text in action.option_strings])
        return f"there is no option {redacted(name)[:80]}" + (f"; did you mean {near}?" if near else "")

    def _left_over(self, rest: Sequence[str]) -> str:
        first = rest[0]
        if first.startswith("-") and first != "-":
            return self._unknown_option(first.partition("=")[0])
        takes = " ".join(_shown(action) for action in self.arguments)
        return f"{quoted(redacted(first))} is one argument too many; it takes {takes or 'options only'}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """As argparse's, with the nearest choice."""
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        if action is self._verb_action:
            text = f"there is no verb {quoted(value)}; {_or_list(str(value), known)}"
        else:
            text = f"{_shown(action)} is {quoted(value)}; {_or_list(str(value), known)}"
        raise _Worded(action, text)

    def error(self, message: str) -> NoReturn:
        """End with status 2 and one line: what is wrong, and what to do."""
        text = self._worded(message)
        join = " " if text.endswith("?") else "; "
        self.exit(EXIT_USAGE, f"{self.prog}: {text}{join}`{self.prog} --help` shows more\n")

    def _worded(self, message: str) -> str:
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        if missing and self.verbs:
            return f"a verb is missing; use one of {', '.join(self.verbs)}"
        if missing:
            return f"{missing.group(1)} is missing"
        about = re.fullmatch(r"argument ([^:]*): (.*)", message, re.DOTALL)
        if about is None:
            return message
        name = f"option {about.group(1)}" if about.group(1).startswith("-") else about.group(1)
        for pattern, ours in _REWORDED:
            found = re.fullmatch(pattern, about.group(2))
            if found:
                return redacted(found.expand(ours.replace("{}", name.replace("\\", r"\\"))))
        return f"{name}: {redacted(about.group(2))}"

    # -- help ----------------------------------------------------------------------------------------------------

    def _get_formatter(self) -> argparse.HelpFormatter:
        if self.formatter_class in (argparse.HelpFormatter, argparse.RawDescriptionHelpFormatter):
            return _Formatter(prog=self.prog)
        return super()._get_formatter()

    def format_help(self) -> str:
        """As argparse, but a command with many options has a usage of one line."""
        if self.usage is None and len(self.options) > _OPTIONS_SHOWN_MAX:
            required = [f"{action.option_strings[0]} {_shown(action)}" for action in self.options if action.required]
            words = [self.prog, *required, "[options]", *(_usage(action) for action in self.arguments)]
            self.usage = " ".join(words).replace("%", "%%")
        return super().format_help()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Wraps descriptions that were written as one line, and shows as written what has lines of its own."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        assert not indent, "descriptions and epilogs stand at the margin"
        return text if "\n" in text.strip() else textwrap.fill(text.strip(), width)


class _Worded(argparse.ArgumentError):
    """An error whose text is ours already."""

    def __str__(self) -> str:
        return str(self.message)


def _shown(action: argparse.Action) -> str:
    """An argument as `--help` names it."""
    if action.option_strings and not isinstance(action.metavar, str):
        return f"option {action.option_strings[-1]}" if action.nargs == 0 or action.choices else action.dest.upper()
    return action.metavar if isinstance(action.metavar, str) else action.dest


def _usage(action: argparse.Action) -> str:
    name = _shown(action)
    return {"*": f"[{name} ...]", "?": f"[{name}]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), name)
