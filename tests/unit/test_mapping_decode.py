"""What messages of foreign devices become: Zigbee2MQTT, Tasmota, plain numbers, and what nobody can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.contract.errors import DecodeError
from stream_jobs.mapping.declared import read_mappings
from stream_jobs.mapping.decode import Decoder, Item

RECEIVED_US = 1_790_000_000_000_000


def decoder(text: str, payload_bytes_max: int = 65536) -> Decoder:
    """Of the one mapping whose table has these lines."""
    return Decoder(read_mappings(Path("m.toml"), f'[[mappings]]\nname = "m"\n{text}')[0], payload_bytes_max)


def decode(text: str, topic: str, payload: bytes) -> list[Item]:
    """The items of one message under the mapping `text`."""
    return decoder(text).decode(topic, payload, RECEIVED_US)


def reason(text: str, topic: str, payload: bytes) -> str:
    """Why the message becomes no rows."""
    with pytest.raises(DecodeError) as caught:
        decode(text, topic, payload)
    return str(caught.value)


ZIGBEE = 'preset = "zigbee2mqtt"'
TASMOTA = 'preset = "tasmota"'
NUMBER = 'preset = "number"'
ANY = 'topic = "plant/+/state"\ndevice = "{1}"\n'
SENSOR = {
    "temperature": 21.5, "humidity": 40, "battery": 97, "linkquality": 120, "contact": True, "action": "single",
    "last_seen": "2026-01-02T03:04:05+01:00", "update_available": False, "voltage": None,
    "update": {"installed_version": 16777241, "latest_version": 16777241, "state": "idle"},
}  # fmt: skip
LIGHT = {
    "state": "ON",
    "brightness": 215,
    "color": {"x": 0.46, "y": 0.41},
    "color_mode": "xy",
    "last_seen": 1767319445123,
}
PLUG = {
    "Time": "2026-01-01T00:00:00", "DS18B20": {"Id": "01131B123456", "Temperature": 20.6}, "TempUnit": "C",
    "ENERGY": {"TotalStartTime": "2024-11-23T15:33:47", "Total": 0.017, "TotalTariff": [0.0, 0.017], "Power": 26},
}  # fmt: skip
STATE = {
    "Time": "2026-01-01T00:00:00", "Uptime": "0T13:20:12", "UptimeSec": 48012, "POWER": "ON",
    "SleepMode": "Dynamic", "Wifi": {"AP": 1, "SSId": "home", "RSSI": 64},
}  # fmt: skip


def test_a_zigbee_sensor_becomes_its_numbers_and_booleans() -> None:
    """Numbers and booleans are readings at `last_seen`; texts and what `update` says are none."""
    (item,) = decode(ZIGBEE, "zigbee2mqtt/kitchen door", json.dumps(SENSOR).encode())
    assert item.readings == {"temperature": 21.5, "humidity": 40, "battery": 97, "linkquality": 120, "contact": 1}
    assert (item.device, item.time_us, item.time_received) == ("kitchen-door", 1_767_319_445_000_000, False)


def test_a_zigbee_light_has_its_state_and_nested_names() -> None:
    """ON is 1, nested names are joined by a dot, last_seen may be milliseconds, a friendly name may have slashes."""
    (item,) = decode(ZIGBEE, "zigbee2mqtt/kitchen/lamp", json.dumps(LIGHT).encode())
    assert item.readings == {"state": 1, "brightness": 215, "color.x": 0.46, "color.y": 0.41}
    assert (item.device, item.time_us) == ("kitchen-lamp", 1_767_319_445_123_000)


@pytest.mark.parametrize("payload", [b"offline", b'{"state":"offline"}'])
def test_zigbee_availability_is_a_reading_of_the_device(payload: bytes) -> None:
    """Both forms, bare and JSON, become the reading `availability` of the device, not of one more device."""
    (item,) = decode(ZIGBEE, "zigbee2mqtt/kitchen/lamp/availability", payload)
    assert (item.device, item.readings) == ("kitchen-lamp", {"availability": 0.0})


@pytest.mark.parametrize("topic", ["bridge/state", "bridge/devices", "bridge/request/x/y", "lamp/set", "a/b/get/state"])
def test_zigbee_topics_that_are_no_device_are_passed_over(topic: str) -> None:
    """What the bridge says of itself, and commands, are neither rows nor dead letters, whatever they hold."""
    assert decode(ZIGBEE, f"zigbee2mqtt/{topic}", b"\xff") == []


def test_zigbee_under_another_base_topic_needs_its_topic_only() -> None:
    """The filter may name another base topic, also of two levels with a device of its own."""
    text = f'{ZIGBEE}\ntopic = "home/z/#"\ndevice = "{{2:}}"'
    assert decode(text, "home/z/a/b", b'{"x":1}')[0].device == "a-b"
    assert decode(text, "home/z/a/b/availability", b"online")[0].device == "a-b"


def test_a_tasmota_sensor_keeps_its_nested_names() -> None:
    """Sensors are prefixed by their name, arrays of numbers numbered, and Time is in the mapping's zone."""
    (item,) = decode(f'{TASMOTA}\ntimezone = "Europe/Vienna"', "tele/plug/SENSOR", json.dumps(PLUG).encode())
    assert item.readings == {
        "DS18B20.Temperature": 20.6, "ENERGY.Total": 0.017, "ENERGY.TotalTariff.0": 0, "ENERGY.TotalTariff.1": 0.017,
        "ENERGY.Power": 26,
    }  # fmt: skip
    assert (item.device, item.time_us) == ("plug", 1_767_222_000_000_000)


def test_a_tasmota_state_and_its_last_will() -> None:
    """POWER ON is 1, the last will is online or not; what else Tasmota tells about itself is passed over."""
    (item,) = decode(TASMOTA, "tele/plug/STATE", json.dumps(STATE).encode())
    assert item.readings == {"UptimeSec": 48012, "POWER": 1, "Wifi.AP": 1, "Wifi.RSSI": 64}
    assert decode(TASMOTA, "tele/plug/LWT", b"Online")[0].readings == {"LWT": 1}
    assert decode(TASMOTA, "tele/plug/INFO1", b'{"Info1":{"Version":"14.2.0(tasmota)"}}') == []


def test_a_tasmota_clock_that_was_not_set_gives_the_time_of_receipt() -> None:
    """1970 is no time; the row says that its time is that of receipt."""
    (item,) = decode(TASMOTA, "tele/plug/SENSOR", b'{"Time":"1970-01-01T00:33:28","A":{"B":1}}')
    assert (item.time_us, item.time_received) == (RECEIVED_US, True)


@pytest.mark.parametrize(
    ("payload", "value"),
    [(b"21.5", 21.5), (b" 21.5\n", 21.5), (b"-3", -3), (b"true", 1), (b"OFF", 0), (b'"ON"', 1), (b'"7.25"', 7.25)],
)
def test_a_plain_value_is_one_reading(payload: bytes, value: float) -> None:
    """A number, boolean or known text, named after the topic's last level."""
    (item,) = decode(NUMBER, "sensors/attic/temperature", payload)
    assert (item.device, item.readings) == ("attic", {"temperature": value})


def test_an_array_of_objects_is_several_rows_and_one_of_numbers_is_numbered() -> None:
    """Each object has its own device and time; numbers are name.0, name.1."""
    text = 'topic = "gateway"\ndevice = "{field:id}"\ntime = "at"\nignore = ["id"]'
    payload = b'[{"id":"a","at":1767319445,"x":1},{"id":17,"x":2}]'
    assert [(i.device, i.readings, i.time_received) for i in decode(text, "gateway", payload)] == [
        ("a", {"x": 1}, False), ("17", {"x": 2}, True)
    ]  # fmt: skip
    assert decode(NUMBER, "sensors/a/v", b"[1,2.5]")[0].readings == {"v.0": 1, "v.1": 2.5}
    assert decode(NUMBER, "sensors/a/v", b"[]") == []


def test_listed_fields_are_read_strictly() -> None:
    """With `fields` only those count; text must be a number or a value there, and an absent field is no error."""
    text = f'{ANY}fields = ["a", "b.c", "missing"]\nvalues = {{ running = 1 }}\nnames = {{ a = "speed" }}'
    assert decode(text, "plant/p/state", b'{"a":"12.5","b":{"c":"running"},"z":1}')[0].readings == {
        "speed": 12.5, "b.c": 1
    }  # fmt: skip
    assert "'a' is 'fast'" in reason(text, "plant/p/state", b'{"a":"fast"}')


def test_rows_of_another_stream_keep_their_types_exactly() -> None:
    """Integers beyond 2^53, text, objects as JSON, booleans and times; an absent field is null."""
    text = (
        f'{ANY}stream = "events"\n[mappings.columns]\ncounter = "int64"\nwhat = {{ type = "string", field = "a.b" }}\n'
        'all = { type = "string", field = "a" }\nok = "bool"\nwhen = "timestamp"\nlevel = "float64"\ngone = "int64"\n'
    )
    payload = b'{"counter":9007199254740993,"a":{"b":"x"},"ok":true,"when":"2026-01-02T03:04:05.000006Z","level":3}'
    (item,) = decode(text, "plant/p/state", payload)
    assert item.row == (9007199254740993, "x", '{"b":"x"}', True, 1_767_323_045_000_006, 3.0, None)
    assert decode(text, "plant/p/state", b'{"other":1}') == []
    assert "no int64" in reason(text, "plant/p/state", b'{"counter":9223372036854775808}')
    assert "no int64" in reason(text, "plant/p/state", b'{"counter":1.5}')
    assert "no timestamp" in reason(text, "plant/p/state", b'{"when":"soon"}')
    assert "lone surrogate" in reason(text, "plant/p/state", b'{"a":{"b":"\\ud800"}}')


@pytest.mark.parametrize(
    ("payload", "word"),
    [
        (b"", "empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"hello", "neither JSON"),
        (b'{"a":1', "neither JSON"),
        (b'{"a":NaN}', "NaN is not a number"),
        (b'{"a":-Infinity}', "-Infinity is not a number"),
        (b'{"a":1e999}', "beyond what float64"),
        (b'{"a":1,"a":2}', "'a' is there twice"),
        (b'{"a":9007199254740993}', "cannot hold exactly"),
        (b'{"a":' + b"9" * 400 + b"}", "cannot hold exactly"),
        (b'{"a":' + b"9" * 5000 + b"}", "neither JSON"),
        (b"[" * 50_000, "nested deeper"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "nested deeper"),
        (b'{"a.b":1,"a":{"b":2}}', "two fields"),
        (b'{"' + b"n" * 129 + b'":1}', "name of 129 bytes"),
        (b'{"\\ud800":1}', "not UTF-8 text"),
        (b"[" + b",".join([b"1"] * 1001) + b"]", "more than 1000 readings"),
        (b"[" + b",".join([b"{}"] * 1001) + b"]", "array of 1001 objects"),
        (b'"' + b"x" * 70_000 + b'"', "payload of 70002 bytes"),
        (b'"running"', "among the mapping's values"),
    ],
)
def test_what_cannot_be_read_has_its_reason(payload: bytes, word: str) -> None:
    """Damaged, ambiguous, inexact, oversized: each is refused with what is wrong."""
    assert word in reason(ANY, "plant/p/state", payload)


def test_a_device_that_cannot_be_named_has_its_reason() -> None:
    """A topic without the level, a payload without the field, an empty name; odd characters become a dash."""
    assert "has 3 levels" in reason('topic = "plant/#"\ndevice = "{3}"', "plant/p/state", b"1")
    assert "field id is None" in reason('topic = "plant/#"\ndevice = "{field:id}"', "plant/p", b'{"x":1}')
    assert "name is empty" in reason('topic = "plant/#"\ndevice = "{1}"', "plant//state", b"1")
    assert decode('topic = "plant/#"\ndevice = "{1}"', "plant/Küche €/x", b"1")[0].device == "K-che--"
    assert decode('topic = "plant/#"\ndevice = "{1}"', "plant/../x", b"1")[0].device == "--"
    assert decode('topic = "plant/#"\ndevice = "{1}"', f"plant/{'d' * 200}/x", b"1")[0].device == "d" * 128


@pytest.mark.parametrize("payload", [b"null", b"{}", b'{"a":null,"b":"text","c":[]}'])
def test_a_message_in_which_nothing_is_mapped_becomes_nothing(payload: bytes) -> None:
    """That is no error."""
    assert decode(ANY, "plant/p/state", payload) == []
