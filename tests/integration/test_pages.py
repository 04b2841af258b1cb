"""Every page of the documentation, run as a reader would: the very commands and files that it shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.pages import Block, blocks_of, run_page
from tests.kit.processes import ROOT
from tests.kit.required import requires

PAGES = sorted(
    path
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    if any(block.words[:1] == ["sh"] and block.commands() for block in blocks_of(path.read_text("utf-8")))
)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_goes_through_as_written(page: Path, tmp_path: Path) -> None:
    """Each file is written, each command ends as the page says, each script runs."""
    if "curl " in page.read_text("utf-8"):
        requires("curl")
    assert run_page(page, tmp_path) > 0


def test_the_pages_that_people_start_with_are_run() -> None:
    """The README and the pages for functions, jobs and queries have commands that the test above runs."""
    names = {page.name for page in PAGES}
    assert {"README.md", "functions.md", "jobs.md", "lake.md"} <= names


def test_blocks_are_found_with_their_lines() -> None:
    """Files, scripts and commands are told apart, and each knows its place."""
    page = "text\n\n```python title=a.py\nx = 1\n```\n<!-- until: 3 -->\n```sh\n$ echo 3\n3\n$ false  # exits 1\n```\n"
    first, second = blocks_of(page)
    assert (first.title, first.text, first.line) == ("a.py", "x = 1\n", 4)
    assert second == Block("sh", "$ echo 3\n3\n$ false  # exits 1\n", 8, "3")
    assert second.commands() == [("echo 3", 0), ("false", 1)]


def test_a_page_that_lies_fails(tmp_path: Path) -> None:
    """A command with another status than the page says is a failure that names page and line."""
    page = tmp_path / "page.md"
    page.write_text("```sh\n$ exit 3\n```\n")
    with pytest.raises(AssertionError, match=r"page\.md:2: exit 3"):
        run_page(page, tmp_path)
    page.write_text("```sh\n$ exit 3  # exits 3\n```\n```python\nprint(1)\n```\n")
    assert run_page(page, tmp_path) == 2


def test_a_background_command_that_ends_fails(tmp_path: Path) -> None:
    """A server that the page leaves running must run."""
    page = tmp_path / "page.md"
    page.write_text("```sh background\n$ edgewater up --no-such-option\n```\n")
    with pytest.raises(AssertionError, match="ended with 2"):
        run_page(page, tmp_path)
