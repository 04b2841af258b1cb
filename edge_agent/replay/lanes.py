"""Lanes: for each device a spool, a sender and a position; and the waiting for what they have to do.

A lane has one unit under way: the next one is handed over when the last was accepted, so that units are accepted in the
order of the file even while a full spool makes them wait.

**Delivery**: through `sender.py`, as an agent's batches. `drained` is true when all that was accepted is durable in the
log. **Bounds**: one unit a lane is under way and one is being gathered; LANES_MAX lanes at once (`run.py`).
"""

from __future__ import annotations

import dataclasses
import random
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edge_agent.agent import Connector
from edge_agent.agent_settings import AgentSettings
from edge_agent.contract import watermarks
from edge_agent.contract.balancing import parse_endpoints
from edge_agent.contract.clock import Clock
from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import EdgewaterError, RejectError, SettingsError, StopError
from edge_agent.mqtt import parse_url
from edge_agent.reconnect import Reconnect
from edge_agent.sender import Sender, Submitted
from edge_agent.spool import NewBatch, Spool, SpoolSettings
from edge_agent.uplink import Uplink, UplinkSettings

from .position import Position
from .unit import Gathering

__all__ = ["Lane", "Lanes"]

_POLL_S = 0.02
_QUIET_S = 1.5
"""A connection takes a moment; only then its absence is worth a word."""


def _no_message(_topic: str, _payload: bytes) -> None:
    """A replay runs no functions, so it subscribes to nothing of theirs."""


class Lane:
    """One device's way to the log."""

    def __init__(self, device: str, spool: Spool, sender: Sender) -> None:
        self.device = device
        self.spool = spool
        self.sender = sender
        self.position: Position | None = None
        self.gathering: Gathering | None = None
        self.sent = 0
        """Rows up to here are in the spool already, from an earlier run."""
        self.seen = False
        """Whether the file has a row of this device."""
        self.under_way = False
        self.refused = ""
        self._started = False

    def start(self) -> None:
        """Connect and send; the spool belongs to the sender's thread from now on."""
        if not self._started:
            self._started = True
            self.sender.start()

    def submit(self, batches: Sequence[NewBatch], properties: Mapping[str, str | None]) -> None:
        """Hand over a unit, when none is under way."""
        assert not self.under_way, "one unit a lane"
        self.start()
        self.under_way = True
        crash_point("replay.batch.before")
        unit = dataclasses.replace(batches[0], followers=tuple(batches[1:]), properties=properties)
        self.sender.submit(Submitted(self, unit))

    @property
    def drained(self) -> bool:
        """Whether everything handed over is durable in the log."""
        return self.sender.idle

    def close(self) -> None:
        """End the sender, close the spool."""
        if self._started:
            self.sender.stop()
        else:
            self.spool.close()


class Lanes:
    """The lanes of one run."""

    def __init__(self, directory: Path, settings: AgentSettings, timeout_s: float, clock: Clock) -> None:
        """SettingsError for URLs that are none."""
        self._directory = directory
        self._settings = settings
        self._timeout_s = timeout_s
        self._clock = clock
        self._changed = threading.Event()
        self._open: dict[str, Lane] = {}
        self._batches_done = 0
        self._progress = 0
        self._progress_at_s = clock.monotonic_s()
        try:
            self._endpoints = parse_endpoints(settings.mqtt_urls)
        except RejectError as error:
            raise SettingsError(f"--mqtt: {error}") from None
        for endpoint in self._endpoints:
            parse_url(endpoint.url)

    # -- opening and closing -----------------------------------------------------------------------------------

    def find(self, device: str) -> Lane | None:
        """The open lane of a device."""
        return self._open.get(device)

    def all(self) -> list[Lane]:
        """Every open lane."""
        return list(self._open.values())

    def open(self, device: str) -> Lane:
        """Open a device's spool, in a folder of its own. StopError: in use, another device's, damaged."""
        spool = self._spool(device)
        lane = self._open[device] = Lane(device, spool, self.sender_of(spool))
        return lane

    def write(self, device: str, properties: Mapping[str, str | None]) -> None:
        """Write properties into the spool of a device that has no lane any more."""
        spool = self._spool(device)
        try:
            spool.write_properties(properties)
        finally:
            spool.close()

    def _spool(self, device: str) -> Spool:
        settings = self._settings
        return Spool(
            self._directory / device, device,
            # Nothing may be dropped: a replay can wait.
            SpoolSettings(settings.spool_bytes_max, "reject", settings.compress, settings.ledger),
            self._clock, random_32=lambda: secrets.randbits(32),
        )  # fmt: skip

    def sender_of(self, spool: Spool) -> Sender:
        """The sender of a spool that was opened, not started."""
        settings, generator = self._settings, random.SystemRandom()
        uplink = Uplink(
            UplinkSettings(settings.unacked_bytes_max, settings.stall_s), generator,
            lambda: secrets.token_bytes(watermarks.NONCE_BYTES),
        )  # fmt: skip
        return Sender(
            spool, uplink, Reconnect(self._endpoints, settings.balancing, generator),
            connect=Connector(settings, spool.device, _no_message), clock=self._clock, answer=self._answered,
        )  # fmt: skip

    def close(self, lane: Lane) -> None:
        """Close one lane."""
        del self._open[lane.device]
        self._batches_done += lane.spool.counts.trimmed_batches
        lane.close()

    def _answered(self, token: object, refused: str) -> None:
        """In the sender's thread."""
        crash_point("replay.batch.accepted")
        assert isinstance(token, Lane), "what submit handed over"
        token.refused = refused
        token.under_way = False
        self._changed.set()

    # -- waiting -----------------------------------------------------------------------------------------------

    @property
    def batches_waiting(self) -> int:
        """Batches in the spools that are not durable in the log."""
        return sum(lane.spool.batches for lane in self._open.values())

    def wait_until(self, condition: Callable[[], bool], tick: Callable[[], None]) -> None:
        """Wait for the senders; `tick` is called now and then. StopError when one of them cannot go on, or when there
        was no progress for the time allowed."""
        while True:
            self.check()
            tick()
            if condition():
                return
            self._changed.wait(_POLL_S)
            self._changed.clear()

    def check(self) -> None:
        """StopError when a sender cannot go on, or when there was no progress for the time allowed."""
        now_s = self._clock.monotonic_s()
        for lane in self._open.values():
            if lane.sender.failure is not None:
                raise _as_stop(lane.sender.failure)
            if lane.refused:
                raise StopError(f"the spool of {lane.device} refused a batch for good: {lane.refused}")
        progress = self._batches_done + sum(lane.spool.counts.trimmed_batches for lane in self._open.values())
        waiting = [lane for lane in self._open.values() if not lane.drained]
        if progress != self._progress or not waiting:
            self._progress, self._progress_at_s = progress, now_s
        elif now_s - self._progress_at_s >= self._timeout_s:
            raise StopError(self._stalled(waiting[0]))

    def trouble(self) -> str:
        """What keeps the first lane that waits from going on, in a few words; empty when nothing is known."""
        if self._clock.monotonic_s() - self._progress_at_s < _QUIET_S:
            return ""
        for lane in self._open.values():
            status = lane.sender.status
            if not lane.drained and not status.session_answered:
                return "no bridge answers" if status.connected_url else status.last_error or "no answer yet"
        return ""

    def _stalled(self, lane: Lane) -> str:
        status = lane.sender.status
        url = status.connected_url or ", ".join(endpoint.url.rpartition("@")[2] for endpoint in self._endpoints)
        if status.session_answered and lane.under_way and status.last_error:
            reason = status.last_error
        elif status.session_answered:
            reason = f"the bridge behind {url} answers, but nothing became durable in the log; look at its output"
        elif status.connected_url:
            reason = f"the broker {url} takes messages, but no bridge answers there; start it: edgewater bridge run"
        elif "refuses the connection" in status.last_error:
            reason = status.last_error
        else:
            known = status.last_error or f"{url}: no answer"
            reason = f"the broker cannot be reached ({known}); check --mqtt, or start one: edgewater up"
        return (
            f"no progress for {self._timeout_s:g} s: {reason}. Nothing is lost: {self.batches_waiting} batches wait in "
            f"{self._directory}, and the same command goes on from there"
        )


def _as_stop(failure: BaseException) -> StopError:
    return StopError(str(failure) if isinstance(failure, EdgewaterError) else f"the sender failed: {failure!r}")
