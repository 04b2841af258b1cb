"""How a file is found again: by what is in it and the options that change rows, whatever its name."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from edge_agent.contract.errors import StopError
from edge_agent.replay.position import (
    EARLIER_MAX,
    PREFIX,
    REMEMBERED_MAX,
    Position,
    Remembered,
    decoded,
    longest,
    offsets,
    options_prefix,
)

KEY = options_prefix({"time": "t"})


class World:
    """A spool's properties, and files that are given as digests: the text before each offset is its own digest."""

    def __init__(self) -> None:
        self.properties: dict[str, str] = {}
        self._ids = itertools.count()
        self._used_us = itertools.count(1)

    def open(self, text: str, round: int = 1) -> Position:
        """The position of a file with this text."""
        known = decoded(self.properties, "here")
        digests = {offset: text[:offset] for offset in offsets(known.values()) if offset <= len(text)}
        return Position(
            KEY, known, longest(known, digests), columns=("a",), round=round, new_id=lambda: f"{next(self._ids):016x}"
        )

    def send(self, text: str, up_to: int, position: Position | None = None, round: int = 1) -> Position:
        """Send the file up to an offset."""
        position = position or self.open(text, round)
        self.write(position.properties(up_to, text[:up_to], next(self._used_us)))
        return position

    def write(self, properties: dict[str, str | None]) -> None:
        """As the spool does."""
        for name, value in properties.items():
            if value is None:
                del self.properties[name]
            else:
                self.properties[name] = value


def test_a_file_goes_on_where_it_was() -> None:
    """Known by its content up to there, also when it has grown; anything else begins at 0."""
    world = World()
    world.send("abcdef", 4)
    assert world.open("abcdef").sent == 4
    assert world.open("abcdefghij").sent == 4
    assert world.open("abXdef").sent == 0
    assert world.open("abc").sent == 0
    world.send("abcdefghij", 10)
    assert len(world.properties) == 1
    assert world.open("abcdefghij").sent == 10


def test_an_earlier_end_is_still_known() -> None:
    """A file that grew was sent at its old length too; one that goes on differently from there keeps both apart."""
    world = World()
    world.send("abcd", 4)
    world.send("abcdefgh", 8)
    assert world.open("abcd").sent == 4
    world.send("abcdXYZ", 7)
    assert len(world.properties) == 2
    assert world.open("abcdefgh").sent == 8
    assert world.open("abcdXYZ").sent == 7


def test_a_round_begins_at_0_for_every_spool() -> None:
    """After --again a position of an earlier round counts as 0, and what identifies the file stays."""
    world = World()
    position = world.send("abcdef", 6)
    world.write(position.begin_round(100))
    assert world.open("abcdef", 2).sent == 0
    world.send("abcdef", 3, world.open("abcdef", 2), 2)
    assert world.open("abcdef", 2).sent == 3
    assert world.open("abcdef", 3).sent == 0
    assert world.open("abXdef", 2).sent == 0


def test_the_longest_unused_file_is_forgotten() -> None:
    """The number of files remembered is bounded, and so are the earlier ends of one."""
    world = World()
    for number in range(REMEMBERED_MAX + 5):
        world.send(f"{number:03d}", 3)
    assert len(world.properties) == REMEMBERED_MAX
    assert world.open("004").sent == 0
    assert world.open("005").sent == 3
    text = "x" * 100
    for up_to in range(1, 60):
        world.send(text, up_to)
    (grown,) = [each for each in decoded(world.properties, "").values() if each.offset == 59]
    assert len(grown.earlier) == EARLIER_MAX


def test_options_that_change_rows_make_other_names() -> None:
    """The time's column, the zone ... are part of what a file is."""
    prefixes = {
        options_prefix({"time": "t"}),
        options_prefix({"time": "u"}),
        options_prefix({"time": "t", "zone": "x"}),
    }
    assert len(prefixes) == 3
    assert all(prefix.startswith(PREFIX) and len(prefix) == len(PREFIX) + 17 for prefix in prefixes)


def test_what_this_version_does_not_know_is_an_error() -> None:
    """Ignored it would send rows twice."""
    with pytest.raises(StopError, match="another --dir"):
        decoded({"replay:a:b": "{}"}, "here")
    newer = Remembered(version=2, offset=1, digest="", sent=1, columns=(), used_us=0)
    with pytest.raises(StopError, match="version 2"):
        decoded({"replay:a:b": msgspec.json.encode(newer).decode()}, "here")
