"""What the spools of a run remember of its file, and each device's position in it.

**Delivery**: read when nothing can write it: the spool of `--device` is locked from the beginning on, and another
device's is compared when it is locked (`Memory.unchanged`). **Bounds**: `position.py`'s, for each spool.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from edge_agent.spool_view import read_properties, spool_folders

from .position import PREFIX, Match, Position, Remembered, decoded, longest, offsets
from .source import Source

__all__ = ["Memory"]


class Memory:
    """The file's traces; `round` is the round that the spool of `--device` says it is."""

    def __init__(self, directory: Path, prefix: str, device: str, properties: Mapping[str, str]) -> None:
        """`properties`: those of the spool of `--device`."""
        self._directory = directory
        self._prefix = prefix
        self._home = device
        self._known = {device: self._decoded(device, properties)}
        self._digests: dict[int, str] = {}
        self.round = 1

    def _decoded(self, device: str, properties: Mapping[str, str]) -> dict[str, Remembered]:
        found = {name: value for name, value in properties.items() if name.startswith(PREFIX)}
        return decoded(found, self._directory / device)

    def read_others(self) -> None:
        """Read what the spools of all other devices remember."""
        for folder in spool_folders(self._directory):
            if folder not in (self._directory, self._directory / self._home):
                self._known[folder.name] = self._decoded(folder.name, read_properties(folder, PREFIX))

    def find(self, source: Source) -> Match | None:
        """Find the file; the match that reaches farthest."""
        wanted = offsets(each for known in self._known.values() for each in self._of_options(known).values())
        self._digests = source.digests(wanted)
        at_home = self._match(self._home)
        if at_home is not None:
            self.round = at_home.remembered.round
        matches = [match for match in map(self._match, self._known) if match is not None]
        return max(matches, key=lambda match: match.end[0], default=None)

    def _of_options(self, known: Mapping[str, Remembered]) -> dict[str, Remembered]:
        return {name: each for name, each in known.items() if name.startswith(self._prefix)}

    def _match(self, device: str) -> Match | None:
        return longest(self._of_options(self._known.get(device, {})), self._digests)

    def unchanged(self, device: str, properties: Mapping[str, str]) -> bool:
        """Whether a device's spool, now that it is locked, remembers what it did when it was read."""
        return self._decoded(device, properties) == self._known.get(device, {})

    def position(self, device: str, columns: tuple[str, ...]) -> Position:
        """A device's position in the file."""
        return Position(
            self._prefix, self._known.get(device, {}), self._match(device), columns=columns, round=self.round,
            new_id=lambda: secrets.token_hex(8),
        )  # fmt: skip
