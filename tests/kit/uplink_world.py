"""A device, a bridge and the network between them in one thread, with faults from a seed.

The device is the real sender, spool and uplink; the bridge is the real fold over a list; only the network and the
time are played. Messages are lost, doubled, delayed past each other; connections end; bridges forget whom they served;
the device is killed and opened again, from its own files or from a copy of them that somebody made earlier.

**Delivery**: checked by `check` after every step, and `finish` when the faults end. **Bounds**: some hundred steps.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from edge_agent.contract import limits, watermarks
from edge_agent.contract.balancing import parse_endpoints
from edge_agent.contract.clock import ManualClock
from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.wire import Kind, decode_header
from edge_agent.mqtt import Connected, Connection, Disconnected, Event, Received
from edge_agent.reconnect import Reconnect
from edge_agent.sender import Sender, Submitted
from edge_agent.spool import Spool, SpoolSettings, read_ledger
from edge_agent.uplink import Uplink, UplinkSettings
from tests.kit.spooled import DEVICE, batch

__all__ = ["Bridge", "Device", "World"]


class PlayedConnection(Connection):
    """A connection without a network: what is published goes to `carry`, and is lost with the connection or before."""

    def __init__(self, url: str, carry: Callable[[str, bytes], None]) -> None:
        self.url = self.name = url
        self._carry = carry
        self.asked: list[str] = []
        self.open = True

    def start(self) -> None:
        """Nothing to start; the world says when it is connected."""

    def close(self, timeout_s: float = 0.0) -> None:
        """End it."""
        self.open = False

    def has_room(self) -> bool:
        """There is room: flow control is the real connection's."""
        return self.open

    def subscribe(self, topic_filter: str) -> None:
        """Note the first time."""
        if topic_filter not in self.asked:
            self.asked.append(topic_filter)

    def asked_as(self, message_id: int) -> str:
        """The first that was asked for has number 1."""
        return self.asked[message_id - 1]

    def publish(self, topic: str, payload: bytes) -> bool:
        """Hand over to the network."""
        if self.open:
            self._carry(topic, payload)
        return self.open


class Bridge:
    """The fold over everything that arrived, and the last nonce of each device."""

    def __init__(self) -> None:
        self.fold = PartitionFold(0, [0] * limits.SHARDS)
        self.accepted: dict[tuple[int, int], bytes] = {}
        self.closed: set[int] = set()
        self.appends = 0
        self._nonce: bytes | None = None
        self._known: set[int] = set()

    def restart(self) -> None:
        """The log stays; whom it served is forgotten."""
        self._nonce = None
        self._known = set()

    def take(self, topic: str, payload: bytes, now_ms: int) -> bytes | None:
        """A message from the device; the answer to a hello."""
        if "/hello/" in topic:
            hello = watermarks.decode_hello(payload)
            self._nonce = hello.nonce
            self._known |= {held.epoch for held in hello.epochs}
            for held in hello.epochs:
                mark = self.fold.watermark(DEVICE, held.epoch)
                assert held.first_seq <= mark + 1, "the device trimmed above the fold's watermark"
            return self.answer()
        if "/report/" in topic:
            return None
        header, _ = decode_header(payload)
        self.appends += 1
        verdict = self.fold.apply(self.appends, now_ms, header)
        self._known.add(header.epoch)
        if header.kind is Kind.CLOSE:
            self.closed.add(header.epoch)
        if verdict.outcome is Outcome.ACCEPTED:
            for seq in range(verdict.seq_first, verdict.seq_last + 1):
                assert (header.epoch, seq) not in self.accepted, "folded twice"
                self.accepted[header.epoch, seq] = payload
        return None

    def answer(self) -> bytes | None:
        """The watermarks as they are, when somebody has said hello."""
        if self._nonce is None:
            return None
        marks = tuple((epoch, self.fold.watermark(DEVICE, epoch)) for epoch in sorted(self._known)[-64:])
        return watermarks.encode(watermarks.make_watermarks(self._nonce, marks, 0))


class Device:
    """The real sender over a spool in `directory`; killed by forgetting it."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.directory = directory
        self.connection: PlayedConnection | None = None
        self.open()

    def open(self) -> None:
        """As the agent does at start."""
        world = self.world
        self.spool = Spool(
            self.directory, DEVICE, world.spool_settings, world.clock, random_32=lambda: world.random.getrandbits(32)
        )
        self.sender = Sender(
            self.spool,
            Uplink(UplinkSettings(unacked_bytes_max=8000), world.random, lambda: world.random.randbytes(8)),
            Reconnect(parse_endpoints("mqtt://a,mqtt://b"), "random", world.random),
            connect=self._connect,
            clock=world.clock,
            answer=lambda _token, _refused: None,
        )

    def _connect(self, url: str, deliver: Callable[[Event], None]) -> Connection:
        self.connection = PlayedConnection(url, self.world.carry_up)
        return self.connection

    def disconnect(self) -> None:
        """The network fails."""
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.open = False
            self.sender.turn([Disconnected(connection, "cut")])

    def kill(self) -> None:
        """What was committed is on disk; the rest is gone."""
        if self.connection is not None:
            self.connection.open = False
            self.connection = None
        self.spool.close()


class World:
    """See the module. All randomness is from `seed`."""

    def __init__(self, directory: Path, seed: int, settings: SpoolSettings, *, faults: float = 0.3) -> None:
        self.random = random.Random(seed)
        self.clock = ManualClock()
        self.spool_settings = settings
        self.faults = faults
        self.bridge = Bridge()
        self.up: list[tuple[str, bytes]] = []
        self.down: list[bytes] = []
        self._directory = directory
        self._copies = 0
        self._made = 0
        self.device = Device(self, directory / "device")
        self.others: list[Device] = []

    def carry_up(self, topic: str, payload: bytes) -> None:
        """Onto the network towards the bridge: perhaps lost, perhaps doubled."""
        if self.random.random() >= self.faults / 3:
            self.up.append((topic, payload))
            if self.random.random() < self.faults / 3:
                self.up.append((topic, payload))

    def _taken(self, waiting: list[tuple[str, bytes]] | list[bytes]) -> int:
        """Which of the waiting messages arrives next: the first, or with faults any."""
        return self.random.randrange(len(waiting)) if self.random.random() < self.faults else 0

    def step(self) -> None:
        """One thing happens."""
        device = self.random.choice([self.device, *self.others])
        action = self.random.choices(
            [self.append, self.turn, self.connect, self.arrive_up, self.arrive_down, self.flush, self.cut,
             self.restart_bridge, self.kill, self.copy, self.restore],
            [4, 6, 4, 14, 8, 3, self.faults, self.faults, self.faults, self.faults / 3, self.faults / 3],
        )[0]  # fmt: skip
        action(device)
        self.clock.advance(self.random.expovariate(10))
        self.check()

    def append(self, device: Device) -> None:
        """A function has rows, of some priority."""
        count = self.random.randrange(1, 4)
        things = []
        for _ in range(count):
            self._made += 1
            new = batch(float(self._made), priority=self.random.randrange(3), pad=self.random.randrange(0, 900))
            things.append(Submitted(None, new))
        device.sender.turn(things)

    def turn(self, device: Device) -> None:
        """Time for what is due."""
        device.sender.turn([])

    def connect(self, device: Device) -> None:
        """A connection that was begun succeeds."""
        if device.connection is not None and not device.sender.status.connected_url:
            device.sender.turn([Connected(device.connection)])

    def arrive_up(self, _device: Device) -> None:
        """Some messages reach the bridge."""
        for _ in range(min(len(self.up), self.random.randrange(1, 6))):
            topic, payload = self.up.pop(self._taken(self.up))
            answer = self.bridge.take(topic, payload, self.clock.time_us() // 1000)
            if answer is not None:
                self.down.append(answer)

    def arrive_down(self, _device: Device) -> None:
        """A watermark message reaches all that listen, which a clone does too; or it is lost, or comes again later."""
        if not self.down:
            return
        at = self._taken(self.down)
        payload = self.down[at] if self.random.random() < self.faults / 4 else self.down.pop(at)
        del self.down[:-50]
        if self.random.random() < self.faults / 3:
            return
        for device in [self.device, *self.others]:
            if device.connection is not None:
                device.sender.turn([Received(device.connection, payload)])

    def flush(self, _device: Device) -> None:
        """The bridge publishes its watermarks."""
        answer = self.bridge.answer()
        if answer is not None:
            self.down.append(answer)

    def cut(self, device: Device) -> None:
        """The connection ends; what was on its way may still arrive."""
        device.disconnect()

    def restart_bridge(self, _device: Device) -> None:
        """Another bridge reads the log."""
        self.bridge.restart()

    def kill(self, device: Device) -> None:
        """kill -9, and a start."""
        device.kill()
        device.open()

    def copy(self, device: Device) -> None:
        """Somebody makes an image of the device, as it is on disk (the log file included)."""
        self._copies += 1
        shutil.copytree(device.directory, self._directory / f"copy-{self._copies}")

    def restore(self, device: Device) -> None:
        """An image is started beside the original, as a clone, or in its place."""
        if not self._copies or len(self.others) >= 2:
            return
        source = self._directory / f"copy-{self.random.randrange(1, self._copies + 1)}"
        directory = self._directory / f"clone-{self.clock.time_us()}"
        shutil.copytree(source, directory)
        if self.random.random() < 0.5:
            self.others.append(Device(self, directory))
        else:
            device.kill()
            device.directory = directory
            device.open()

    def check(self) -> None:
        """Nothing is trimmed above the fold's watermark, and no seq of an epoch holds two different batches."""
        for device in [self.device, *self.others]:
            for epoch in device.spool.epochs():
                mark = self.bridge.fold.watermark(DEVICE, epoch.epoch)
                assert epoch.watermark <= mark, f"epoch {epoch} was trimmed above the fold's watermark {mark}"

    def finish(self, steps: int = 4000) -> None:
        """Without faults from here on: everything is drained, all old epochs are closed and forgotten."""
        self.faults = 0.0
        for _ in range(steps):
            device = self.random.choice([self.device, *self.others])
            for action in (self.turn, self.connect, self.arrive_up, self.flush, self.arrive_down):
                action(device)
            self.clock.advance(0.1)
            self.check()
            if not self.up and all(
                device.spool.drained and all(epoch.own for epoch in device.spool.epochs())
                for device in [self.device, *self.others]
            ):
                return
        raise AssertionError(
            f"not drained after {steps} steps: {[d.spool.epochs() for d in [self.device, *self.others]]}"
        )

    def ledgers(self) -> tuple[dict[tuple[int, int], bytes], set[tuple[int, int]]]:
        """Every batch that any spool ever accepted, by (epoch, seq), where two that differ are an error; and which of
        them are promised: a spool that an older image took the place of has lost its disk, which nobody promises."""
        found: dict[tuple[int, int], bytes] = {}
        promised = set()
        living = {device.directory for device in [self.device, *self.others]}
        for directory in sorted(self._directory.iterdir()):
            for message in read_ledger(directory):
                header, _ = decode_header(message)
                place = header.epoch, header.seq_first
                assert found.setdefault(place, message) == message, f"{place} was used for two batches"
                if directory in living:
                    promised.add(place)
        return found, promised

    def close(self) -> None:
        """Close the spools."""
        for device in [self.device, *self.others]:
            device.spool.close()
