"""The watermark protocol under faults: real bridges in a seeded world (tests/kit/bridge_model.py)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import StopError
from stream_jobs.bridge.log_side import LogSide
from stream_jobs.bridge.partition import PartitionBridge
from stream_jobs.bridge.service import BridgeService
from tests.kit.bridge_model import ViolationError, World

pytestmark = pytest.mark.timeout(300)

STEPS = 500


def _run(seed: int, bridges: int, steps: int = STEPS, **parts: Any) -> World:
    world = World(seed, bridges=bridges, **parts)
    try:
        for _ in range(steps):
            world.step()
        world.settle()
        world.check_end()
    finally:
        world.close()
    return world


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), bridges=st.integers(1, 3))
def test_everything_accepted_is_folded_once_and_nothing_is_trimmed_early(seed: int, bridges: int) -> None:
    """Whatever is lost, doubled, reordered, killed, paused, late or deleted, for one, two and three bridges."""
    _run(seed, bridges)


def test_the_world_has_faults_in_it() -> None:
    """No fair weather: gaps, duplicates, failures, read-backs, reloads, checkpoints and lost records all happen."""
    seen: dict[str, int] = {}
    for seed in range(12):
        world = World(seed)
        totals: list[Any] = []
        start = world.start

        def started(index: int, start: Any = start, world: World = world, totals: list[Any] = totals) -> None:
            start(index)
            bridge = world.bridges[index]
            assert bridge is not None
            totals.append(bridge._tally)

        world.start = started  # type: ignore[method-assign]
        for _ in range(STEPS):
            world.step()
        world.settle()
        world.close()
        for tally in totals:
            for name, value in tally.fields().items():
                if isinstance(value, int):
                    seen[name] = seen.get(name, 0) + value
    for name in ("gaps", "duplicates", "failed_appends", "read_back", "reloads", "checkpoints", "lost_records"):
        assert seen[name] > 0, (name, seen)
    assert seen["dead_letters"] > 0


def _violated(seeds: int = 60) -> int | None:
    """The first seed that finds the broken rule, or None."""
    for seed in range(seeds):
        try:
            _run(seed, 2)
        except (ViolationError, ValueError, IndexError, StopError):
            return seed
    return None


def test_a_gap_in_offsets_that_is_not_read_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has teeth: without reading back, a bridge folds something else than the log holds."""

    def settle(self: PartitionBridge, ticket: Any, offset: int, append_time_ms: int) -> None:
        if offset >= self.fold.next_offset:
            self._fold(offset, append_time_ms, ticket.header)
        self._release(ticket, counted=True)

    monkeypatch.setattr(PartitionBridge, "read_to", lambda *_: None)
    monkeypatch.setattr(PartitionBridge, "settle", settle)
    assert _violated() is not None


def test_a_deleted_gap_that_is_passed_over_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has teeth: going on at the log's start instead of reloading the checkpoint is seen."""

    def read_back(self: Any, partition: int, bridge: PartitionBridge, until: int) -> None:
        start, end = self._client.offsets("edgewater.batches", partition)
        stop = end if until < 0 else until
        for record in self._client.read("edgewater.batches", partition, max(start, bridge.fold.next_offset), stop):
            from stream_jobs.bridge.restore import header_of

            bridge.fold_read(record.offset, record.append_time_ms, header_of(record.value)[0])

    monkeypatch.setattr(LogSide, "_read_back", read_back)
    assert _violated() is not None


def test_watermarks_of_what_is_only_under_way_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has teeth: answering the predicted position instead of the confirmed one loses batches."""

    def watermark(self: BridgeService, device: str, epoch: int) -> int | None:
        bridge = self._log_side.bridge(0)
        if bridge is None:
            return None
        ahead = bridge._ahead.get((device, epoch))
        return bridge.watermark(device, epoch) if ahead is None else ahead.position

    monkeypatch.setattr(BridgeService, "_watermark", watermark)
    assert _violated() is not None


def test_an_answer_without_an_offset_that_is_trusted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has teeth: taking such an answer for the next offset is seen."""
    read_to, settle = PartitionBridge.read_to, PartitionBridge.settle

    def trusting(self: PartitionBridge, offset: int, append_time_ms: int) -> int | None:
        return None if offset < 0 else read_to(self, offset, append_time_ms)

    def settled(self: PartitionBridge, ticket: Any, offset: int, append_time_ms: int) -> None:
        settle(self, ticket, self.fold.next_offset if offset < 0 else offset, append_time_ms)

    monkeypatch.setattr(PartitionBridge, "read_to", trusting)
    monkeypatch.setattr(PartitionBridge, "settle", settled)
    assert _violated() is not None


def test_a_checkpoint_that_is_the_last_written_instead_of_the_highest_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model has teeth: with the older one kept, records that only the newer covered are missing."""

    def last(kept: Any, topic_id: str, offset_max: int) -> Any:
        return max((k for k in kept if k.checkpoint.offset <= offset_max), key=lambda k: k.position, default=None)

    monkeypatch.setattr("stream_jobs.bridge.log_side.highest", last)
    monkeypatch.setattr("stream_jobs.bridge.restore.highest", last)
    assert _violated(400) is not None
