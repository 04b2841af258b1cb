"""The mappings as a process: one loop over an MQTT session for each mapping, the log's answers, and the clock.

One thread decides everything and reads MQTT only while there is room. A message is decoded at once; its rows wait
`flush_interval_s` for company, are appended as batches, and when the log has them the message is acknowledged.

**Delivery**: at least once. A message is acknowledged to its broker when the log has its rows (acks=all): `kill -9`
at any moment loses nothing that the broker's session holds, and what was not acknowledged comes again and lands twice.
A broker that keeps no sessions (the embedded one) loses what is published while this process is away; so does any for
messages of QoS 0. SIGTERM ends within `stop_timeout_s`: rows are flushed, acknowledged, epochs closed.
**Bounds**: `in_flight_bytes_max` not durable yet; at the limit MQTT is not read, and after PAUSE_AFTER_S given up until
there is room. MESSAGES_A_TURN messages between two looks at everything else.
"""

from __future__ import annotations

import logging
import secrets
import select
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.contract.clock import Clock, SystemClock
from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import DecodeError
from edge_agent.contract.status import StatusFile
from stream_jobs.bridge.dead_letters import encode_dead_letter
from stream_jobs.bridge.mqtt import Arrival, PersistentConnection

from .acknowledgements import Acknowledgements, Taken
from .collector import Batch, Collector, Numbers
from .decode import Decoder
from .log_side import Entry, Letter, LogSide
from .rules import Mapping
from .settings import MappingSettings

__all__ = ["MappingService"]

_log = logging.getLogger(__name__)

MESSAGES_A_TURN = 128
PAUSE_AFTER_S = 20.0
ALARMS_MAX = 20
BURST_MESSAGES = 10
"""So many messages waiting, and none coming for QUIET_S: the broker's limit of unacknowledged messages is reached."""
QUIET_S = 0.01
_STATUS_INTERVAL_S = 0.5
_TICK_INTERVAL_S = 0.1


@dataclass
class _Counts:
    """Since the start, of one mapping."""

    messages: int = 0
    rows: int = 0
    ignored: int = 0
    """Messages in which nothing is mapped."""
    dead_letters: int = 0
    redelivered: int = 0
    """Messages sent again by the broker and recognised."""
    times_of_receipt: int = 0
    """Rows whose payload has no readable time."""
    last_message_at: float | None = None


class _Session:
    """One mapping with its connection."""

    def __init__(self, mapping: Mapping, settings: MappingSettings, take: Callable[[_Session, Arrival], bool]) -> None:
        self.mapping = mapping
        self.decoder = Decoder(mapping, settings.payload_bytes_max)
        self.acknowledgements = Acknowledgements()
        self.counts = _Counts()
        self.refused = False
        self.connection = PersistentConnection(
            settings.mqtt_url,
            f"edgewater-mapping-{mapping.name}",
            [mapping.topic],
            lambda arrival: take(self, arrival),
            self.acknowledgements.connected,
        )

    def acknowledge(self) -> None:
        """Acknowledge what is done, in order."""
        if not self.connection.connected:
            return
        ready = list(self.acknowledgements.ready())
        if ready:
            self.connection.acknowledge(ready)
            crash_point("mapping.puback.after")


class MappingService:
    """`run` until `stop`."""

    def __init__(
        self,
        settings: MappingSettings,
        mappings: Sequence[Mapping],
        clock: Clock | None = None,
        *,
        log_side: Callable[..., LogSide] = LogSide,
    ) -> None:
        """Nothing is connected yet; SettingsError for settings that cannot be."""
        self._settings = settings
        self._clock = clock or SystemClock()
        self._sessions = [_Session(mapping, settings, self._receive) for mapping in mappings]
        self._collector = Collector(settings.batch_rows_max)
        self._numbers = Numbers(settings.devices_max, lambda: secrets.randbits(32))
        self._log_side = log_side(settings, self._numbers, self._clock, self._done, self._alarm)
        self._status = StatusFile(settings.run_dir or None, settings.name)
        self._alarms: deque[dict[str, Any]] = deque(maxlen=ALARMS_MAX)
        self._alarm_count = 0
        self._durable_batches = self._durable_rows = 0
        self._stopping = False
        self._ready: bool | None = None
        self._tick_at_s = self._status_at_s = 0.0
        self._flush_at_s: float | None = None
        self._arrived_at_s = self._room_at_s = self._clock.monotonic_s()

    def stop(self) -> None:
        """End soon; may be called from a signal handler."""
        self._stopping = True
        self._log_side.wake()

    def run(self) -> None:
        """Work until `stop`, then end cleanly. Raises StopError where a person has to act."""
        try:
            while not self._stopping:
                self._turn()
            self._end()
        finally:
            for session in self._sessions:
                session.connection.close()
            self._write_status("stopped")
            self._log_side.close()

    @property
    def _room(self) -> bool:
        return self._collector.bytes + self._log_side.bytes < self._settings.in_flight_bytes_max

    # One turn of the loop

    def _turn(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s >= self._tick_at_s:
            self._tick_at_s = now_s + _TICK_INTERVAL_S
            self._log_side.tick(now_s)
            self._tick_mqtt(now_s)
        self._wait(now_s)
        self._flush_if_due(self._clock.monotonic_s())
        self._work()
        now_s = self._clock.monotonic_s()
        if now_s >= self._status_at_s or self._is_ready() != self._ready:
            self._status_at_s, self._ready = now_s + _STATUS_INTERVAL_S, self._is_ready()
            self._write_status("running")

    def _work(self) -> None:
        for batch in self._collector.take(everything=False):
            self._log_side.put(batch)
        for device, value in self._numbers.closed():
            self._log_side.put(Letter(device, "", value, None))
        self._log_side.send()
        self._log_side.settle()
        for session in self._sessions:
            session.acknowledge()

    def _tick_mqtt(self, now_s: float) -> None:
        if self._room:
            self._room_at_s = now_s
        for session in self._sessions:
            if now_s - self._room_at_s > PAUSE_AFTER_S:
                session.connection.pause()
            else:
                session.connection.tick(now_s)
            if session.connection.subscription_refused and not session.refused:
                self._alarm(
                    f"mapping {session.mapping.name}: the broker refuses the subscription to {session.mapping.topic}; "
                    f"allow it to client edgewater-mapping-{session.mapping.name}"
                )
            session.refused = session.connection.subscription_refused

    def _wait(self, now_s: float) -> None:
        """Wait for something to do, at most until the next thing is due, and exchange bytes with the broker."""
        due_s = min([self._tick_at_s, *([] if self._flush_at_s is None else [self._flush_due_s()])])
        poll = select.poll()
        poll.register(self._log_side.fileno(), select.POLLIN)
        sessions: dict[int, _Session] = {}
        room = self._room
        for session in self._sessions:
            connection = session.connection
            if (number := connection.fileno()) >= 0:
                sessions[number] = session
                reading = room or not connection.connected
                wanted = select.POLLIN if reading else select.POLLRDHUP
                poll.register(number, wanted | (select.POLLOUT if connection.wants_write else 0))
        for number, events in poll.poll(max(0.0, due_s - now_s) * 1000):
            if number in sessions:
                self._exchange(sessions[number].connection, events, room)

    @staticmethod
    def _exchange(connection: PersistentConnection, events: int, room: bool) -> None:
        if events & select.POLLOUT:
            connection.write()
        if events & ~select.POLLOUT:
            if room or not connection.connected:
                connection.read(MESSAGES_A_TURN)
            else:
                connection.give_up()

    # Messages

    def _receive(self, session: _Session, arrival: Arrival) -> bool:
        self._arrived_at_s = self._clock.monotonic_s()
        counts = session.counts
        taken = session.acknowledgements.arrived(
            arrival.packet_id, arrival.qos, arrival.duplicate, arrival.topic, arrival.payload
        )
        if taken is None:
            counts.redelivered += 1
            return self._room
        counts.messages += 1
        now_us = self._clock.time_us()
        counts.last_message_at = now_us / 1e6
        try:
            items = session.decoder.decode(arrival.topic, arrival.payload, now_us)
        except DecodeError as error:
            counts.dead_letters += 1
            self._dead_letter(arrival, f"mapping {session.mapping.name}: {error}", now_us, taken)
            items = []
        else:
            counts.ignored += not items
        for item in items:
            rows = len(item.readings) or 1
            counts.rows += rows
            counts.times_of_receipt += rows if item.time_received else 0
            self._collector.add(session.mapping, item, taken)
        taken.left -= 1
        if items and self._flush_at_s is None:
            self._flush_at_s = self._arrived_at_s + self._settings.flush_interval_s
        return self._room

    def _dead_letter(self, arrival: Arrival, reason: str, now_us: int, taken: Taken) -> None:
        value = encode_dead_letter(arrival.payload, topic=arrival.topic, reason=reason, time_us=now_us)
        taken.left += 1
        self._log_side.put(Letter("", arrival.topic, value, taken))

    def _flush_due_s(self) -> float:
        assert self._flush_at_s is not None
        waiting = max(len(session.acknowledgements) for session in self._sessions)
        return min(self._flush_at_s, self._arrived_at_s + QUIET_S) if waiting >= BURST_MESSAGES else self._flush_at_s

    def _flush_if_due(self, now_s: float) -> None:
        if self._flush_at_s is not None and now_s >= self._flush_due_s():
            self._flush()

    def _flush(self) -> None:
        self._flush_at_s = None
        for batch in self._collector.take(everything=True):
            self._log_side.put(batch)

    def _done(self, entry: Entry) -> None:
        """The log has it."""
        if isinstance(entry, Batch):
            self._durable_batches += 1
            self._durable_rows += entry.rows
            for taken in entry.taken:
                taken.left -= 1
        elif entry.taken is not None:
            entry.taken.left -= 1

    # The end, and what others see

    def _end(self) -> None:
        """Take no more, wait for what is under way, acknowledge it, close the epochs."""
        until_s = time.monotonic() + self._settings.stop_timeout_s
        self._flush()
        self._drain(until_s)
        for device, value in self._numbers.closed(everything=True):
            self._log_side.put(Letter(device, "", value, None))
        self._drain(until_s)
        _log.info("ended with %d appends under way", self._log_side.entries)

    def _drain(self, until_s: float) -> None:
        self._work()
        while self._log_side.entries and self._log_side.ready and time.monotonic() < until_s:
            select.select([self._log_side.fileno()], [], [], min(0.1, max(0.0, until_s - time.monotonic())))
            self._work()
        for session in self._sessions:
            session.connection.write()

    def _alarm(self, text: str) -> None:
        _log.error("ALARM %s", text)
        self._alarm_count += 1
        self._alarms.append({"at": self._clock.time_us() / 1e6, "text": text})

    def _is_ready(self) -> bool:
        return self._log_side.ready and all(session.connection.connected for session in self._sessions)

    def _write_status(self, state: str) -> None:
        counts = [session.counts for session in self._sessions]
        states = {session.connection.state for session in self._sessions}
        self._status.write(
            state=state,
            ready=self._is_ready(),
            mqtt=states.pop() if len(states) == 1 else "partly connected",
            mqtt_connects=sum(session.connection.connects for session in self._sessions),
            log=self._log_side.state,
            in_flight_bytes=self._collector.bytes + self._log_side.bytes,
            in_flight_records=self._log_side.entries,
            devices=len(self._numbers),
            received=sum(one.messages for one in counts),
            rows=sum(one.rows for one in counts),
            durable_batches=self._durable_batches,
            durable_rows=self._durable_rows,
            dead_letters=sum(one.dead_letters for one in counts),
            failed_appends=self._log_side.failed_appends,
            mappings=[
                {
                    "mapping": session.mapping.name,
                    "topic": session.mapping.topic,
                    "mqtt": session.connection.state,
                    "unacknowledged": len(session.acknowledgements),
                    **vars(session.counts),
                }
                for session in self._sessions
            ],
            alarm_count=self._alarm_count,
            alarms=list(self._alarms),
        )
