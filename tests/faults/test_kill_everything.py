"""The first promise, with real processes: whatever is killed, each accepted row is in the lake exactly once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import lake
from tests.faults.chain import Chain, running_chain
from tests.kit.services import Services, embedded_services, real_services
from tests.kit.wait import until

KILLS = 24
DEVICES = [f"dev-{n:02}" for n in range(20)]


def _kill_at_seeded_moments(chain: Chain, generator: random.Random, kills: int) -> list[str]:
    """Kill parts at moments given by the traffic, each with rows accepted that are not yet durable; who was killed."""
    killed: list[str] = []
    kinds = ["mqtt", "log", "bridge", "worker", "agent"]
    while len(killed) < kills:
        # Each kind in turn, in a seeded order, so that no seed leaves one out; agents by lot.
        if len(killed) % len(kinds) == 0:
            generator.shuffle(kinds)
        kind = kinds[len(killed) % len(kinds)]
        name = generator.choice(DEVICES) if kind == "agent" else kind
        mark = chain.accepted_rows() + generator.randint(50, 4000)

        def in_flight(mark: int = mark) -> bool:
            chain.revive()
            chain.check_agents()
            return chain.accepted_rows() >= mark and chain.waiting_batches() > 0

        until(in_flight, 60, f"{mark} rows accepted and some in flight before kill {len(killed)} ({name})")
        chain.kill(name)
        killed.append(name)
    return killed


def _aggregates_that_differ(directory: Path) -> int:
    """Minutes whose folded aggregate is not what the raw rows of the same snapshot give."""
    result = (
        lake.open(directory)
        .snapshot()
        .query(
            "SELECT count(*) FROM (SELECT device, name, date_trunc('minute', ts) AS minute, count(*) AS n, "
            "min(value) AS low, max(value) AS high FROM readings GROUP BY ALL) AS raw "
            "FULL JOIN readings_1m AS folded USING (device, name, minute) "
            "WHERE raw.n IS DISTINCT FROM folded.count OR raw.low IS DISTINCT FROM folded.min "
            "OR raw.high IS DISTINCT FROM folded.max"
        )
    )
    return int(result.arrow().column(0)[0].as_py())


def _story(services: Services, directory: Path, kills: int, seed: int) -> None:
    generator = random.Random(seed)
    print(f"\n{services.kind}: seed {seed} (EDGEWATER_SEED={seed} repeats the order of kills)")
    with running_chain(services, directory, DEVICES) as chain:
        killed = _kill_at_seeded_moments(chain, generator, kills)
        chain.drain()
        comparison = chain.landed()
        assert comparison.equal, f"seed {seed}, killed {killed}: {comparison}"
        assert comparison.dropped == 0
        assert comparison.accepted > 100 * len(DEVICES), f"seed {seed}: only {comparison.accepted} rows"
        assert _aggregates_that_differ(chain.lake) == 0, f"seed {seed}, killed {killed}"
    counts = {kind: sum(name == kind for name in killed) for kind in ("mqtt", "log", "bridge", "worker")}
    print(
        f"{services.kind}: {len(killed)} kills {counts} and {len(killed) - sum(counts.values())} of agents; "
        f"{comparison.accepted} rows of {len(DEVICES)} devices accepted, {comparison.landed_once} landed once, "
        f"{comparison.missing} missing, {comparison.doubled} doubled, {comparison.foreign} foreign"
    )


@pytest.mark.timeout(420)
def test_twenty_devices_and_every_part_killed_on_embedded_services(tmp_path: Path, seed: int) -> None:
    """20 devices, 24 kills with traffic in flight, embedded broker and log: the lake equals the ledgers."""
    with embedded_services(tmp_path) as services:
        _story(services, tmp_path, KILLS, seed)


@pytest.mark.real
@pytest.mark.timeout(600)
def test_twenty_devices_and_every_part_killed_on_mosquitto_and_kafka(tmp_path: Path, seed: int) -> None:
    """The same with Mosquitto and Apache Kafka."""
    with real_services(tmp_path) as services:
        _story(services, tmp_path, KILLS, seed)
