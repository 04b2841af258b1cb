"""Why a query failed, in words that help: DuckDB's reason, where in the SQL, what was probably meant, what there is.

DuckDB tells the place of an error by a line of the SQL and carets below it, which are kept. Its proposals are replaced,
since it knows tables (`pg_class`) and settings that a lake's query cannot have.

**Delivery**: pure. **Bounds**: `NAMES_MAX` names of a list; control characters are escaped.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from lake.terminal import escaped

__all__ = ["NAMES_MAX", "explained"]

NAMES_MAX = 40

_TABLE = re.compile(r"Table with name \"?(.+?)\"? does not exist!")
_COLUMN = re.compile(r"Referenced column \"(.+?)\" (?:was )?not found")
_QUALIFIED = re.compile(r"(?:Table|Values list) \"(.+?)\" does not have a column named \"(.+?)\"")
_FUNCTION = re.compile(
    r"(?:Scalar|Aggregate|Table|Macro)? ?Function with name \"?(.+?)\"? (?:does not exist|is not in)"
)
_KIND = re.compile(r"(?:Catalog|Binder|Parser|Conversion|Invalid Input|Out of Range|Not implemented) Error: ")


def explained(reason: str, sql: str, relations: Mapping[str, Sequence[str]]) -> str:
    """DuckDB's `reason` why `sql` over `relations` (name -> columns) failed, as one text of a few lines."""
    reason = reason.strip()
    if reason.startswith("Permission Error"):
        text = "a query reads the lake's tables and nothing else: " + reason.removeprefix("Permission Error: ")
    elif reason.startswith("Out of Memory Error"):
        text = _too_large(reason)
    else:
        text = "the query failed: " + _failed(reason, sql, relations)
    return "\n".join(escaped(line.expandtabs(2)) for line in text.splitlines())


def _too_large(reason: str) -> str:
    first = reason.splitlines()[0].removeprefix("Out of Memory Error: ")
    if "max_temp_directory_size" in reason or "offload" in first:
        what = "more temporary files on disk than it may have"
    else:
        what = "more memory than it may have"
    return (
        f"the query needs {what}: {first}; read fewer columns, filter by device and time, aggregate before you sort or "
        "join, or give it more (--memory, memory_bytes=)"
    )


def _failed(reason: str, sql: str, relations: Mapping[str, Sequence[str]]) -> str:
    place = _place(reason)
    if match := _TABLE.search(reason):
        return f"there is no table {match[1]}{_near(match[1], relations)}{place}\ntables: {_list(sorted(relations))}"
    if match := _QUALIFIED.search(reason):
        return _no_column(match[2], _columns(sql, relations), place)
    if match := _COLUMN.search(reason):
        return _no_column(match[1], _columns(sql, relations), place)
    if match := _FUNCTION.search(reason):
        # What DuckDB proposes is often an extension to install, and nothing is installed here.
        near = re.search(r"^Did you mean \"(.+?)\"", reason, re.MULTILINE)
        return f"there is no function {match[1]}" + (f"; did you mean {near[1]}?" if near else "") + place
    return _KIND.sub("", reason, count=1)


def _no_column(name: str, columns: Sequence[str], place: str) -> str:
    listed = f"\ncolumns: {_list(columns)}" if columns else ""
    # Text in double quotes is a name in SQL, which is the usual reason for a name that nobody could have meant.
    hint = "; text is written in single quotes" if re.search(r"\W", name) else _near(name, columns)
    return f"there is no column {name}{hint}{place}{listed}"


def _place(reason: str) -> str:
    """The line of the SQL and the carets below it, if DuckDB tells them."""
    start = reason.find("\nLINE ")
    return "\n" + reason[start:].rstrip() if start >= 0 else ""


def _near(name: str, known: Iterable[str]) -> str:
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]}?" if near else ""


def _columns(sql: str, relations: Mapping[str, Sequence[str]]) -> list[str]:
    """The columns of the relations that the SQL names."""
    words = {word.lower() for word in re.findall(r"\w+", sql)}
    return list(dict.fromkeys(column for name in relations if name in words for column in relations[name]))


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMES_MAX])
    return shown if len(names) <= NAMES_MAX else f"{shown} and {len(names) - NAMES_MAX} more"
