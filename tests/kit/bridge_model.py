"""A seeded world around real bridges: a log, a lossy MQTT, devices with spools, and checkers.

The bridges are the product's own service and log side, without sockets and with a clock moved by hand. The world
loses, doubles and reorders messages, fails appends (some of which land anyway, or much later), refuses reads, kills
and pauses bridges, runs two of them at once, appends foreign records, and deletes what a checkpoint covers.

Checkers are apart from the scenario: `check_now` (nothing is trimmed above the fold's watermark, every bridge's fold
equals that of all the records) after each step, `check_end` (each batch accepted was folded exactly once) when the
faults are over.

**Delivery**: nothing is kept. **Bounds**: one partition, a few devices, as many steps as asked for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import RetryError
from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.tables import Table, first_table
from edge_agent.contract.topics import (
    LOG_BATCHES,
    LOG_CHECKPOINTS,
    ack_topic,
    batch_topic,
    hello_topic,
)
from edge_agent.contract.watermarks import HeldEpoch, decode_watermarks, encode, make_hello
from edge_agent.contract.wire import Kind, encode_batch, encode_close
from stream_jobs.bridge.log_side import LogSide
from stream_jobs.bridge.restore import header_of
from stream_jobs.bridge.service import BridgeService
from stream_jobs.bridge.settings import BridgeSettings
from stream_jobs.kafka_client import Done, LogChangedError, LogRecord

__all__ = ["Device", "ModelClient", "ModelLog", "Producer", "ViolationError", "World"]


class ViolationError(AssertionError):
    """A promise was broken."""


@dataclass
class ModelLog:
    """Topics of one partition each; `start` moves with deletion, what was deleted is kept for the checkers."""

    clock: ManualClock
    topic_id: str = "topic-1"
    start: dict[str, int] = field(default_factory=dict)
    records: dict[str, list[LogRecord]] = field(default_factory=dict)
    history: list[LogRecord] = field(default_factory=list)

    def append(self, topic: str, key: bytes | None, value: bytes) -> LogRecord:
        """Append, durable at once."""
        records = self.records.setdefault(topic, [])
        record = LogRecord(self.end(topic), self.clock.time_us() // 1000, key, value)
        records.append(record)
        if topic == LOG_BATCHES:
            self.history.append(record)
        return record

    def end(self, topic: str) -> int:
        """The offset after the last record."""
        return len(self.records.get(topic, ()))

    def delete_before(self, topic: str, offset: int) -> None:
        """DeleteRecords."""
        self.start[topic] = max(self.start.get(topic, 0), offset)


class ModelClient:
    """What `LogClient` does, on a ModelLog; `fails()` decides whether a call cannot reach the log."""

    def __init__(self, log: ModelLog, fails: Callable[[], bool] = lambda: False) -> None:
        self._log = log
        self._fails = fails

    def _reach(self) -> None:
        if self._fails():
            raise RetryError("the log is out of reach")

    def ensure_topics(self, partitions: int) -> None:
        self._reach()

    def ensure_tables(self, partitions: int, producer: Any) -> tuple[Table, Table]:
        self._reach()
        return first_table(partitions), first_table(partitions)

    def topic_id(self, topic: str) -> str:
        self._reach()
        return self._log.topic_id

    def offsets(self, topic: str, partition: int) -> tuple[int, int]:
        self._reach()
        return self._log.start.get(topic, 0), self._log.end(topic)

    def read(self, topic: str, partition: int, start: int, end: int) -> Iterator[LogRecord]:
        for offset in range(start, end):
            self._reach()
            if offset < self._log.start.get(topic, 0):
                raise LogChangedError(f"{topic} record {offset} is deleted")
            yield self._log.records[topic][offset]

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        self._reach()
        self._log.delete_before(topic, before)

    def close(self) -> None:
        pass


@dataclass
class _Request:
    topic: str
    key: bytes | None
    value: bytes
    done: Done | None


class Producer:
    """What `LogProducer` does: requests land in order, later; an answer may get lost, a request too."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.waiting: list[_Request] = []

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes, done: Done) -> None:
        self.waiting.append(_Request(topic, key, value, done))

    def append_now(self, topic: str, partition: int, key: bytes | None, value: bytes) -> int:
        return self._world.log.append(topic, key, value).offset

    def close(self, timeout_s: float = 0.0) -> None:
        for request in self.waiting:
            if request.done is not None:
                request.done(-1, -1, RetryError("closed"))
                request.done = None
        self._world.zombies.append(self)

    def land(self, answer: str) -> None:
        """The first request reaches the log. `answer`: ok, none (no offset), lost (an error, though it is there)."""
        request = self.waiting.pop(0)
        record = self._world.log.append(request.topic, request.key, request.value)
        if request.done is not None:
            if answer == "ok":
                request.done(record.offset, record.append_time_ms, None)
            elif answer == "none":
                request.done(-1, -1, None)
            else:
                request.done(-1, -1, RetryError("no answer in time"))

    def lose(self) -> None:
        """The first request never reaches the log."""
        request = self.waiting.pop(0)
        if request.done is not None:
            request.done(-1, -1, RetryError("not delivered"))


class _NoMqtt:
    """The bridge's connection: what it publishes goes to the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.state = "connected"
        self.connected = True
        self.connects = 1
        self.wants_write = False

    def fileno(self) -> int:
        return -1

    def tick(self, now_s: float) -> None:
        pass

    def pause(self) -> None:
        pass

    def close(self) -> None:
        pass

    def publish(self, topic: str, payload: bytes) -> bool:
        self._world.to_devices.append((topic, payload))
        return True


class Device:
    """A spool of one epoch and the device's half of the protocol."""

    def __init__(self, name: str, epoch: int, random_: random.Random) -> None:
        self.name = name
        self.epoch = epoch
        self.accepted = 0
        self.first_seq = 1
        """Grows with trimming, and when the test makes the device lose batches."""
        self.trimmed = 0
        self.lost: set[int] = set()
        self._random = random_
        self._nonce = b""
        self._next = 0
        self._welcome = False

    def message(self, seq: int) -> bytes:
        """The batch with this seq."""
        return encode_batch(
            b"%d" % seq,
            device=self.name,
            epoch=self.epoch,
            seq=seq,
            rows=seq % 7 + 1,
            stream="readings",
            compress=False,
        )

    def connect(self) -> bytes:
        """A new connection: another nonce, and a hello."""
        self._nonce = self._random.randbytes(8)
        return self.hello()

    def hello(self) -> bytes:
        """What the device says on connect and after a stall."""
        self._welcome = False
        return encode(make_hello(self._nonce, (HeldEpoch(self.epoch, self.first_seq, True),)))

    def send(self, window: int) -> bytes | None:
        """The next message, if there is one to send."""
        if not self._welcome or self._next >= min(self.accepted, self.first_seq - 1 + window):
            return None
        self._next += 1
        return self.message(self._next)

    def answer(self, payload: bytes) -> None:
        """Watermarks from a bridge."""
        answer = decode_watermarks(payload)
        watermark = dict(answer.watermarks).get(self.epoch)
        if answer.nonce != self._nonce or watermark is None:
            return
        self.trimmed = max(self.trimmed, min(watermark, self.accepted))
        self.first_seq = max(self.first_seq, self.trimmed + 1)
        if not self._welcome:
            self._welcome, self._next = True, self.first_seq - 1

    def lose(self, count: int) -> None:
        """The spool's oldest batches are gone."""
        last = min(self.first_seq + count - 1, self.accepted)
        self.lost.update(range(self.first_seq, last + 1))
        self.first_seq = last + 1

    def close(self) -> bytes:
        """A hint that no more comes."""
        return encode_close(device=self.name, epoch=self.epoch, seq_last=self.accepted)


class World:
    """Everything, driven by one seed. Faults happen while `faults` is true."""

    def __init__(self, seed: int, *, bridges: int = 2, devices: int = 2, service: type[BridgeService] = BridgeService,
                 log_side: type[LogSide] = LogSide) -> None:  # fmt: skip
        self.random = random.Random(seed)
        self.clock = ManualClock()
        self.log = ModelLog(self.clock)
        self.faults = True
        self.to_bridges: list[tuple[str, bytes]] = []
        self.to_devices: list[tuple[str, bytes]] = []
        self.zombies: list[Producer] = []
        self._service, self._log_side = service, log_side
        self.devices = [
            Device(f"device-{n}", ((100_000 + n) << 32) | 1, random.Random(seed * 31 + n)) for n in range(devices)
        ]
        self.bridges: list[BridgeService | None] = [None] * bridges
        self.paused: set[int] = set()
        self.producers: list[Producer | None] = [None] * bridges
        self._oracle = PartitionFold(0, first_table(1).partitions)
        self._states = [self._oracle.to_bytes()]
        self._checked: dict[int, tuple[Any, int]] = {}

    # Bridges

    def start(self, index: int) -> None:
        """Start a bridge (again)."""
        settings = BridgeSettings(
            partitions=1, repeat_interval_s=0.05, checkpoint_records=5, checkpoint_interval_s=0.5, name=f"b{index}"
        )

        def connect_producer(_: BridgeSettings) -> Producer:
            if self._fails():
                raise RetryError("the log is out of reach")
            producer = self.producers[index] = Producer(self)
            return producer

        def side(settings: BridgeSettings, window: Any, tally: Any, clock: Any) -> LogSide:
            return self._log_side(
                settings, window, tally, clock,
                connect=lambda _: ModelClient(self.log, self._fails), connect_producer=connect_producer,
            )  # fmt: skip

        bridge = self._service(settings, self.clock, log_side=side, mqtt=lambda *_: _NoMqtt(self))  # type: ignore[arg-type]
        self.bridges[index] = bridge

    def kill(self, index: int) -> None:
        """kill -9: what it had sent to the log may still land, nobody hears of it."""
        bridge, self.bridges[index] = self.bridges[index], None
        producer, self.producers[index] = self.producers[index], None
        if bridge is not None:
            bridge._window.close()
        if producer is not None:
            for request in producer.waiting:
                request.done = None
            self.zombies.append(producer)

    def turn(self, index: int) -> None:
        """One turn of a bridge's loop."""
        bridge = self.bridges[index]
        if bridge is None:
            self.start(index)
            return
        bridge._tick(self.clock.monotonic_s())
        bridge._work()
        bridge._flush()

    def _fails(self) -> bool:
        return self.faults and self.random.random() < 0.02

    # Steps

    def step(self) -> None:
        """Something happens."""
        self.clock.advance(self.random.choice((0.001, 0.01, 0.03)))
        actions: list[tuple[float, Callable[[], None]]] = [
            (6, self._bridge_turns), (6, self._device_sends), (6, self._mqtt_to_bridges), (4, self._mqtt_to_devices),
            (6, self._append_lands), (1, self._hello), (1, self._accept),
        ]  # fmt: skip
        if self.faults:
            actions += [
                (0.3, self._kill), (0.3, self._pause), (0.4, self._foreign), (0.5, self._zombie), (0.3, self._upkeep),
                (0.4, self._append_fails), (0.05, self._device_loses), (0.1, self._close), (0.2, self._garbage),
            ]  # fmt: skip
        self.random.choices([action for _, action in actions], [weight for weight, _ in actions])[0]()
        self.check_now()

    def _bridge_turns(self) -> None:
        index = self.random.randrange(len(self.bridges))
        if index not in self.paused:
            self.turn(index)

    def _device_sends(self) -> None:
        device = self.random.choice(self.devices)
        message = device.send(window=8)
        if message is not None:
            self.to_bridges.append((batch_topic(device.name), message))

    def _mqtt_to_bridges(self) -> None:
        if not self.to_bridges:
            return
        at = self.random.randrange(min(len(self.to_bridges), 4)) if self.faults and self.random.random() < 0.1 else 0
        topic, payload = self.to_bridges[at]
        if not (self.faults and self.random.random() < 0.1):
            del self.to_bridges[at]  # else it will come again
        for index, bridge in enumerate(self.bridges):
            takes = bridge is not None and index not in self.paused and bridge._log_side.ready
            if takes and bridge is not None and not (self.faults and self.random.random() < 0.15):
                bridge._receive(topic, payload)

    def _mqtt_to_devices(self) -> None:
        if not self.to_devices:
            return
        topic, payload = self.to_devices.pop(0)
        if self.faults and self.random.random() < 0.1:
            return
        for device in self.devices:
            if topic == ack_topic(device.name):
                device.answer(payload)

    def _append_lands(self) -> None:
        producer = self.random.choice(self.producers)
        if producer is not None and producer.waiting:
            bad = self.faults and self.random.random() < 0.05
            producer.land(self.random.choice(("none", "lost")) if bad else "ok")

    def _append_fails(self) -> None:
        producer = self.random.choice(self.producers)
        if producer is not None and producer.waiting:
            producer.lose()

    def _hello(self) -> None:
        device = self.random.choice(self.devices)
        payload = device.connect() if self.random.random() < 0.3 or not device._nonce else device.hello()
        self.to_bridges.append((hello_topic(device.name), payload))

    def _accept(self) -> None:
        if self.faults:
            self.random.choice(self.devices).accepted += self.random.randrange(1, 4)

    def _kill(self) -> None:
        self.kill(self.random.randrange(len(self.bridges)))

    def _pause(self) -> None:
        index = self.random.randrange(len(self.bridges))
        self.paused ^= {index}

    def _foreign(self) -> None:
        """Somebody else appends what the device has sent before, or nonsense."""
        device = self.random.choice(self.devices)
        if device.accepted and self.random.random() < 0.8:
            held = range(device.first_seq, device.accepted + 1) or range(1, device.accepted + 1)
            self.log.append(LOG_BATCHES, b"", device.message(self.random.choice(held)))
        else:
            self.log.append(LOG_BATCHES, b"", b"nonsense")

    def _zombie(self) -> None:
        """A request of a dead producer lands late, or never."""
        self.zombies = [producer for producer in self.zombies if producer.waiting]
        if self.zombies:
            producer = self.random.choice(self.zombies)
            producer.land("ok") if self.random.random() < 0.6 else producer.lose()

    def _upkeep(self) -> None:
        """Delete records that the highest checkpoint covers."""
        covered = max((kept.offset for kept in self._checkpoints()), default=0)
        self.log.delete_before(LOG_BATCHES, covered)

    def _checkpoints(self) -> list[Any]:
        from stream_jobs.bridge.checkpoints import decode_checkpoint

        start = self.log.start.get(LOG_CHECKPOINTS, 0)
        return [decode_checkpoint(record.value) for record in self.log.records.get(LOG_CHECKPOINTS, [])[start:]]

    def _device_loses(self) -> None:
        self.random.choice(self.devices).lose(self.random.randrange(1, 4))

    def _close(self) -> None:
        device = self.random.choice(self.devices)
        self.to_bridges.append((batch_topic(device.name), device.close()))

    def _garbage(self) -> None:
        device = self.random.choice(self.devices)
        other = self.random.choice(self.devices)
        self.to_bridges.append((batch_topic(device.name), self.random.choice((b"\xedG", other.message(1)))))

    def settle(self, rounds: int = 600) -> None:
        """No more faults: everything has to arrive."""
        self.faults = False
        self.paused.clear()
        for _ in range(rounds):
            self.clock.advance(0.1)
            for producer in self.zombies:
                while producer.waiting:
                    producer.land("ok")
            for index in range(len(self.bridges)):
                self.turn(index)
            for device in self.devices:
                if device.trimmed < device.accepted or not device._nonce:
                    self.to_bridges.append((hello_topic(device.name), device.connect()))
            for _ in range(30):
                self._mqtt_to_bridges()
            for living in self.producers:
                while living is not None and living.waiting:
                    living.land("ok")
            for index in range(len(self.bridges)):
                self.turn(index)
            for _ in range(30):
                self._mqtt_to_devices()
            for device in self.devices:
                while (message := device.send(window=8)) is not None:
                    self.to_bridges.append((batch_topic(device.name), message))
            self.check_now()
            if all(device.trimmed >= device.accepted for device in self.devices) and not self.to_bridges:
                return
        raise ViolationError(f"not drained: {[(d.name, d.accepted, d.trimmed, d.first_seq) for d in self.devices]}")

    def close(self) -> None:
        """Give back what the bridges hold."""
        for index in range(len(self.bridges)):
            self.kill(index)

    # Checkers

    def fold(self) -> tuple[PartitionFold, dict[tuple[str, int, int], list[Kind]]]:
        """The fold over all that was ever appended, and for each seq the kinds of record that covered it."""
        fold = PartitionFold(0, first_table(1).partitions)
        covered: dict[tuple[str, int, int], list[Kind]] = {}
        for record in self.log.history:
            header, body = header_of(record.value)
            verdict = fold.apply(record.offset, record.append_time_ms, header, bytes(body))
            if header is not None and verdict.outcome is Outcome.ACCEPTED:
                for seq in range(verdict.seq_first, verdict.seq_last + 1):
                    covered.setdefault((header.device, header.epoch, seq), []).append(header.kind)
        return fold, covered

    def check_now(self) -> None:
        """Nothing is trimmed above the fold's watermark, and every bridge's fold is the log's at its offset."""
        for record in self.log.history[len(self._states) - 1 :]:
            header, body = header_of(record.value)
            self._oracle.apply(record.offset, record.append_time_ms, header, bytes(body))
            self._states.append(self._oracle.to_bytes())
        for device in self.devices:
            durable = self._oracle.watermark(device.name, device.epoch)
            if device.trimmed > durable:
                raise ViolationError(f"{device.name} trimmed {device.trimmed}, the log's fold has {durable}")
        for index, bridge in enumerate(self.bridges):
            part = None if bridge is None else bridge._log_side.bridge(0)
            if part is not None and self._checked.get(index) != (part, part.fold.next_offset):
                self._checked[index] = (part, part.fold.next_offset)
                if part.fold.to_bytes() != self._states[part.fold.next_offset]:
                    raise ViolationError(f"bridge {index} folded something else up to {part.fold.next_offset}")

    def check_end(self) -> None:
        """Every batch accepted was folded exactly once, as a batch; only what its device had lost may be a skip."""
        _, covered = self.fold()
        for device in self.devices:
            for seq in range(1, device.accepted + 1):
                kinds = covered.get((device.name, device.epoch, seq), [])
                if kinds != [Kind.BATCH] and not (kinds == [Kind.SKIP] and seq in device.lost):
                    raise ViolationError(f"{device.name} seq {seq} was folded as {[kind.name for kind in kinds]}")
