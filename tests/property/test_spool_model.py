"""Random operations on a spool, held against a model: every accepted seq is readable, trimmed at or below a watermark,
or in a skip record, exactly once."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from edge_agent.contract import wire
from edge_agent.contract.clock import ManualClock
from edge_agent.contract.wire import Kind
from edge_agent.spool import POLICIES, Place, Spool, SpoolSettings
from edge_agent.spool_file import FILE_NAME
from tests.kit.spooled import DEVICE, batch, value_of

ROUNDS = 8
OPERATIONS = 120
BYTES_MAX = 20_000


class Model:
    """What a spool must hold, and the operations that keep both in step."""

    def __init__(self, directory: Path, seed: int, policy: str) -> None:
        self.random = random.Random(seed)
        self.root = directory
        self.directory = directory / "0"
        self.settings = SpoolSettings(bytes_max=BYTES_MAX, policy=policy, compress=False)
        self.clock = ManualClock()
        self.accepted: dict[tuple[int, int], float] = {}
        self.watermarks: dict[int, int] = {}
        self.damaged: set[tuple[int, int]] = set()
        self.copies = 0
        self.spool = self.opened()

    def opened(self) -> Spool:
        return Spool(self.directory, DEVICE, self.settings, self.clock, random_32=lambda: self.random.getrandbits(32))

    def step(self) -> None:
        operation = self.random.choices(
            [self.append, self.trim, self.reopen, self.kill, self.damage, self.forget], [10, 5, 1, 1, 1, 1]
        )[0]
        operation()
        assert self.spool.bytes <= BYTES_MAX

    def append(self) -> None:
        news = [
            batch(self.random.random(), priority=self.random.randrange(4), pad=self.random.randrange(2000))
            for _ in range(self.random.randrange(1, 6))
        ]
        for new, answer in zip(news, self.spool.append(news), strict=True):
            if isinstance(answer, Place):
                place = answer.epoch, answer.seq
                assert place not in self.accepted
                self.accepted[place] = _value(new.body)

    def trim(self) -> None:
        epochs = self.spool.epochs()
        if epochs:
            epoch = self.random.choice(epochs)
            watermark = self.random.randint(0, epoch.last_seq + 1)
            while self.spool.trim(epoch.epoch, watermark):
                pass
            known = self.watermarks.get(epoch.epoch, 0)
            self.watermarks[epoch.epoch] = max(known, min(watermark, epoch.last_seq))

    def reopen(self) -> None:
        self.spool.close()
        self.spool = self.opened()

    def kill(self) -> None:
        """As kill -9 leaves it: the files as they are while the spool is open, its log file not yet folded in."""
        self.copies += 1
        directory = self.root / str(self.copies)
        shutil.copytree(self.directory, directory)
        self.spool.close()
        self.directory = directory
        self.spool = self.opened()

    def damage(self) -> None:
        """A bit of one message flips on the disk."""
        self.spool.close()
        database = sqlite3.connect(self.directory / FILE_NAME)
        rows = database.execute("SELECT id, epoch, seq_first, seq_last, message FROM messages").fetchall()
        if rows:
            row, epoch, first, last, message = self.random.choice(rows)
            changed = bytearray(message)
            changed[self.random.randrange(len(changed))] ^= 1 << self.random.randrange(8)
            database.execute("UPDATE messages SET message = ? WHERE id = ?", (bytes(changed), row))
            database.commit()
            self.damaged |= {(epoch, seq) for seq in range(first, last + 1)}
        database.close()
        self.spool = self.opened()

    def forget(self) -> None:
        for epoch in self.spool.epochs():
            if not epoch.own and epoch.watermark >= epoch.last_seq:
                self.spool.forget(epoch.epoch)

    def check(self) -> None:
        """Every accepted seq has one fate; and the order is whole, without a gap or an overlap."""
        left = dict(self.accepted)
        for epoch in self.spool.epochs():
            known = self.watermarks.get(epoch.epoch, 0)
            assert epoch.watermark == known
            expected = known + 1
            for held in self.spool.read(epoch.epoch, 1, 1 << 30, 100_000):
                assert held.seq_first <= expected <= held.seq_last
                for seq in range(expected, held.seq_last + 1):
                    value = left.pop((epoch.epoch, seq))
                    self.check_message((epoch.epoch, seq), value, held.message)
                expected = held.seq_last + 1
            assert expected == epoch.last_seq + 1
        for epoch_number, seq in left:
            assert seq <= self.watermarks.get(epoch_number, 0), f"seq {seq} of epoch {epoch_number} is gone"

    def check_message(self, place: tuple[int, int], value: float, message: bytes) -> None:
        header, body = wire.decode_header(message)
        if header.kind is Kind.BATCH:
            assert place not in self.damaged
            assert value_of(message) == value
        else:
            assert header.reason is wire.Reason.DROPPED or place in self.damaged
            for item in wire.decode_skipped(header, body):
                assert (item.stream, item.rows) == ("readings", 1)


def _value(body: bytes) -> float:
    message = wire.encode_batch(body, device=DEVICE, epoch=1, seq=1, rows=1, stream="readings", compress=False)
    return value_of(message)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_every_seq_has_exactly_one_fate(tmp_path: Path, seed: int, policy: str, round_: int) -> None:
    """Appending, trimming, overflowing, damage, kills and restarts in any order lose no seq and answer none twice."""
    model = Model(tmp_path, seed + round_, policy)
    for number in range(OPERATIONS):
        model.step()
        if number % 10 == 0:
            model.check()
    model.check()
    model.spool.close()
