"""Why a query failed, in words that help: texts that DuckDB gives, and what becomes of them."""

from __future__ import annotations

import pytest

from lake.query_errors import NAMES_MAX, explained

RELATIONS = {"readings": ["ts", "name", "value"], "readings_1m": ["minute", "mean"]}


_PLACE = "LINE 1: FROM reading\n             ^"


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (
            f'Catalog Error: Table with name reading does not exist!\nDid you mean "pg_index"?\n\n{_PLACE}',
            f"there is no table reading; did you mean readings?\n\n{_PLACE}\ntables: readings, readings_1m",
        ),
        (
            'Binder Error: Values list "r" does not have a column named "valu"',
            "there is no column valu; did you mean value?\ncolumns: ts, name, value",
        ),
        (
            'Binder Error: Referenced column "pi 4" not found in FROM clause!\nCandidate bindings: "name"',
            "there is no column pi 4; text is written in single quotes\ncolumns: ts, name, value",
        ),
        (
            'Catalog Error: Table Function with name "x" is not in the catalog, but exists in y.\n\nPlease install y',
            "there is no function x",
        ),
        ("Parser Error: syntax error at end of input", "syntax error at end of input"),
        ("Unheard Error: of", "Unheard Error: of"),
        ("Invalid Input Error: \x1b[2J\tx", "\\x1b[2J  x"),
    ],
)
def test_reasons_become_texts(reason: str, text: str) -> None:
    """The place stays, what DuckDB proposes goes, what this lake has comes."""
    assert explained(reason, "SELECT 1 FROM readings r", RELATIONS) == f"the query failed: {text}"


def test_a_file_is_refused_by_name() -> None:
    """And it is said what a query may read."""
    text = explained('Permission Error: Cannot access file "/etc/passwd"', "", RELATIONS)
    assert text == 'a query reads the lake\'s tables and nothing else: Cannot access file "/etc/passwd"'


def test_memory_and_disk_are_told_apart() -> None:
    """Both say what to do; DuckDB's settings, which nobody can change here, are left out."""
    memory = explained("Out of Memory Error: failed to allocate data of size 16.0 MiB (1/2 used)\n\n* SET x", "", {})
    assert memory.startswith("the query needs more memory than it may have: failed to allocate data of size 16.0 MiB")
    assert "SET" not in memory
    disk = explained("Out of Memory Error: failed to offload data block of size 1\nmax_temp_directory_size", "", {})
    assert disk.startswith("the query needs more temporary files on disk than it may have: ")


def test_long_lists_are_cut() -> None:
    """A lake of many tables does not fill the screen."""
    many = {f"t{index:03}": ["a"] for index in range(NAMES_MAX + 5)}
    text = explained("Catalog Error: Table with name x does not exist!", "", many)
    assert text.endswith(" and 5 more")
