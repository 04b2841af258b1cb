"""The examples of function files do what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent import FunctionKit
from edge_agent.functions_cli import checked_stem

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_boiler_measures_and_raises_alarms() -> None:
    """Two readings a second; each temperature over the limit is an alarm with columns of its own."""
    kit = FunctionKit(EXAMPLES / "boiler.py")
    kit.advance(9)
    readings = kit.rows("readings")
    assert [row["name"] for row in readings] == ["temperature", "pressure"] * 10
    hot = [row["value"] for row in readings if row["name"] == "temperature" and row["value"] > 80]
    assert [(row["sensor"], row["value"], row["text"]) for row in kit.rows("alarms")] == [
        ("temperature", value, "above 80 °C") for value in hot
    ]


def test_the_windows_become_events_and_a_count() -> None:
    """A message is a row of `windows`; the second function reads it and counts."""
    with FunctionKit(EXAMPLES / "window.py") as kit:
        for room, is_open in (("kitchen", True), ("attic", True), ("kitchen", False)):
            kit.publish(f"house/{room}/window", {"open": is_open})
            kit.advance(1)
        assert [(row["room"], row["open"]) for row in kit.rows("windows")] == [
            ("kitchen", True), ("attic", True), ("kitchen", False),
        ]  # fmt: skip
        assert [row["value"] for row in kit.rows("readings")] == [1.0, 2.0, 1.0]
        with pytest.raises(KeyError):
            kit.publish("house/attic/window", {"shut": True})


@pytest.mark.parametrize("name", ["boiler", "window"])
def test_their_names_are_good_ones(name: str) -> None:
    """An example is called as a user's file may be called."""
    assert checked_stem(name) == name
