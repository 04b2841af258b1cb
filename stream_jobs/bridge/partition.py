"""What a bridge decides for one partition: append a message, answer it, or refuse it.

It knows two things. The *confirmed* fold: what is durable in the log, folded up to an offset without a hole. And
how far it is *ahead*: per (device, epoch) the seq up to which appends are under way. A message is appended iff it
continues that position; whatever the log then makes of it, only the fold decides.

An epoch that was forgotten (30 days after its close) is appended too, in order from the first seq its device said
hello with: the fold of every reader calls the records expired, so they become dead letters, and the watermark
that is answered for them says only that they are in the log. It is not kept over a restart of the bridge.

**Delivery**: pure; losing it loses nothing, since `fold` is rebuilt from the log and the rest is asked again.
**Bounds**: one entry for each epoch with appends under way (the caller bounds those), EXPIRED_MAX forgotten
epochs and CLOSED_MAX closed ones; the oldest is dropped, at the cost of a record appended twice.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from edge_agent.contract.fold import Outcome, PartitionFold, Verdict
from edge_agent.contract.watermarks import HeldEpoch
from edge_agent.contract.wire import Header, Kind, Reason, encode_skip, message_header

__all__ = ["END", "Held", "Lost", "PartitionBridge", "Refused", "Ticket"]

EXPIRED_MAX = 4096
CLOSED_MAX = 4096
END = -1
"""As an offset to read to: the end of the log, whatever it is now."""

Key = tuple[str, int]
K = TypeVar("K")
V = TypeVar("V")


class Refused(Enum):
    """Why a message is not appended. All but VOID are answered with the watermark."""

    DUPLICATE = "duplicate"
    """It is durable, or under way to be."""
    GAP = "gap"
    """Something before it is missing; the device goes back."""
    VOID = "void"
    """This partition does not own the shard."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One append under way. `turn` tells whether the epoch's position was set back since."""

    header: Header
    turn: int

    @property
    def key(self) -> Key:
        return self.header.device, self.header.epoch


@dataclass(frozen=True, slots=True)
class Lost:
    """A skip record to append in the device's place: seqs that nobody holds any more."""

    ticket: Ticket
    message: bytes


class Held(Enum):
    """What to do about an epoch in a hello."""

    ANSWER = "answer"
    READ = "read"
    """Read the log to its end first, then ask again with `at_end`."""
    WAIT = "wait"
    """Ask again when the appends of this epoch that are under way are settled."""


@dataclass(slots=True)
class _Ahead:
    position: int
    turn: int = 0
    under_way: int = 0


class PartitionBridge:
    """One partition. `progressed` collects the (device, epoch) whose watermark rose; the caller empties it."""

    def __init__(self, fold: PartitionFold) -> None:
        """`fold` must hold everything below its `next_offset`."""
        self.fold = fold
        self.progressed: set[Key] = set()
        self._ahead: dict[Key, _Ahead] = {}
        self._expired: OrderedDict[Key, int] = OrderedDict()
        self._closed: OrderedDict[Key, None] = OrderedDict()
        self._closing: set[Key] = set()
        self._read_until = fold.next_offset

    def watermark(self, device: str, epoch: int) -> int:
        """What the device may trim up to."""
        if self.fold.forgotten(device, epoch):
            return self._expired.get((device, epoch), 0)
        return self.fold.watermark(device, epoch)

    # From the device

    def receive(self, header: Header) -> Ticket | Refused:
        """Decide about a message; a ticket means: append it now, in this order, and settle or fail the ticket."""
        if not self.fold.owns(header.device):
            return Refused.VOID
        key = (header.device, header.epoch)
        ahead = self._ahead.get(key)
        position = self.watermark(*key) if ahead is None else ahead.position
        if ahead is not None and header.seq_first > position + 1:
            position = max(position, self.watermark(*key))  # another bridge may have gone on for the device
        if header.kind is Kind.CLOSE:
            if header.seq_last > position:
                return Refused.GAP
            if key in self._closed or key in self._closing:
                return Refused.DUPLICATE
            self._closing.add(key)
        elif header.seq_last <= position:
            return Refused.DUPLICATE
        elif header.seq_first > position + 1:
            return Refused.GAP
        else:
            position = header.seq_last
        return self._take(header, key, position)

    def _take(self, header: Header, key: Key, position: int) -> Ticket:
        ahead = self._ahead.setdefault(key, _Ahead(position))
        ahead.position = position
        ahead.under_way += 1
        return Ticket(header, ahead.turn)

    def hello(self, device: str, held: HeldEpoch, *, at_end: bool) -> Held | Lost:
        """Decide about one epoch of a hello; `at_end`: the log was read to its end after the hello came."""
        key = (device, held.epoch)
        if not self.fold.owns(device):
            return Held.ANSWER
        if self.fold.forgotten(*key):
            if key not in self._ahead:
                _keep(self._expired, key, held.first_seq - 1, EXPIRED_MAX)
            return Held.ANSWER
        if held.first_seq <= self.watermark(*key) + 1:
            return Held.ANSWER
        if not at_end:
            return Held.READ
        if key in self._ahead:
            return Held.WAIT
        if not held.maker:
            return Held.ANSWER
        message = encode_skip(
            device=device, epoch=held.epoch, seq_first=self.watermark(*key) + 1, seq_last=held.first_seq - 1,
            reason=Reason.LOST,
        )  # fmt: skip
        return Lost(self._take(message_header(message), key, held.first_seq - 1), message)

    # From the log

    def read_to(self, offset: int, append_time_ms: int) -> int | None:
        """The offset up to which the log must be read before an append answered with `offset` can be settled, or
        END, or None: it can be settled now. -1 for either argument: the answer did not say."""
        if offset < 0:
            return END
        following = self.fold.next_offset
        if offset == following:
            return offset + 1 if append_time_ms < 0 else None
        if offset > following:
            return offset + 1
        return None if offset < self._read_until else END

    def fold_read(self, offset: int, append_time_ms: int, header: Header | None, body: bytes = b"") -> Verdict:
        """Fold a record read from the log; records come in order, from `fold.next_offset`, without a hole."""
        verdict = self._fold(offset, append_time_ms, header, body)
        self._read_until = self.fold.next_offset
        return verdict

    def settle(self, ticket: Ticket, offset: int, append_time_ms: int) -> None:
        """The append is durable at `offset`, and what `read_to` asked for was read."""
        if offset == self.fold.next_offset:
            self._fold(offset, append_time_ms, ticket.header)
        counted = ticket.header.kind is Kind.CLOSE or self.watermark(*ticket.key) >= ticket.header.seq_last
        self._release(ticket, counted)

    def settle_malformed(self, offset: int, append_time_ms: int) -> None:
        """A record of ours without a header is durable at `offset`. Nobody waits for it, so it is folded when it comes
        next, and otherwise read with what is before it."""
        if offset == self.fold.next_offset:
            self._fold(offset, append_time_ms, None)

    def fail(self, ticket: Ticket) -> None:
        """The append failed, or nobody knows: what was sent after it does not count until the device goes back."""
        self._release(ticket, counted=False)

    def _fold(self, offset: int, append_time_ms: int, header: Header | None, body: bytes = b"") -> Verdict:
        verdict = self.fold.apply(offset, append_time_ms, header, body)
        if header is None:
            return verdict
        key = (header.device, header.epoch)
        if verdict.outcome is Outcome.ACCEPTED:
            self.progressed.add(key)
        elif verdict.outcome is Outcome.CLOSED:
            _keep(self._closed, key, None, CLOSED_MAX)
        elif verdict.outcome is Outcome.EXPIRED and header.kind is not Kind.CLOSE:
            position = self._expired.get(key, header.seq_first - 1)
            if header.seq_first <= position + 1:
                _keep(self._expired, key, max(position, header.seq_last), EXPIRED_MAX)
                self.progressed.add(key)
        return verdict

    def _release(self, ticket: Ticket, counted: bool) -> None:
        key = ticket.key
        if ticket.header.kind is Kind.CLOSE:
            self._closing.discard(key)
        ahead = self._ahead.get(key)
        if ahead is None:
            return  # taken before the state was loaded again
        ahead.under_way -= 1
        if ahead.under_way <= 0:
            del self._ahead[key]
        elif not counted and ticket.turn == ahead.turn:
            ahead.position, ahead.turn = self.watermark(*key), ahead.turn + 1


def _keep(store: OrderedDict[K, V], key: K, value: V, size_max: int) -> None:
    store[key] = value
    store.move_to_end(key)
    if len(store) > size_max:
        store.popitem(last=False)
