"""A replay without a network: batches go into real spools, and a test says when the process dies.

**Delivery**: `Died` is raised in the place of a kill, before or after a commit; what the spools then hold is what they
would hold after kill -9 (tests/integration kills real processes). **Bounds**: small units, so that there are many.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from edge_agent.agent_settings import AgentSettings
from edge_agent.contract import wire
from edge_agent.contract.clock import ManualClock
from edge_agent.replay.lanes import Lanes
from edge_agent.replay.run import Replay, ReplayOptions, Result
from edge_agent.sender import Sender, Submitted
from edge_agent.spool import Place, Spool, read_ledger
from edge_agent.spool_view import spool_folders

__all__ = ["Died", "Reading", "Site", "readings_of"]

Reading = tuple[str, int, str, float]
"""Device, microseconds since 1970, name, value."""


class Died(BaseException):
    """In the place of kill -9."""


class _DirectSender:
    """Accepts at once, and calls everything accepted durable."""

    def __init__(self, spool: Spool, lanes: DirectLanes) -> None:
        self.spool = spool
        self.failure = None
        self.idle = True
        self.status = SimpleNamespace(session_answered=True, connected_url="mqtt://here", last_error="")
        self._lanes = lanes

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Close the spool, as the sender's thread does."""
        self.spool.close()

    def submit(self, submitted: Submitted) -> None:
        """Append, and answer."""
        self._lanes.units += 1
        if self._lanes.units == self._lanes.die_at and not self._lanes.die_after:
            raise Died
        (answer,) = self.spool.append([submitted.batch])
        assert isinstance(answer, Place), answer
        if self._lanes.units == self._lanes.die_at:
            raise Died
        for epoch in self.spool.epochs():
            self.spool.trim(epoch.epoch, epoch.last_seq)
        self._lanes._answered(submitted.token, "")


class DirectLanes(Lanes):
    """Lanes whose senders need no network; they die at the `die_at`th unit, before its commit or after it."""

    units = 0
    die_at = 0
    die_after = False

    def sender_of(self, spool: Spool) -> Sender:
        """A sender that accepts at once."""
        return cast("Sender", _DirectSender(spool, self))


class Site:
    """A folder of spools and a file to replay into it."""

    def __init__(self, directory: Path, name: str = "data.csv", **options: Any) -> None:
        self.file = directory / name
        self.state = directory / "state"
        self.options: dict[str, Any] = {"device": "home", "time": "t", **options}
        self.clock = ManualClock()

    def run(self, die_at: int = 0, die_after: bool = False, **options: Any) -> Result:
        """One run of the command, as a process of its own."""
        settings = AgentSettings(ledger=True)
        lanes = DirectLanes(self.state, settings, 30.0, self.clock)
        lanes.die_at, lanes.die_after = die_at, die_after
        chosen = ReplayOptions(file=str(self.file), directory=self.state, **{**self.options, **options})
        # A process that starts later makes its epochs later.
        self.clock.advance(1.0)
        return Replay(chosen, settings, self.clock, lanes).run()

    def ledger(self) -> list[bytes]:
        """Every batch that any spool accepted, device by device, in order."""
        return [message for folder in spool_folders(self.state) for message in read_ledger(folder)]

    def readings(self) -> list[Reading]:
        """Every reading accepted, device by device, in order."""
        return [found for message in self.ledger() for found in readings_of(message)]

    def letters(self) -> list[tuple[str, str, str, str]]:
        """Every dead letter accepted: device, payload, reason, place."""
        found = []
        for message in self.ledger():
            header, columns = columns_of(message)
            if header.stream == "dead_letters":
                texts = [_texts(columns[name]) for name in ("payload", "reason", "place")]
                found += [(header.device, *each) for each in zip(*texts, strict=True)]
        return found


def columns_of(message: bytes) -> tuple[wire.Header, dict[str, Any]]:
    """Header and columns of a batch."""
    header, body = wire.decode_header(message)
    return header, {column.name: column for column in wire.decode_columns(header, body)}


def _texts(column: Any) -> list[str]:
    if column.type == "dictionary":
        codes = array({1: "B", 2: "h", 4: "i"}[column.width], column.buffers[0])
        return [column.names[code] for code in codes]
    ends = memoryview(column.buffers[0]).cast("i").tolist()
    return [column.buffers[1][start:end].decode() for start, end in itertools.pairwise(ends)]


def readings_of(message: bytes) -> Iterator[Reading]:
    """The readings of a batch; none of another stream."""
    header, columns = columns_of(message)
    if header.stream == "readings":
        times = memoryview(columns["ts"].buffers[0]).cast("q")
        values = memoryview(columns["value"].buffers[0]).cast("d")
        for ts_us, name, value in zip(times, _texts(columns["name"]), values, strict=True):
            yield header.device, ts_us, name, value
