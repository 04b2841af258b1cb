"""The files that `edgewater functions new` writes: functions to begin with, and their test.

**Delivery**: pure text; tests run both files as they are written. **Bounds**: a name that `checked_stem` let through.
"""

from __future__ import annotations

__all__ = ["function_file", "test_file"]

_FUNCTIONS = '''"""Functions of this device. Check them:  edgewater functions check NAME.py
Run them:  edgewater agent run NAME.py --device my-device --mqtt mqtt://127.0.0.1:1883
"""

from edge_agent import every, on_topic


# Called every 10 seconds. A mapping is readings: name -> number. A number alone is a reading named as the function.
@every(10)
def NAME():
    temperature = 21.5  # read your sensor here
    return {"temperature": temperature}


# Called with each MQTT message on a topic; + stands for one level, # for all that follow.
# message.topic is text, message.payload bytes, message.text() text, message.json() what JSON says.
@on_topic("sensors/+/temperature")
def NAME_sensors(message):
    place = message.topic.split("/")[1]
    return {f"{place}_temperature": float(message.text())}


# Rows with columns of their own go to a stream, and so a table, of their own. A row is a mapping (or a dataclass):
# numbers, text, True and False, None, datetimes with a time zone. Return one, a list of them, or None for nothing.
@on_topic("doors/#", stream="NAME_events")
def NAME_doors(message):
    door = message.json()
    return {"door": message.topic, "open": door["open"], "user": door.get("user")}
'''

_TEST = '''"""Test of NAME.py:  python -m pytest test_NAME.py"""

from pathlib import Path

import pytest

from edge_agent import FunctionKit


@pytest.fixture
def kit():
    """The functions of NAME.py, without any service; the test moves the time."""
    with FunctionKit(Path(__file__).with_name("NAME.py")) as made:
        yield made


def test_the_timer_is_called_every_10_seconds(kit):
    kit.advance(25)  # calls at 0, 10 and 20 s
    rows = kit.rows("readings")
    assert [(row["name"], row["value"]) for row in rows] == [("temperature", 21.5)] * 3


def test_a_message_becomes_a_reading(kit):
    kit.publish("sensors/kitchen/temperature", "19.5")
    assert [(row["name"], row["value"]) for row in kit.rows()] == [("kitchen_temperature", 19.5)]


def test_a_door_becomes_a_row(kit):
    kit.publish("doors/front", {"open": True, "user": "Ada"})
    (row,) = kit.rows("NAME_events")
    assert (row["door"], row["open"], row["user"]) == ("doors/front", True, "Ada")


def test_nonsense_is_an_error(kit):
    with pytest.raises(ValueError, match="could not convert"):
        kit.publish("sensors/kitchen/temperature", "warm")
'''


def function_file(name: str) -> str:
    """The text of `name`.py."""
    return _FUNCTIONS.replace("NAME", name)


def test_file(name: str) -> str:
    """The text of test_`name`.py."""
    return _TEST.replace("NAME", name)
