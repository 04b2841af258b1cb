"""How far each file was replayed into one spool, as properties that are written with the batches they count.

A file is known by what is in it: an offset and the digest of everything before it. So a file that was renamed is the
same, one that has grown goes on at its old end, and one whose beginning changed is another. Options that change rows
belong to the name of the property. `docs/formats/spool.md` has the format.

    sent      rows up to here are in this spool, in this round
    round     1; `--again` begins the next, once the last one is finished. The spool of `--device` says which round it
              is for all devices of the file; a device's position of an earlier round counts as 0
    finished  the last round of which everything was durable in the log when the command ended

**Delivery**: pure; what `Position.properties` returns has to go into the transaction of the rows that it counts.
**Bounds**: REMEMBERED_MAX files a spool, the longest unused is forgotten first (and would be sent again); EARLIER_MAX
earlier ends a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from edge_agent.contract.errors import StopError, quoted

__all__ = ["PREFIX", "Match", "Position", "Remembered", "decoded", "longest", "offsets", "options_prefix"]

PREFIX = "replay:"
REMEMBERED_MAX = 64
EARLIER_MAX = 16
_VERSION = 1

End: TypeAlias = tuple[int, str]
"""Offset, and the digest of everything before it."""


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """One property's value."""

    version: int = _VERSION
    offset: int
    digest: str
    earlier: tuple[End, ...] = ()
    sent: int
    round: int = 1
    finished: int = 0
    columns: tuple[str, ...]
    used_us: int

    @property
    def ends(self) -> list[End]:
        """Every end known, the farthest first."""
        return sorted({(self.offset, self.digest), *self.earlier}, reverse=True)


@dataclass(frozen=True, slots=True)
class Match:
    """The remembered file that a file begins with, up to `end`."""

    name: str
    remembered: Remembered
    end: End


def options_prefix(options: Mapping[str, object]) -> str:
    """The beginning of the names of all files that were replayed with these options."""
    text = json.dumps(options, sort_keys=True, ensure_ascii=True)
    return f"{PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:16]}:"


def decoded(properties: Mapping[str, str], where: object) -> dict[str, Remembered]:
    """The properties of a spool as they are remembered; StopError for what this version does not know."""
    found = {}
    for name, value in properties.items():
        try:
            remembered = msgspec.json.decode(value, type=Remembered)
        except msgspec.MsgspecError as error:
            raise StopError(f"spool {where} has {name} = {quoted(value)}: {error}; give another --dir") from None
        if remembered.version != _VERSION:
            raise StopError(
                f"spool {where} knows a replayed file in version {remembered.version}, this program knows {_VERSION}; "
                "upgrade, or give another --dir"
            )
        found[name] = remembered
    return found


def longest(remembered: Mapping[str, Remembered], digests: Mapping[int, str]) -> Match | None:
    """The match that reaches farthest; of several the one used last."""
    matches = [
        Match(name, each, end)
        for name, each in remembered.items()
        for end in each.ends
        if digests.get(end[0]) == end[1]
    ]
    return max(matches, key=lambda match: (match.end[0], match.remembered.used_us), default=None)


class Position:
    """How far one spool has the file; `sent` is where to go on."""

    def __init__(
        self,
        prefix: str,
        known: Mapping[str, Remembered],
        match: Match | None,
        *,
        columns: tuple[str, ...],
        round: int,
        new_id: Callable[[], str],
    ) -> None:
        """`known`: everything that this spool remembers, of any options. `round`: the file's."""
        self._forget: dict[str, str | None] = {}
        self._name = match.name if match is not None else ""
        if match is not None and match.end[0] < match.remembered.offset:
            # The other file goes on differently from here: its own position must stay.
            self._name = ""
        if not self._name:
            self._name = prefix + new_id()
            unused = sorted(known, key=lambda name: known[name].used_us)[: max(0, len(known) + 1 - REMEMBERED_MAX)]
            self._forget = dict.fromkeys(unused)
        ends: list[End] = []
        self.sent = 0
        if match is not None:
            ends = sorted(end for end in match.remembered.ends if end[0] <= match.end[0])
            if match.remembered.round >= round:
                self.sent = min(match.remembered.sent, match.end[0])
        offset, digest = ends[-1] if ends else (0, "")
        self._remembered = Remembered(
            offset=offset, digest=digest, earlier=tuple(ends[-EARLIER_MAX:]), sent=self.sent, round=round,
            finished=0 if match is None else match.remembered.finished, columns=columns, used_us=0,
        )  # fmt: skip

    def properties(self, sent: int, digest: str, used_us: int) -> dict[str, str | None]:
        """What to write with the batches that hold the rows up to `sent`, where the file has this digest."""
        now = msgspec.structs.replace(self._remembered, sent=sent, used_us=used_us)
        if sent >= now.offset:
            now = msgspec.structs.replace(now, offset=sent, digest=digest)
        self._remembered = now
        return {**self._forget, self._name: msgspec.json.encode(now).decode()}

    @property
    def finished(self) -> bool:
        """Whether its round is finished."""
        return self._remembered.finished >= self._remembered.round

    def begin_round(self, used_us: int) -> dict[str, str | None]:
        """What to write so that all rows are to be sent once more, by all devices of the file."""
        self.sent = 0
        self._remembered = msgspec.structs.replace(self._remembered, round=self._remembered.round + 1)
        return self.properties(0, "", used_us)

    def finish(self, end: End, used_us: int) -> dict[str, str | None]:
        """What to write when everything up to `end` is durable in the log, for all devices of the file."""
        self._remembered = msgspec.structs.replace(self._remembered, finished=self._remembered.round)
        return self.properties(*end, used_us)


def offsets(remembered: Iterable[Remembered]) -> set[int]:
    """Every offset whose digest is needed to find a file again."""
    return {end[0] for each in remembered for end in each.ends}
