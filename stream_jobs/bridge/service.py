"""The bridge as a process: one loop over MQTT, the log's answers, and the clock.

One thread decides everything. It reads MQTT only while the log is connected, every partition is taken up and the
window has room; kafka-python's own thread sends and hands answers back through a pipe.

**Delivery**: a batch is durable when the log has acknowledged it and the fold has accepted it; only then is its
device told. `kill -9` at any moment loses nothing: devices still have what they were not told about, and the fold
makes what is sent or appended again harmless. SIGTERM ends within `stop_timeout_s`: no more reading, appends under
way are waited for, folds are checkpointed.
**Bounds**: the window (bytes, records), HELLOS_MAX hellos waiting, MESSAGES_A_TURN messages between two looks at
everything else. While nothing can be taken for PAUSE_AFTER_S the MQTT connection is given up, so that the broker
keeps nothing for us.
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable
from functools import lru_cache

from edge_agent.contract import limits
from edge_agent.contract.clock import Clock, SystemClock
from edge_agent.contract.crash import crash_point
from edge_agent.contract.errors import DecodeError, quoted
from edge_agent.contract.reports import decode_report
from edge_agent.contract.ring import shard_of
from edge_agent.contract.status import StatusFile
from edge_agent.contract.topics import LOG_BATCHES, ack_topic, device_of, shard_filters
from edge_agent.contract.watermarks import Hello, Watermarks, decode_hello, encode
from edge_agent.contract.wire import Kind, message_header

from .answers import Answers
from .dead_letters import RATE_MAX, Rate, encode_dead_letter, partition_for
from .devices import Devices
from .log_side import LogSide
from .mqtt import MqttConnection, Receiver
from .partition import Held, Lost, Refused, Ticket
from .settings import BridgeSettings, parse_shards
from .tally import Tally
from .window import Window

__all__ = ["BridgeService"]

_log = logging.getLogger(__name__)

HELLOS_MAX = 10_000
MESSAGES_A_TURN = 128
PAUSE_AFTER_S = 20.0
_STATUS_INTERVAL_S = 0.5
_DEVICES_INTERVAL_S = 2.0
_TICK_INTERVAL_S = 0.1
_RATE_ALARM_INTERVAL_S = 60.0


@lru_cache(maxsize=65_536)
def _route(topic: str) -> tuple[str, str, int]:
    """(`batch`, `hello` or `report`, device, shard) of an MQTT topic; DecodeError where it is none of ours."""
    kind, device = device_of(topic)
    return kind, device, shard_of(device)


class BridgeService:
    """`run` until `stop`."""

    def __init__(
        self,
        settings: BridgeSettings,
        clock: Clock | None = None,
        *,
        log_side: Callable[[BridgeSettings, Window, Tally, Clock], LogSide] = LogSide,
        mqtt: Callable[[str, str, list[str], Receiver], MqttConnection] = MqttConnection,
    ) -> None:
        """Nothing is connected yet; SettingsError for settings that cannot be."""
        self._settings = settings
        self._clock = clock or SystemClock()
        shards = parse_shards(settings.shards)
        self._shards = shards
        everything = len(shards) == limits.SHARDS
        filters = shard_filters() if everything else [name for s in sorted(shards) for name in _filters_of(s)]
        self._tally = Tally()
        self._window = Window(settings.in_flight_bytes_max, settings.in_flight_records_max)
        self._log_side = log_side(settings, self._window, self._tally, self._clock)
        self._answers = Answers(settings.devices_max, settings.repeat_interval_s)
        self._mqtt = mqtt(settings.mqtt_url, f"edgewater-{settings.name}", filters, self._receive)
        self._hellos: dict[str, Hello] = {}
        self._devices = Devices(settings.devices_max)
        self._dead_letter_rate = Rate()
        self._rate_alarm_at_s = 0.0
        self._status = StatusFile(settings.run_dir or None, settings.name)
        self._devices_status = StatusFile(settings.run_dir or None, f"{settings.name}-devices")
        self._stopping = self._ready = False
        self._flush_at_s = self._status_at_s = self._tick_at_s = self._devices_at_s = 0.0
        self._open_at_s = self._clock.monotonic_s()

    def stop(self) -> None:
        """End soon; may be called from a signal handler."""
        self._stopping = True
        self._window.wake()

    def run(self) -> None:
        """Work until `stop`, then end cleanly. Raises StopError where a person has to act."""
        try:
            while not self._stopping:
                self._turn()
            self._end()
        finally:
            self._mqtt.close()
            self._log_side.close()
            self._write_status("stopped")

    # One turn of the loop

    def _turn(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s >= self._tick_at_s:
            self._tick_at_s = now_s + _TICK_INTERVAL_S
            self._tick(now_s)
        taking = self._log_side.ready and self._window.room
        if taking:
            self._open_at_s = now_s
        self._wait(taking, now_s)
        self._work()
        now_s = self._clock.monotonic_s()
        if now_s >= self._flush_at_s and self._answers.due:
            self._flush()
            self._flush_at_s = now_s + self._settings.flush_interval_s
        ready = self._mqtt.connected and self._log_side.ready
        if now_s >= self._status_at_s or ready != self._ready:
            self._status_at_s, self._ready = now_s + _STATUS_INTERVAL_S, ready
            self._write_status("running")
        if now_s >= self._devices_at_s:
            self._devices_at_s = now_s + _DEVICES_INTERVAL_S
            self._devices_status.write(**self._devices.fields())

    def _tick(self, now_s: float) -> None:
        self._log_side.tick(now_s)
        self._log_side.checkpoint(now_s)
        self._tick_mqtt(now_s)

    def _work(self) -> None:
        """Fold what the log confirmed, and answer hellos."""
        answers = self._window.take()
        if answers:
            self._log_side.settle(answers)
        self._collect_progress()
        if self._hellos and self._log_side.ready:
            self._answer_hellos()

    def _wait(self, taking: bool, now_s: float) -> None:
        """Wait for something to do, at most until the next thing is due, and exchange bytes with the broker."""
        due_s = min(self._tick_at_s, self._flush_at_s if self._answers.due else self._tick_at_s)
        poll = select.poll()
        poll.register(self._window.fileno(), select.POLLIN)
        mqtt = self._mqtt.fileno()
        # Until the subscriptions stand there is nothing to hold back.
        reading = taking or not self._mqtt.connected
        if mqtt >= 0:
            wanted = select.POLLIN if reading else select.POLLRDHUP
            poll.register(mqtt, wanted | (select.POLLOUT if self._mqtt.wants_write else 0))
        for ready, events in poll.poll(max(0.0, due_s - now_s) * 1000):
            if ready != mqtt:
                continue
            if events & select.POLLOUT:
                self._mqtt.write()
            if reading and events & ~select.POLLOUT:
                self._mqtt.read(MESSAGES_A_TURN)
            elif events & ~select.POLLOUT:
                self._mqtt.give_up()

    def _tick_mqtt(self, now_s: float) -> None:
        if not self._log_side.ready and not self._mqtt.connected:
            return  # connect when there is a place for what comes
        if now_s - self._open_at_s > PAUSE_AFTER_S:
            self._mqtt.pause()
        else:
            self._mqtt.tick(now_s)

    # From the devices

    def _receive(self, topic: str, payload: bytes) -> bool:
        self._tally.received += 1
        if self._window.overfull:
            self._tally.refused += 1
            return False
        try:
            kind, device, shard = _route(topic)
            if kind == "report":
                self._receive_report(device, payload)
            elif kind == "hello":
                self._receive_hello(device, decode_hello(payload))
            elif shard in self._shards:
                self._receive_batch(device, shard, payload)
        except DecodeError as error:
            self._dead_letter(topic, payload, str(error))
        return self._window.room

    def _receive_report(self, device: str, payload: bytes) -> None:
        """Only for people: one that cannot be read (of a newer agent) is counted, and nothing else."""
        try:
            self._devices.report(device, self._clock.time_us(), decode_report(payload))
        except DecodeError as error:
            self._tally.reports_refused += 1
            self._devices.heard(device, self._clock.time_us())
            _log.debug("device %s: %s", device, error)
        else:
            self._tally.reports += 1

    def _receive_hello(self, device: str, hello: Hello) -> None:
        self._tally.hellos += 1
        self._devices.heard(device, self._clock.time_us())
        self._answers.hello(device, hello.nonce)
        if device in self._hellos or len(self._hellos) < HELLOS_MAX:
            self._hellos[device] = hello

    def _receive_batch(self, device: str, shard: int, payload: bytes) -> None:
        header = message_header(payload)
        if header.device != device:
            raise DecodeError(f"message of device {header.device or '(a marker)'} on the topic of {device}")
        if len(payload) > limits.LOG_RECORD_BYTES_MAX:
            raise DecodeError(
                f"message of {len(payload)} bytes; a log record has at most {limits.LOG_RECORD_BYTES_MAX}"
            )
        partition = self._log_side.partition_of(shard)
        bridge = self._log_side.bridge(partition)
        if bridge is None:
            self._tally.refused += 1
            return
        found = bridge.receive(header)
        if isinstance(found, Ticket):
            rows = header.rows if header.kind is Kind.BATCH else 0
            self._devices.batch(device, self._clock.time_us(), rows, header.seq_last)
            self._append(partition, payload, found)
            return
        self._devices.heard(device, self._clock.time_us())
        if found is Refused.DUPLICATE:
            self._tally.duplicates += 1
        elif found is Refused.GAP:
            self._tally.gaps += 1
        else:
            self._tally.void += 1
            return
        self._answers.repeat(device, header.epoch, self._clock.monotonic_s())

    def _append(self, partition: int, message: bytes, ticket: Ticket) -> None:
        self._tally.appended += 1
        self._log_side.append(LOG_BATCHES, partition, ticket.header.device.encode(), message, ticket)

    def _dead_letter(self, topic: str, payload: bytes, reason: str) -> None:
        now_s = self._clock.monotonic_s()
        if not self._dead_letter_rate.take(now_s):
            self._tally.dead_letters_dropped += 1
            if now_s >= self._rate_alarm_at_s:
                self._rate_alarm_at_s = now_s + _RATE_ALARM_INTERVAL_S
                self._tally.alarm(
                    f"more than {RATE_MAX} payloads a second cannot be read, the rest is counted and dropped; the last "
                    f"came on {quoted(topic)}: {reason}",
                    self._clock.time_us() / 1e6,
                )
            return
        value = encode_dead_letter(payload, topic=topic, reason=reason, time_us=self._clock.time_us())
        partition = partition_for(topic, self._settings.partitions)
        self._log_side.append(LOG_BATCHES, partition, None, value, None)

    # To the devices

    def _collect_progress(self) -> None:
        for partition in range(self._settings.partitions):
            bridge = self._log_side.bridge(partition)
            if bridge is not None and bridge.progressed:
                for device, epoch in bridge.progressed:
                    self._answers.tell(device, epoch)
                bridge.progressed.clear()

    def _answer_hellos(self) -> None:
        """Answer what can be answered; a partition is read to its end at most once for all that ask for it."""
        read: dict[int, bool] = {}
        for device, hello in list(self._hellos.items()):
            partition = self._log_side.partition_of(shard_of(device))
            if self._answer_hello(device, hello, partition, read):
                del self._hellos[device]

    def _answer_hello(self, device: str, hello: Hello, partition: int, read: dict[int, bool]) -> bool:
        """True: done; False: ask again in the next turn."""
        done = True
        for held in hello.epochs:
            bridge = self._log_side.bridge(partition)
            if bridge is None:
                return False
            found = bridge.hello(device, held, at_end=False)
            if found is Held.READ:
                if partition not in read:
                    read[partition] = self._log_side.read_to_end(partition)
                if not read[partition]:
                    return False
                found = bridge.hello(device, held, at_end=True)
            if isinstance(found, Lost):
                self._append_lost(partition, found)
            done = done and found is not Held.WAIT
            self._answers.tell(device, held.epoch)
        return done

    def _append_lost(self, partition: int, lost: Lost) -> None:
        header = lost.ticket.header
        self._tally.lost_records += 1
        self._tally.alarm(
            f"device {header.device} no longer has seqs {header.seq_first} to {header.seq_last} of epoch "
            f"{header.epoch}, and the log has them neither: recorded as lost",
            self._clock.time_us() / 1e6,
        )
        self._append(partition, lost.message, lost.ticket)

    def _flush(self) -> None:
        crash_point("bridge.watermark.before")
        self._tally.watermarks += self._answers.flush(self._watermark, self._clock.time_us(), self._send)
        crash_point("bridge.watermark.after")

    def _watermark(self, device: str, epoch: int) -> int | None:
        bridge = self._log_side.bridge(self._log_side.partition_of(shard_of(device)))
        if bridge is None or not bridge.fold.owns(device):
            return None
        return bridge.watermark(device, epoch)

    def _send(self, device: str, watermarks: Watermarks) -> bool:
        return self._mqtt.publish(ack_topic(device), encode(watermarks))

    # The end

    def _end(self) -> None:
        """Take no more, wait for what is under way, tell devices, checkpoint."""
        until_s = time.monotonic() + self._settings.stop_timeout_s
        self._drain(until_s)
        self._collect_progress()
        if self._mqtt.connected and self._answers.due:
            self._flush()
        if self._log_side.ready:
            self._log_side.checkpoint(time.monotonic(), all_changed=True)
            self._drain(until_s)
        _log.info("ended with %d appends under way", self._window.records)

    def _drain(self, until_s: float) -> None:
        while self._window.records and time.monotonic() < until_s:
            select.select([self._window.fileno()], [], [], max(0.0, until_s - time.monotonic()))
            self._log_side.settle(self._window.take())

    def _write_status(self, state: str) -> None:
        self._status.write(
            state=state,
            ready=self._mqtt.connected and self._log_side.ready,
            mqtt=self._mqtt.state,
            mqtt_connects=self._mqtt.connects,
            log=self._log_side.state,
            in_flight_bytes=self._window.bytes,
            in_flight_records=self._window.records,
            devices=self._answers.devices,
            devices_heard=len(self._devices),
            partitions=self._log_side.status(),
            **self._tally.fields(),
        )


def _filters_of(shard: int) -> list[str]:
    return shard_filters(range(shard, shard + 1))
