"""Ready mappings for what many households have: Zigbee2MQTT, Tasmota, and plain numbers.

**Delivery** and **Bounds**: as any mapping.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .rules import Rule
from .topics import Template

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, slots=True)
class Preset:
    """`rules(device)` makes its rules; `device` is the template that the user gave, or "" for the preset's own."""

    help: str
    topic: str
    device: str
    rules: Callable[[str], tuple[Rule, ...]]
    ignore_topics: tuple[str, ...] = ()


_SWITCH = {"ON": 1.0, "OFF": 0.0}
_THERE = {"online": 1.0, "offline": 0.0, "Online": 1.0, "Offline": 0.0}


def _zigbee2mqtt(device: str) -> tuple[Rule, ...]:
    return (
        # Since version 2 {"state":"online"}, before it the bare word; `availability` is no part of the device's name.
        Rule(
            topic="+/+/#/availability",
            device=Template((device or "{1:}").replace(":}", ":-1}")),
            values=_THERE,
            names={"state": "availability"},
        ),
        Rule(
            topic="#",
            device=Template(device or "{1:}"),
            time="last_seen",
            ignore=("update", "update_available", "device", "elapsed"),
            values={**_SWITCH, "LOCK": 1.0, "UNLOCK": 0.0, "OPEN": 1.0, "CLOSE": 0.0},
        ),
    )


def _tasmota(device: str) -> tuple[Rule, ...]:
    name = Template(device or "{1}")
    return (
        Rule(topic="+/+/LWT", device=name, values=_THERE),
        *(Rule(topic=f"+/+/{kind}", device=name, time="Time", values=_SWITCH) for kind in ("SENSOR", "STATE")),
    )


def _number(device: str) -> tuple[Rule, ...]:
    return (Rule(topic="#", device=Template(device or "{1}"), values=_SWITCH),)


PRESETS = {
    "number": Preset("sensors/DEVICE/NAME with a plain number, true, false, ON or OFF", "sensors/+/+", "{1}", _number),
    "tasmota": Preset("tele/DEVICE/SENSOR, STATE and LWT of Tasmota", "tele/#", "{1}", _tasmota),
    "zigbee2mqtt": Preset(
        "zigbee2mqtt/FRIENDLY_NAME (with slashes too) and its availability",
        "zigbee2mqtt/#",
        "{1:}",
        _zigbee2mqtt,
        ("+/bridge/#", "#/set", "#/set/+", "#/get", "#/get/+"),
    ),
}
