"""`edgewater completion bash|zsh|fish`: a script, made from the parsers, that completes nouns, verbs, options, values.

    eval "$(edgewater completion bash)"

The script is static text: completing runs the shell's own functions only, and starts no Python.

**Delivery**: as of the installed release; an upgrade needs the script anew (the line above in the shell's start file
does that). **Bounds**: one line for each command and each option that takes a value.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from .cli_errors import explained
from .cli_parser import Parser

__all__ = ["SHELLS", "Command", "add_completion_command", "commands", "script"]


@dataclass(frozen=True, slots=True)
class Value:
    """What an option or argument takes: some words, or a file (with an ending), or a directory, or anything."""

    words: tuple[str, ...] = ()
    file: bool = False
    ending: str = ""
    directory: bool = False


@dataclass(frozen=True, slots=True)
class Option:
    """One option with all its spellings; `value` is None when it takes none."""

    names: tuple[str, ...]
    help: str
    value: Value | None


@dataclass(frozen=True, slots=True)
class Command:
    """What can follow `edgewater <path>`."""

    path: str
    verbs: dict[str, str]
    options: tuple[Option, ...]
    arguments: tuple[Value, ...] = field(default=())


def add_completion_command(parser: argparse.ArgumentParser) -> None:
    """Add the argument of `edgewater completion`."""
    parser.description = "Print a script that completes the commands of edgewater in your shell."
    parser.epilog = (
        "examples:\n"
        "  eval \"$(edgewater completion bash)\"                  in ~/.bashrc\n"
        "  eval \"$(edgewater completion zsh)\"                   in ~/.zshrc, after compinit\n"
        "  edgewater completion fish > ~/.config/fish/completions/edgewater.fish\n"
    )  # fmt: skip
    parser.add_argument("shell", choices=list(SHELLS), metavar="SHELL", help=", ".join(SHELLS))
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    sys.stdout.write(script(arguments.shell))
    return 0


# -- from the parsers ----------------------------------------------------------------------------------------------


def commands() -> list[Command]:
    """Every command that there is, the empty path first."""
    from .cli import NOUNS, noun_parser, top_parser

    nouns = {name: noun.help for name, noun in NOUNS.items()}
    found = [Command("", {**nouns, "help": "how a command is used"}, _options(top_parser()))]
    for name in nouns:
        try:
            found += _below(name, noun_parser(name))
        except ImportError as error:
            # Without its extra a noun has its name and nothing more.
            if explained(error) is None:
                raise
    return [*found, Command("help", nouns, ())]


def _below(path: str, parser: Parser) -> Iterator[Command]:
    yield Command(path, parser.verb_help, _options(parser), tuple(_value(each) for each in parser.arguments))
    for name, verb in parser.verbs.items():
        yield from _below(f"{path} {name}", verb)


def _options(parser: Parser) -> tuple[Option, ...]:
    return tuple(
        Option(tuple(each.option_strings), each.help or "", None if each.nargs == 0 else _value(each))
        for each in parser.options
    )


def _value(action: argparse.Action) -> Value:
    if action.choices:
        return Value(words=tuple(map(str, action.choices)))
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if name.startswith("{"):
        return Value(words=tuple(name.strip("{}").split(",")))
    if "DIR" in name or action.dest == "dir" or action.dest.endswith("_dir"):
        return Value(directory=True)
    ending = re.search(r"(?:FILE|PATH)[A-Z]*(\.\w+)?", name)
    return Value(file=ending is not None, ending=(ending.group(1) or "") if ending else "")


# -- to the shells -------------------------------------------------------------------------------------------------


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _bash_value(value: Value, indent: str) -> str:
    if value.words:
        return f"{indent}_edgewater_words {_quoted(' '.join(value.words))}"
    if value.directory:
        return f"{indent}_edgewater_files -d"
    if value.file and value.ending:
        return f"{indent}_edgewater_files -f -X {_quoted('!*' + value.ending)}; _edgewater_files -d"
    return f"{indent}_edgewater_files -f" if value.file else f"{indent}:"


def _paths(found: list[Command]) -> str:
    return "|".join(_quoted(command.path) for command in found if command.path)


def _bash(found: list[Command]) -> str:
    values, words = [], []
    for command in found:
        for option in command.options:
            if option.value is not None:
                names = "|".join(_quoted(f"{command.path}:{name}") for name in option.names)
                values.append(f"        {names})\n{_bash_value(option.value, ' ' * 12)}\n            return ;;")
        options = " ".join(name for option in command.options for name in option.names)
        arguments = "\n".join(dict.fromkeys(_bash_value(each, " " * 16) for each in command.arguments))
        if command.verbs:
            arguments = f"{' ' * 16}_edgewater_words {_quoted(' '.join(command.verbs))}"
        words.append(
            f"        {_quoted(command.path)})\n            if [[ $current == -* ]]; then\n"
            f"                _edgewater_words {_quoted(options)}\n            else\n{arguments or ' ' * 16 + ':'}\n"
            "            fi ;;"
        )
    return _BASH.format(paths=_paths(found), values="\n".join(values), words="\n".join(words))


_BASH = """# Completion of edgewater for bash 3.2 and later, made by `edgewater completion bash`.
_edgewater_words() {{
    local IFS=$' \\t\\n'
    COMPREPLY+=($(compgen -W "$1" -- "$current"))
}}
_edgewater_files() {{
    local IFS=$'\\n'
    compopt -o filenames 2>/dev/null
    COMPREPLY+=($(compgen "$@" -- "$current"))
}}
_edgewater() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command="" next index
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        next="${{command:+$command }}${{COMP_WORDS[index]}}"
        case "$next" in
            {paths}) command="$next" ;;
        esac
    done
    # `--option=value` comes as three words.
    if [[ $current == = ]]; then
        current=""
    elif [[ $previous == = ]]; then
        previous="${{COMP_WORDS[COMP_CWORD-2]}}"
    fi
    case "$command:$previous" in
{values}
    esac
    case "$command" in
{words}
    esac
}}
complete -F _edgewater edgewater
"""


def _zsh_value(value: Value, indent: str) -> str:
    if value.words:
        return f"{indent}compadd -- {' '.join(map(_quoted, value.words))}"
    if value.directory:
        return f"{indent}_files -/"
    if value.file and value.ending:
        return f"{indent}_files -g {_quoted('*' + value.ending)}"
    return f"{indent}_files" if value.file else f"{indent}:"


def _described(name: str, help: str) -> str:
    return _quoted(f"{name}:" + " ".join(help.replace("%%", "%").split()).replace(":", "\\:"))


def _zsh(found: list[Command]) -> str:
    values, words = [], []
    for command in found:
        for option in command.options:
            if option.value is not None:
                names = "|".join(_quoted(f"{command.path}:{name}") for name in option.names)
                values.append(f"        {names})\n{_zsh_value(option.value, ' ' * 12)}\n            return ;;")
        options = " ".join(_described(name, option.help) for option in command.options for name in option.names)
        verbs = " ".join(_described(name, text) for name, text in command.verbs.items())
        arguments = "\n".join(dict.fromkeys(_zsh_value(each, " " * 16) for each in command.arguments))
        if verbs:
            arguments = f"{' ' * 16}found=({verbs})\n{' ' * 16}_describe command found"
        words.append(
            f"        {_quoted(command.path)})\n            if [[ $current == -* ]]; then\n"
            f"                found=({options})\n                _describe option found\n            else\n"
            f"{arguments or ' ' * 16 + ':'}\n            fi ;;"
        )
    return _ZSH.format(paths=_paths(found), values="\n".join(values), words="\n".join(words))


_ZSH = """#compdef edgewater
# Completion of edgewater for zsh, made by `edgewater completion zsh`.
_edgewater() {{
    local current="${{words[CURRENT]}}" previous="${{words[CURRENT-1]}}" command="" next
    local -a found
    local -i index
    for ((index = 2; index < CURRENT; index++)); do
        next="${{command:+$command }}${{words[index]}}"
        case "$next" in
            ({paths}) command="$next" ;;
        esac
    done
    case "$command:$previous" in
{values}
    esac
    case "$command" in
{words}
    esac
}}
if [[ "${{funcstack[1]}}" == _edgewater ]]; then
    _edgewater "$@"
else
    compdef _edgewater edgewater
fi
"""


def _fish(found: list[Command]) -> str:
    lines = []
    for command in found:
        at = f"complete -c edgewater -n '__edgewater_at \"{command.path}\"'"
        lines += [f"{at} -f -a {_quoted(name)} -d {_quoted(_one_line(text))}" for name, text in command.verbs.items()]
        for option in command.options:
            spelled = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
            lines.append(f"{at} {spelled}{_fish_value(option.value, '-r')} -d {_quoted(_one_line(option.help))}")
        lines += dict.fromkeys(f"{at}{_fish_value(each, '')}" for each in command.arguments)
    return _FISH.format(
        paths=" ".join(_quoted(command.path) for command in found if command.path), lines="\n".join(lines)
    )


def _one_line(text: str) -> str:
    return " ".join(text.replace("%%", "%").split())


def _fish_value(value: Value | None, needed: str) -> str:
    if value is None:
        return ""
    needed = f" {needed}" if needed else ""
    if value.words:
        return f"{needed} -f -a {_quoted(' '.join(value.words))}"
    if value.directory:
        return f"{needed} -f -a '(__fish_complete_directories)'"
    if value.file and value.ending:
        return f"{needed} -f -a '(__edgewater_files {value.ending})'"
    return f"{needed} -F" if value.file else f"{needed} -f"


_FISH = """# Completion of edgewater for fish, made by `edgewater completion fish`.
function __edgewater_at
    set -l command ''
    for word in (commandline -opc)[2..-1]
        set -l next (string trim -- "$command $word")
        if contains -- $next {paths}
            set command $next
        end
    end
    test "$command" = "$argv[1]"
end
function __edgewater_files
    set -l token (commandline -ct)
    for file in $token*
        if test -d $file
            echo $file/
        else if string match -q -- "*$argv[1]" $file
            echo $file
        end
    end
end
complete -c edgewater -f
{lines}
"""

SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
"""Shell -> what writes its script."""


def script(shell: str) -> str:
    """The completion script for one of SHELLS."""
    return SHELLS[shell](commands())
