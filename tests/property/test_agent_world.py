"""Sender, spool and uplink against the fold, with seeded faults in the network and at both ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract import wire
from edge_agent.contract.wire import Kind
from edge_agent.spool import SpoolSettings
from edge_agent.uplink import Uplink
from tests.kit.uplink_world import World

SEEDS = 12
STEPS = 250


@pytest.mark.parametrize("round_", range(SEEDS))
def test_everything_accepted_is_folded_exactly_once(tmp_path: Path, seed: int, round_: int) -> None:
    """Whatever is lost, doubled, reordered, cut, killed, copied or restored: what a spool accepted is folded once, as
    it was accepted, and nothing is trimmed before."""
    world = World(tmp_path, seed + round_, SpoolSettings(ledger=True, compress=False))
    for _ in range(STEPS):
        world.step()
    world.finish()
    ledger, promised = world.ledgers()
    world.close()
    assert promised <= set(world.bridge.accepted)
    assert world.bridge.accepted == {place: ledger[place] for place in world.bridge.accepted}


@pytest.mark.parametrize("round_", range(SEEDS // 2))
@pytest.mark.parametrize("policy", ["drop-oldest", "drop-lowest-priority"])
def test_an_overflowing_spool_tells_what_it_dropped(tmp_path: Path, seed: int, policy: str, round_: int) -> None:
    """With a spool that is far too small: each accepted batch is folded as it was, or covered by a skip record once."""
    settings = SpoolSettings(bytes_max=16_000, policy=policy, ledger=True, compress=False)
    world = World(tmp_path, seed + round_, settings)
    for _ in range(STEPS):
        world.step()
    world.finish()
    ledger, promised = world.ledgers()
    world.close()
    folded = world.bridge.accepted
    assert promised <= set(folded) <= set(ledger)
    for place, message in folded.items():
        header = wire.message_header(message)
        if header.kind is Kind.BATCH:
            assert message == ledger[place]
        else:
            listed = {item.seq: item.rows for item in wire.decode_skipped(*wire.decode_header(message))}
            assert not listed or listed[place[1]] == wire.message_header(ledger[place]).rows


def _trim_what_was_sent(uplink: Uplink, epoch: Any, watermark: int, now_s: float) -> bool:
    return _TOLD(uplink, epoch, max(watermark, epoch.position - 1), now_s)


def _any_watermark_is_progress(uplink: Uplink, epoch: Any, watermark: int, now_s: float) -> bool:
    moved = _TOLD(uplink, epoch, watermark, now_s)
    uplink._arm(epoch, now_s)
    return moved


_TOLD = Uplink._told


@pytest.mark.parametrize("broken", [_trim_what_was_sent, _any_watermark_is_progress])
def test_the_world_finds_a_broken_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Any) -> None:
    """Trimming on anything but a watermark, or a stall timer that any message resets, fails within a few seeds."""
    monkeypatch.setattr(Uplink, "_told", broken)

    def fails(seed: int) -> bool:
        world = World(tmp_path / str(seed), seed, SpoolSettings(ledger=True, compress=False), faults=0.6)
        try:
            for _ in range(STEPS):
                world.step()
            world.finish(500)
        except AssertionError:
            return True
        finally:
            world.close()
        return False

    assert any(fails(seed) for seed in range(10))
