"""Any message gives rows or a reason, and rows always fit a batch that the lake's side decodes to the same values."""

from __future__ import annotations

import json
import math
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.errors import DecodeError
from edge_agent.contract.wire import decode_columns, decode_header
from stream_jobs.arrow_columns import Batch, arrow_table
from stream_jobs.mapping.acknowledgements import Taken
from stream_jobs.mapping.collector import Collector, Numbers
from stream_jobs.mapping.declared import read_mappings
from stream_jobs.mapping.decode import READINGS_MAX, Decoder, Item

MAPPINGS = read_mappings(
    Path("m.toml"),
    """
[[mappings]]
name = "zigbee"
preset = "zigbee2mqtt"
[[mappings]]
name = "tasmota"
preset = "tasmota"
[[mappings]]
name = "any"
topic = "#"
device = "{0}{field:id}"
time = "t"
fields = ["a", "b", "x.y"]
[[mappings]]
name = "plain"
topic = "#"
device = "{-1}"
values = { ON = 1 }
[[mappings]]
name = "rows"
topic = "#"
device = "d"
time = "t"
stream = "events"
columns = { a = "string", b = "int64", t = "timestamp", x = "float64", ok = { type = "bool", field = "a" } }
""",
)
NAMES = st.sampled_from(["a", "b", "x", "y", "t", "id", "state", "Time", "last_seen", "", "ü", "\ud800", "x.y"])
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(["ON", "12", "\ud800"]),
    st.just("2026-01-02T03:04:05"), st.integers(10**9, 10**19),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inside: st.lists(inside, max_size=4) | st.dictionaries(NAMES, inside, max_size=5), max_leaves=20
)
PAYLOADS = st.binary(max_size=64) | VALUES.map(lambda value: json.dumps(value).encode())
TOPICS = st.text(max_size=30) | st.sampled_from(
    ["zigbee2mqtt/a", "zigbee2mqtt/a/availability", "tele/p/SENSOR", "tele/p/STATE", "tele/p/LWT", "/", "", "a//b"]
)


def decoded(number: int, topic: str, payload: bytes) -> list[Item]:
    """The items, none where there is a reason."""
    try:
        return Decoder(MAPPINGS[number], 65536).decode(topic, payload, 1_790_000_000_000_000)
    except DecodeError:
        return []


@settings(max_examples=400)
@given(number=st.integers(0, len(MAPPINGS) - 1), topic=TOPICS, payload=PAYLOADS)
def test_any_message_gives_rows_that_travel_or_a_reason(number: int, topic: str, payload: bytes) -> None:
    """Whatever comes, the batch made of it decodes to what the items say, and nothing else is raised."""
    items = decoded(number, topic, payload)
    mapping = MAPPINGS[number]
    assert sum(len(item.readings) for item in items) <= READINGS_MAX
    collector, numbers, taken = Collector(5000), Numbers(10, lambda: 7), Taken(1, 0)
    for item in items:
        assert item.row or all(math.isfinite(value) for value in item.readings.values())
        collector.add(mapping, item, taken)
    batches = collector.take(everything=True)
    assert sum(batch.rows for batch in batches) == sum(len(item.readings) or 1 for item in items)
    for batch in batches:
        numbers.number(batch, 1_790_000_000_000_000)
        header, body = decode_header(batch.message())
        assert (header.device, header.seq_first, header.function) == (batch.device, 1, mapping.function)
        columns = decode_columns(header, body)
        table = arrow_table([Batch(header, columns, 1)], {column.name: column.type for column in columns})
        own = [item for item in items if item.device == batch.device]
        if mapping.stream == "readings":
            wanted = [(name, value) for item in own for name, value in item.readings.items()]
            assert list(zip(table["name"].to_pylist(), table["value"].to_pylist(), strict=True)) == wanted
        else:
            for position, name in enumerate(("a", "b")):
                assert table[name].to_pylist() == [item.row[position] for item in own]
