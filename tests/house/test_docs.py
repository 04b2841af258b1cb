"""The documentation holds: links lead somewhere, commands exist with their options, the README's function runs."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest

from edge_agent import FunctionKit
from edge_agent.cli import NOUNS
from tests.kit.pages import blocks_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_COMMAND = re.compile(rf"(?:^|[`\s/])edgewater ((?:{'|'.join(NOUNS)})\b[^`\n]*)", re.MULTILINE)


def _commands(text: str) -> list[list[str]]:
    """Command lines of our command in a page that show at least one option or argument."""
    found = []
    for match in _COMMAND.finditer(text):
        # A page may say how a command ends: `# exits 1`.
        line = re.sub(r"\s+# exits \d+\s*$", "", match.group(1)).split("   ")[0].rstrip(" .,;:)")
        if "--" in line and "..." not in line and "[" not in line and "|" not in line:
            found.append(shlex.split(line))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    """A relative link names a file or folder of the repository."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_shown_is_understood(page: Path) -> None:
    """Each command line with options in a page parses with the product's own parser."""
    for words in _commands(page.read_text("utf-8")):
        noun = NOUNS[words[0]]
        parser = argparse.ArgumentParser(prog=f"edgewater {words[0]}")
        getattr(importlib.import_module(noun.module), noun.function)(parser)
        try:
            parser.parse_args(words[1:])
        except SystemExit as end:
            # `--help` ends with 0.
            if end.code:
                pytest.fail(f"{page.name} shows what is not understood: edgewater {shlex.join(words)}")


def test_the_readme_shows_commands_and_a_function() -> None:
    """The two checks above have something to check."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(_commands(readme)) >= 2
    assert "@every" in readme


def test_the_function_of_the_readme_runs_as_printed(tmp_path: Path) -> None:
    """The boiler's code, cut out of the README, declares a function that returns its two readings."""
    files = {block.title: block.text for block in blocks_of((ROOT / "README.md").read_text("utf-8")) if block.title}
    file = tmp_path / "boiler.py"
    file.write_text(files["boiler.py"])
    kit = FunctionKit(file)
    kit.advance(0)
    found = [(row["name"], row["value"]) for row in kit.rows()]
    assert found == [("temperature", 71.5), ("pressure", 1.8)]
