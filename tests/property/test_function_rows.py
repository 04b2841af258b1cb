"""Rows of any values that columns hold come back exactly; topic filters agree with a slower reading of the grammar."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import limits, wire
from edge_agent.contract.errors import DecodeError, RejectError
from edge_agent.functions.api import Declaration
from edge_agent.functions.frames import Loaded, decode_from_function
from edge_agent.functions.row_values import rows_of_body
from edge_agent.functions.table_rows import TableCollector
from edge_agent.functions.topic_filter import check_filter, matches

TS = 1_700_000_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RESERVED = {"ts", "device", "epoch", "seq", "row", "function", "function_version", "received_at", "trace"}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(
    lambda name: name.lower() not in RESERVED
)
kinds = st.sampled_from(
    [
        # Half of them beyond what a float64 holds exactly: hypothesis by itself draws small ones.
        st.integers(-(1 << 63), (1 << 63) - 1) | st.integers((1 << 53) + 1, (1 << 63) - 1),
        st.floats(),
        st.booleans(),
        texts,
        st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds of aware ones
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows whose columns each have one kind of value, or null, or are absent."""
    columns = draw(st.dictionaries(names, kinds, min_size=1, max_size=5))
    lowered = {name.lower(): name for name in columns}
    row = st.fixed_dictionaries(
        {"ts": st.integers(-(1 << 62), 1 << 62)},
        optional={name: st.none() | columns[name] for name in lowered.values()},
    )
    return draw(st.lists(row, min_size=1, max_size=30))


def same(sent: Any, found: Any) -> bool:
    """Exactly the value: not a number is itself, and a time is its microseconds."""
    if isinstance(sent, datetime):
        return bool((sent - EPOCH) // timedelta(microseconds=1) == found)
    if isinstance(sent, float) and math.isnan(sent):
        return isinstance(found, float) and math.isnan(found)
    return type(sent) is type(found) and sent == found


@given(table=tables(), batch_rows=st.integers(1, 10), calls=st.integers(1, 3))
def test_rows_come_back_exactly(table: list[dict[str, Any]], batch_rows: int, calls: int) -> None:
    """Through collector, wire message and back: same rows in order, same values, same types; absent is null."""
    made = TableCollector("f", "events", batch_rows)
    bodies = []
    for start in range(calls):
        bodies += list(made.add(table[start::calls], TS))
    if made.rows:
        bodies.append(made.take())
    found: list[dict[str, Any]] = []
    for rows, body in bodies:
        message = wire.encode_batch(body, device="d", epoch=1, seq=1, rows=rows, stream="events")
        assert len(message) <= limits.BATCH_BYTES_MAX
        header, sent_body = wire.decode_header(message)
        assert wire.decode_columns(header, sent_body) == wire.decode_body(body, rows)
        found += rows_of_body(body, rows)
    sent = [row for start in range(calls) for row in table[start::calls]]
    assert len(found) == len(sent)
    for row, back in zip(sent, found, strict=True):
        for name in row.keys() | back.keys():
            if row.get(name) is None:
                assert back.get(name) is None
            else:
                assert same(row[name], back[name]), (name, row[name], back[name])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(results=st.lists(anything, max_size=5))
def test_whatever_a_function_returns_is_taken_or_refused(results: list[Any]) -> None:
    """No result of a function ends in another error than RejectError, and a refused one changes nothing gathered."""
    made = TableCollector("f", "events", 1000)
    for result in results:
        before = made.rows
        try:
            bodies = made.add(result, TS)
        except RejectError:
            assert made.rows == before
        else:
            for rows, body in bodies:
                rows_of_body(body, rows)
    if made.rows:
        rows, body = made.take()
        assert len(rows_of_body(body, rows)) == rows


@given(declared=anything, name=anything, version=anything)
def test_what_a_process_declares_is_taken_or_refused(declared: Any, name: Any, version: Any) -> None:
    """Whatever a function's process says it is, the agent has a message or a DecodeError."""
    try:
        data = msgspec.msgpack.encode(["loaded", name, {"f": declared}, version])
    except OverflowError:
        return
    try:
        message = decode_from_function(data)
    except DecodeError:
        return
    assert isinstance(message, Loaded)
    assert isinstance(message.functions["f"], Declaration)


levels = st.sampled_from(["", "a", "b", "edgewater", "$SYS"])
filter_levels = levels | st.just("+")


def slow_match(wanted: list[str], topic: list[str]) -> bool:
    """The grammar, read recursively."""
    if wanted == ["#"]:
        return True
    if not wanted or not topic:
        return wanted == topic
    return wanted[0] in ("+", topic[0]) and (
        slow_match(wanted[1:], topic[1:]) if wanted[1:] != ["#"] or topic[1:] else True
    )


@given(
    wanted=st.lists(filter_levels, min_size=1, max_size=4),
    rest=st.booleans(),
    topic=st.lists(levels, min_size=1, max_size=4),
)
def test_filters_match_as_the_grammar_says(wanted: list[str], rest: bool, topic: list[str]) -> None:
    """MQTT 3.1.1, 4.7; and nothing below edgewater/ is ever one for a function."""
    wanted = [*wanted, "#"] if rest else wanted
    text = "/".join(wanted)
    try:
        check_filter(text)
    except RejectError:
        return
    expected = slow_match(wanted, topic)
    if topic[0] == "edgewater" or (topic[0] == "$SYS" and wanted[0] != "$SYS"):
        expected = False
    assert matches(text, "/".join(topic)) is expected
