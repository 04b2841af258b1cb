"""The example job, tested as its author would."""

from __future__ import annotations

from stream_jobs.testing import JobKit
from tests.house.sources import ROOT

JOB = ROOT / "examples" / "alerts_job.py"


def test_readings_above_their_limit_are_alerts() -> None:
    """With the limit beside them; other names, null and NaN are none."""
    values = {"temperature": [89.9, 90.1, None, float("nan")], "pressure": [3.0], "humidity": [1000.0]}
    rows = [{"name": name, "value": value} for name, found in values.items() for value in found]
    kit = JobKit(JOB)
    kit.feed("readings", rows)
    assert kit.dead_letters == []
    found = kit.tables["alerts"].select(["name", "value", "limit"]).to_pylist()
    assert found == [
        {"name": "temperature", "value": 90.1, "limit": 90.0}, {"name": "pressure", "value": 3.0, "limit": 2.5},
    ]  # fmt: skip
    kit.assert_any_cut("readings", rows)


def test_doors_feed_two_tables() -> None:
    """Doors that tell their battery and doors that do not."""
    kit = JobKit(JOB)
    kit.feed("doors", [{"door": "front", "open": True}, {"door": "back", "open": False}])
    kit.feed("doors", [{"door": "shed", "open": True, "battery": 61}])
    assert kit.tables["door_openings"]["door"].to_pylist() == ["front", "shed"]
    assert kit.tables["door_battery"].select(["door", "battery"]).to_pylist() == [{"door": "shed", "battery": 61}]
