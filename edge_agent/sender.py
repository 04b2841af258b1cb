"""The thread between functions and broker: it owns the spool, the uplink's decisions and the connection.

Everything comes to it through one bounded queue: batches from the functions' side, events from the network thread.
In each turn it

    1. takes what has come,
    2. appends all new batches in one commit, and answers for them,
    3. lets the uplink judge the events,
    4. trims, connects, says hello where it is time,
    5. sends up to TURN_BYTES,
    6. says how it is, on connect, every REPORT_INTERVAL_S and when its problem changes, and begins anew.

**Delivery**: a batch is answered for after its commit; the spool is trimmed on watermarks only. A close record is sent
when the watermark that drains its epoch is on disk, and the epoch is forgotten after it. Messages for functions do not
come through here.
**Bounds**: INBOX_MAX things wait in the queue, then those who bring them wait. Batches that the full spool refused
are kept for the next try (the functions' side has two a function under way, no more) and count as not accepted.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from edge_agent.contract import limits, reports, topics, watermarks, wire
from edge_agent.contract.clock import Clock
from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import DecodeError, EdgewaterError, RejectError, RetryError

from .mqtt import Connected, Connection, Disconnected, Event, Received, RoomAgain, SubscriptionAnswered
from .reconnect import Reconnect
from .spool import Held, NewBatch, Spool
from .uplink import Read, Uplink

__all__ = ["Answer", "Connect", "Sender", "SenderStatus", "Submitted", "Subscribed"]

INBOX_MAX = 1024
TURN_BYTES = 512 * limits.KIB
_TURN_THINGS_MAX = 256
_READ_MESSAGES_MAX = 64
_RETRY_S = 0.25
_TRIM_INTERVAL_S = 0.25
_IDLE_S = 1.0
REPORT_INTERVAL_S = 10.0
_REPORT_PAUSE_S = 1.0
"""Between two reports, however often the problem changes."""

log = logging.getLogger("edgewater.agent")


@dataclass(frozen=True, slots=True)
class Submitted:
    """A batch on its way into the spool; `token` comes back with the answer."""

    token: object
    batch: NewBatch


@dataclass(frozen=True, slots=True)
class _Wake:
    """Nothing but a reason to look around."""


Answer: TypeAlias = Callable[[object, str], None]
"""(token, why it was refused for good or nothing); called in the sender's thread."""
Subscribed: TypeAlias = Callable[[str, str], None]
"""(topic filter, why the broker refused it or nothing); called in the sender's thread."""


def _nobody_asked(_topic_filter: str, _refused: str) -> None:
    """Where no function wants topics."""


class Connect(Protocol):
    """Makes a connection that is not started yet."""

    def __call__(self, url: str, deliver: Callable[[Event], None]) -> Connection: ...


@dataclass(slots=True)
class SenderStatus:
    """Numbers since the process began, for the status file; read by another thread."""

    connected_url: str = ""
    session_answered: bool = False
    batches_sent: int = 0
    rows_sent: int = 0
    bytes_sent: int = 0
    messages_resent: int = 0
    hellos: int = 0
    connections: int = 0
    last_error: str = ""


class Sender:
    """See the module. `run` is the thread; `turn` is one turn of it, for tests."""

    def __init__(
        self,
        spool: Spool,
        uplink: Uplink,
        reconnect: Reconnect,
        *,
        connect: Connect,
        clock: Clock,
        answer: Answer,
        subscribed: Subscribed = _nobody_asked,
    ) -> None:
        self.spool = spool
        self.uplink = uplink
        self.status = SenderStatus()
        self.failure: BaseException | None = None
        self._reconnect = reconnect
        self._connect = connect
        self._clock = clock
        self._answer = answer
        self._subscribed = subscribed
        self._filters: tuple[str, ...] = ()
        self._problems: dict[str, str] = {}
        """What troubles it now, by what it was about to do; the latest one last."""
        self.functions_problem = ""
        """What troubles the functions, for the report; set by the main thread."""
        self._reported = ""
        self._report_at_s = float("inf")
        self._inbox: queue.Queue[Submitted | Event | _Wake] = queue.Queue(INBOX_MAX)
        self._waiting: list[Submitted] = []
        self._retry_at_s = 0.0
        self._connection: Connection | None = None
        self._usable = False
        self._watermarks: dict[int, int] = {}
        self._trim_at_s = 0.0
        self._sent_up_to: dict[int, int] = {}
        self._more_to_send = False
        self._submitted = 0
        self._settled = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.run, name="sender")
        self._batch_topic = topics.batch_topic(spool.device)
        self._hello_topic = topics.hello_topic(spool.device)
        self._report_topic = topics.report_topic(spool.device)
        for epoch in spool.epochs():
            uplink.hold(epoch.epoch, epoch.priority, epoch.watermark, epoch.last_seq)

    # -- from other threads ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, submitted: Submitted) -> None:
        """Hand over a batch; waits while the queue is full."""
        self._submitted += 1
        self._inbox.put(submitted)

    def deliver(self, event: Event) -> None:
        """Hand over an event; a RoomAgain is only a hint, and left out where the queue is full."""
        if isinstance(event, RoomAgain):
            try:
                self._inbox.put_nowait(event)
            except queue.Full:
                return
        else:
            self._inbox.put(event)

    def want(self, topic_filters: tuple[str, ...]) -> None:
        """Listen at these topics from now on, on every connection."""
        self._filters = topic_filters
        self.wake()

    def stop(self) -> None:
        """End the thread after its turn, close connection and spool."""
        self._stopping.set()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join()

    def wake(self) -> None:
        """Make the thread look around."""
        try:
            self._inbox.put_nowait(_Wake())
        except queue.Full:
            return

    @property
    def idle(self) -> bool:
        """Whether all handed over is in the spool, and all in the spool durable. For the thread that submits."""
        return self._submitted == self._settled and self.spool.drained

    # -- the thread --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Turn after turn until `stop`, or until something fails for good (`failure`)."""
        try:
            while not self._stopping.is_set():
                self.turn(self._take())
        except EdgewaterError as error:
            self.failure = error
        except Exception as error:
            log.exception("the sender failed")
            self.failure = error
        finally:
            self._end()

    def _end(self) -> None:
        if self.failure is None:
            # The last word of a process that is done: a replay would seem to hold what is long durable.
            self._report_at_s = self._clock.monotonic_s()
            self._report(self._report_at_s)
        connection, self._connection = self._connection, None
        # The network thread may be waiting to deliver: make room for it, or it never ends.
        while not self._inbox.empty():
            self._inbox.get_nowait()
        if connection is not None:
            connection.close()
        self.spool.close()

    def _take(self) -> list[Submitted | Event | _Wake]:
        """What has come, after waiting for it until something is due."""
        found: list[Submitted | Event | _Wake] = []
        pause_s = self._pause_s()
        try:
            found.append(self._inbox.get(timeout=pause_s) if pause_s > 0 else self._inbox.get_nowait())
            while len(found) < _TURN_THINGS_MAX:
                found.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return found

    def _pause_s(self) -> float:
        if self._more_to_send:
            return 0.0
        now_s = self._clock.monotonic_s()
        due = [now_s + _IDLE_S]
        if self._connection is None:
            due.append(self._reconnect.next_at_s)
        if self._waiting:
            due.append(self._retry_at_s)
        if self._watermarks:
            due.append(self._trim_at_s)
        stall_at_s = self.uplink.stall_at_s()
        if stall_at_s is not None:
            due.append(stall_at_s)
        return max(0.0, min(due) - now_s)

    def turn(self, things: Sequence[Submitted | Event | _Wake]) -> None:
        """One turn with what has come."""
        now_s = self._clock.monotonic_s()
        self._waiting += [thing for thing in things if isinstance(thing, Submitted)]
        if self._waiting and now_s >= self._retry_at_s:
            self._append(now_s)
        for thing in things:
            if not isinstance(thing, (Submitted, _Wake)) and thing.connection is self._connection:
                self._judge(thing, now_s)
        self._trim(now_s)
        if self._connection is None and now_s >= self._reconnect.next_at_s:
            self._begin_connection(now_s)
        self._subscribe()
        self._close_drained()
        self._say(self.uplink.stalled(now_s))
        self._send(now_s)
        self._report(now_s)

    # -- 2. append ---------------------------------------------------------------------------------------------

    def _append(self, now_s: float) -> None:
        batches, self._waiting = self._waiting, []
        self.spool.protect(self.uplink.positions)
        try:
            answers = self.spool.append([submitted.batch for submitted in batches])
        except RetryError as error:
            self._again(batches, error, now_s)
            return
        for submitted, answer in zip(batches, answers, strict=True):
            if isinstance(answer, RetryError):
                self._again([submitted], answer, now_s)
            elif isinstance(answer, EdgewaterError):
                self._settle(submitted, str(answer))
            else:
                self.uplink.appended(answer.epoch, answer.priority, answer.seq)
                self._settle(submitted, "")
        if not self._waiting:
            self._clear("append")

    def _settle(self, submitted: Submitted, refused: str) -> None:
        self._settled += 1
        self._answer(submitted.token, refused)

    def _again(self, batches: list[Submitted], error: RetryError, now_s: float) -> None:
        self._waiting += batches
        self._retry_at_s = now_s + _RETRY_S
        self._note("append", str(error))

    def _note(self, doing: str, error: str) -> None:
        """Keep what is wrong with `doing` until it succeeds."""
        if error != self._problems.pop(doing, None):
            log.warning("%s", error)
        self._problems[doing] = error
        self.status.last_error = error

    def _clear(self, doing: str) -> None:
        """It succeeded: nothing is wrong with it any more."""
        if self._problems and self._problems.pop(doing, None) is not None:
            self.status.last_error = next(reversed(self._problems.values()), "")

    # -- 3. judge ----------------------------------------------------------------------------------------------

    def _judge(self, event: Event, now_s: float) -> None:
        if isinstance(event, Received):
            self._received(event.payload, now_s)
        elif isinstance(event, Connected):
            log.info("connected to %s", event.connection.name)
            self._usable = True
            self.status.connections += 1
            self.status.connected_url = event.connection.name
            self._clear("connect")
            self._say(self.uplink.connected(now_s))
            self._report_at_s = now_s
        elif isinstance(event, SubscriptionAnswered):
            self._subscribed(event.connection.asked_as(event.message_id), event.refused)
        elif isinstance(event, Disconnected):
            self._lost(event.connection, event.reason, now_s)

    def _lost(self, connection: Connection, reason: str, now_s: float) -> None:
        self._connection, self._usable = None, False
        self.status.connected_url, self.status.session_answered = "", False
        self.uplink.disconnected()
        self._reconnect.failed(connection.url, now_s)
        self._note("connect", f"{connection.name}: {reason}; rows wait in the spool")

    def _received(self, payload: bytes, now_s: float) -> None:
        try:
            answer = watermarks.decode_watermarks(payload)
        except DecodeError as error:
            self._note("watermarks", f"watermarks: {error}")
            return
        self._clear("watermarks")
        moved = self.uplink.received(answer, now_s)
        if self.uplink.session_answered and not self.status.session_answered and self._connection is not None:
            self.status.session_answered = True
            self._reconnect.succeeded(self._connection.url)
        for epoch, watermark in moved:
            self._watermarks[epoch] = watermark

    # -- 4. trim, connect, close -------------------------------------------------------------------------------

    def _trim(self, now_s: float) -> None:
        if not self._watermarks or (now_s < self._trim_at_s and not self._waiting):
            return
        self._trim_at_s = now_s + _TRIM_INTERVAL_S
        try:
            for epoch, watermark in list(self._watermarks.items()):
                if self.spool.trim(epoch, watermark):
                    self._trim_at_s = now_s
                else:
                    del self._watermarks[epoch]
            self._clear("trim")
        except RetryError as error:
            self._note("trim", str(error))

    def _begin_connection(self, now_s: float) -> None:
        url = self._reconnect.choose(now_s)
        self._connection = self._connect(url, self.deliver)
        self._connection.start()

    def _subscribe(self) -> None:
        if self._usable and self._connection is not None:
            for topic_filter in self._filters:
                self._connection.subscribe(topic_filter)

    def _close_drained(self) -> None:
        """Say close for each earlier epoch that is drained, once, and forget it. Bridges take it as a hint."""
        if not self._usable:
            return
        for epoch, last_seq in self.uplink.closable():
            if epoch in self._watermarks:
                continue
            if last_seq and not self._publish(
                self._batch_topic, wire.encode_close(device=self.spool.device, epoch=epoch, seq_last=last_seq)
            ):
                return
            crash_point("agent.close")
            try:
                self.spool.forget(epoch)
                self._clear("forget")
            except (RetryError, RejectError) as error:
                self._note("forget", str(error))
                return
            self.uplink.forget(epoch)
            log.info("epoch %d is drained and closed at seq %d", epoch, last_seq)

    # -- 5. send -----------------------------------------------------------------------------------------------

    def _publish(self, topic: str, payload: bytes) -> bool:
        return self._connection is not None and self._usable and self._connection.publish(topic, payload)

    def _say(self, hello: watermarks.Hello | None) -> None:
        if hello is not None:
            self.status.hellos += 1
            self._publish(self._hello_topic, watermarks.encode(hello))

    def _send(self, now_s: float) -> None:
        room = TURN_BYTES
        self._more_to_send = False
        while self._usable and self._connection is not None and self._connection.has_room():
            wanted = self.uplink.next_read()
            if wanted is None:
                return
            if room <= 0:
                self._more_to_send = True
                return
            held = self._read(wanted, room)
            if not held or not self._send_held(held, now_s):
                return
            room -= sum(len(each.message) for each in held)

    def _read(self, wanted: Read, room: int) -> list[Held]:
        """What is wanted and fits the window; the spool gives one message in any case, which may not fit."""
        try:
            held = self.spool.read(
                wanted.epoch, wanted.seq, min(wanted.bytes_max, room), min(wanted.count_max, _READ_MESSAGES_MAX)
            )
            self._clear("read")
        except RetryError as error:
            self._note("read", str(error))
            return []
        if held and len(held[0].message) > wanted.bytes_max and not wanted.alone:
            return []
        return held

    def _send_held(self, held: list[Held], now_s: float) -> bool:
        for each in held:
            crash_point("agent.send.before")
            if not self._publish(self._batch_topic, each.message):
                return False
            crash_point("agent.send.after")
            self.uplink.sent(each.epoch, each.seq_last, len(each.message), now_s)
            self._count(each)
        return True

    def _count(self, held: Held) -> None:
        status = self.status
        status.bytes_sent += len(held.message)
        if held.seq_last <= self._sent_up_to.get(held.epoch, 0):
            status.messages_resent += 1
            return
        self._sent_up_to[held.epoch] = held.seq_last
        status.batches_sent += 1
        status.rows_sent += held.rows

    # -- 6. report ---------------------------------------------------------------------------------------------

    def _report(self, now_s: float) -> None:
        """Tell people how this device is; nothing waits for it, and a report that is lost is followed by the next."""
        problem = self.status.last_error or self.functions_problem
        soon = problem != self._reported and now_s >= self._report_at_s - REPORT_INTERVAL_S + _REPORT_PAUSE_S
        if not self._usable or (now_s < self._report_at_s and not soon):
            return
        self._reported, self._report_at_s = problem, now_s + REPORT_INTERVAL_S
        report = reports.make_report(
            time_us=self._clock.time_us(), backlog_batches=self.spool.batches, backlog_bytes=self.spool.bytes,
            rows_dropped=self.spool.counts.dropped_rows, problem=problem,
        )  # fmt: skip
        self._publish(self._report_topic, reports.encode_report(report))
