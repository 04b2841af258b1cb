"""The device's side of the watermark protocol, as pure decisions: what to send, when to ask, what to trim.

The shell around it (`sender.py`) tells what happened - connected, a watermark came, a batch was appended - with the
time, and does what this module says. One connection has one nonce.

    connected -> hello (nonce, epochs held) -> first watermark of an epoch: send from watermark + 1
    an epoch without progress for stall_s (doubling to STALL_MAX_S, with jitter) -> hello again, then likewise

An epoch begun in this opening of which nothing was ever sent needs no answer of its own: its watermark is 0.

**Delivery**: an epoch's watermark never goes back, and nothing above it is ever trimmed. Watermarks of another
connection (nonce) are ignored; a lower one only answers a hello.
**Bounds**: unacknowledged bytes up to `unacked_bytes_max` (one message is always allowed) and messages up to
UNACKED_MESSAGES_MAX; a hello names HELLO_EPOCHS_MAX epochs, oldest first, and the next ones when those are drained.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.contract import limits
from edge_agent.contract.watermarks import HeldEpoch, Hello, Watermarks, make_hello

__all__ = ["Read", "Uplink", "UplinkSettings"]

STALL_MAX_S = 30.0
UNACKED_MESSAGES_MAX = 4096


@dataclass(frozen=True, slots=True)
class UplinkSettings:
    """What the agent's settings say of its uplink."""

    unacked_bytes_max: int = limits.UNACKED_BYTES_MAX_DEFAULT
    stall_s: float = 2.0


@dataclass(frozen=True, slots=True)
class Read:
    """Send from `epoch`, `seq` on, at most `bytes_max` and `count_max`; `alone`: one message even if it is larger."""

    epoch: int
    seq: int
    bytes_max: int
    count_max: int
    alone: bool


@dataclass(slots=True)
class _Epoch:
    epoch: int
    priority: int
    watermark: int
    last_seq: int
    own: bool
    position: int = 1
    answered: bool = False
    unsent: bool = False
    stalls: int = 0
    stall_at_s: float | None = None
    in_flight: deque[tuple[int, int]] = field(default_factory=deque)

    @property
    def waiting(self) -> bool:
        """Whether the bridge owes an answer for this epoch."""
        return bool(self.in_flight) or (self.watermark < self.last_seq and not self.answered and not self.unsent)

    @property
    def order(self) -> tuple[int, int]:
        return self.priority, self.epoch


class Uplink:
    """The state of one device's uplink over all its connections."""

    def __init__(self, settings: UplinkSettings, generator: random.Random, new_nonce: Callable[[], bytes]) -> None:
        self._settings = settings
        self._random = generator
        self._new_nonce = new_nonce
        self._epochs: dict[int, _Epoch] = {}
        self._ordered: list[_Epoch] = []
        self._nonce: bytes | None = None
        self._session_answered = False
        self._session_stall_at_s = 0.0
        self._session_stalls = 0
        self.unacked_bytes = 0
        self._unacked_messages = 0

    # -- what happened in the spool ----------------------------------------------------------------------------

    def hold(self, epoch: int, priority: int, watermark: int, last_seq: int) -> None:
        """An epoch of an earlier opening, at start."""
        self._add(_Epoch(epoch, priority, watermark, last_seq, own=False, position=watermark + 1))

    def appended(self, epoch: int, priority: int, seq: int) -> None:
        """The spool accepted `seq`, the next one of an epoch of this opening."""
        found = self._epochs.get(epoch)
        if found is None:
            self._add(_Epoch(epoch, priority, 0, seq, own=True, unsent=True))
        else:
            found.last_seq = seq

    def _add(self, epoch: _Epoch) -> None:
        self._epochs[epoch.epoch] = epoch
        self._ordered = sorted(self._epochs.values(), key=lambda each: each.order)

    def forget(self, epoch: int) -> None:
        """The spool has forgotten a drained epoch."""
        self._clear_in_flight(self._epochs.pop(epoch))
        self._ordered = sorted(self._epochs.values(), key=lambda each: each.order)

    # -- what happened on the connection -----------------------------------------------------------------------

    def connected(self, now_s: float) -> Hello:
        """A new connection listens for watermarks: what to say first."""
        self.disconnected()
        self._nonce = self._new_nonce()
        self._session_stalls = 0
        self._session_stall_at_s = now_s + self._pause_s(0)
        return self._hello()

    def disconnected(self) -> None:
        """The connection is gone; what is under way may or may not arrive."""
        self._nonce = None
        self._session_answered = False
        for epoch in self._ordered:
            self._ask(epoch)
            self._clear_in_flight(epoch)
            epoch.stall_at_s, epoch.stalls = None, 0

    @staticmethod
    def _ask(epoch: _Epoch) -> None:
        """From now on the position of `epoch` needs an answer, unless nothing of it was ever sent."""
        epoch.answered = False
        epoch.unsent = epoch.unsent and epoch.position == 1

    def _hello(self) -> Hello:
        assert self._nonce is not None, "a hello is said on a connection"
        # This opening's own first: earlier epochs that nobody answers for must not shut them out.
        held = sorted(
            (epoch for epoch in self._ordered if epoch.own or epoch.watermark < epoch.last_seq),
            key=lambda epoch: (not epoch.own, epoch.epoch),
        )[: limits.HELLO_EPOCHS_MAX]
        named = sorted((HeldEpoch(epoch.epoch, epoch.watermark + 1, True) for epoch in held), key=lambda h: h.epoch)
        return make_hello(self._nonce, tuple(named))

    def received(self, answer: Watermarks, now_s: float) -> list[tuple[int, int]]:
        """What a watermark message moved: (epoch, watermark), each higher than ever before."""
        if self._nonce is None or answer.nonce != self._nonce:
            return []
        self._session_answered = True
        moved = []
        for number, told in answer.watermarks:
            epoch = self._epochs.get(number)
            if epoch is not None and self._told(epoch, min(told, epoch.last_seq), now_s):
                moved.append((number, epoch.watermark))
        return moved

    def _told(self, epoch: _Epoch, watermark: int, now_s: float) -> bool:
        """The bridge's watermark of one epoch; whether it is higher than the one known."""
        moved = watermark > epoch.watermark
        epoch.watermark = max(watermark, epoch.watermark)
        first_answer = not epoch.answered
        if first_answer:
            epoch.answered = True
            epoch.position = epoch.watermark + 1
            self._clear_in_flight(epoch)
        epoch.position = max(epoch.position, epoch.watermark + 1)
        while epoch.in_flight and epoch.in_flight[0][0] <= epoch.watermark:
            self._landed(epoch.in_flight.popleft())
        if moved:
            epoch.stalls = 0
        # A watermark that does not move is no progress: the timer goes on, or what was lost would never be sent again.
        if moved or first_answer or not epoch.waiting:
            self._arm(epoch, now_s)
        return moved

    def _landed(self, message: tuple[int, int]) -> None:
        self.unacked_bytes -= message[1]
        self._unacked_messages -= 1

    def _clear_in_flight(self, epoch: _Epoch) -> None:
        while epoch.in_flight:
            self._landed(epoch.in_flight.popleft())

    # -- stalls ------------------------------------------------------------------------------------------------

    def _pause_s(self, stalls: int) -> float:
        pause_s: float = min(STALL_MAX_S, self._settings.stall_s * 2 ** min(stalls, 16))
        return pause_s * self._random.uniform(0.8, 1.2)

    def _arm(self, epoch: _Epoch, now_s: float) -> None:
        epoch.stall_at_s = now_s + self._pause_s(epoch.stalls) if epoch.waiting else None

    def stall_at_s(self) -> float | None:
        """When to call `stalled` at the latest, or None."""
        if self._nonce is None:
            return None
        if not self._session_answered:
            return self._session_stall_at_s
        return min((epoch.stall_at_s for epoch in self._ordered if epoch.stall_at_s is not None), default=None)

    def stalled(self, now_s: float) -> Hello | None:
        """A hello, when the bridge owes an answer for too long. Call at `stall_at_s`, and about once a second."""
        if self._nonce is None:
            return None
        if not self._session_answered:
            if now_s < self._session_stall_at_s:
                return None
            self._session_stalls += 1
            self._session_stall_at_s = now_s + self._pause_s(self._session_stalls)
            return self._hello()
        due = False
        for epoch in self._ordered:
            if epoch.stall_at_s is None:
                self._arm(epoch, now_s)
            elif now_s >= epoch.stall_at_s:
                due = True
                epoch.stalls += 1
                self._ask(epoch)
                self._arm(epoch, now_s)
        return self._hello() if due else None

    # -- sending -----------------------------------------------------------------------------------------------

    @property
    def session_answered(self) -> bool:
        """Whether a bridge has answered on this connection."""
        return self._session_answered

    @property
    def positions(self) -> dict[int, int]:
        """Per epoch with messages under way, the last seq sent."""
        return {epoch.epoch: epoch.position - 1 for epoch in self._ordered if epoch.in_flight}

    def next_read(self) -> Read | None:
        """What to send next: the most important priority, in it the oldest epoch, in it the next seq."""
        if not self._session_answered:
            return None
        bytes_left = self._settings.unacked_bytes_max - self.unacked_bytes
        count_left = UNACKED_MESSAGES_MAX - self._unacked_messages
        alone = self._unacked_messages == 0
        if not alone and (bytes_left <= 0 or count_left <= 0):
            return None
        for epoch in self._ordered:
            if epoch.position <= epoch.last_seq and (epoch.answered or epoch.unsent):
                return Read(epoch.epoch, epoch.position, max(0, bytes_left), count_left, alone)
        return None

    def sent(self, epoch: int, seq_last: int, size: int, now_s: float) -> None:
        """A message of `size` bytes up to `seq_last` is on its way."""
        found = self._epochs[epoch]
        found.position = seq_last + 1
        found.in_flight.append((seq_last, size))
        self.unacked_bytes += size
        self._unacked_messages += 1
        if found.stall_at_s is None:
            self._arm(found, now_s)

    def closable(self) -> list[tuple[int, int]]:
        """(epoch, last seq) of earlier openings that are drained, once a bridge is there to hear of it."""
        if not self._session_answered:
            return []
        return [
            (epoch.epoch, epoch.last_seq)
            for epoch in self._ordered
            if not epoch.own and epoch.watermark >= epoch.last_seq
        ]
