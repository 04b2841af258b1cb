"""The wire format at its boundary: any columns go through, any bytes are decoded or rejected."""

from __future__ import annotations

import struct
from array import array

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import columns, limits, wire
from edge_agent.contract.errors import DecodeError

EPOCH = 911_234_005_414_707_205

names = st.text(min_size=1, max_size=20)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
optional_columns = st.integers(1, 40).flatmap(
    lambda rows: st.tuples(
        st.lists(st.none() | st.integers(-(1 << 63), (1 << 63) - 1), min_size=rows, max_size=rows),
        st.lists(st.none() | st.floats(allow_nan=False), min_size=rows, max_size=rows),
        st.lists(st.none() | st.booleans(), min_size=rows, max_size=rows),
        st.lists(st.none() | texts, min_size=rows, max_size=rows),
    )
)


def values_of(column: columns.Column) -> list[object]:
    """A column's values, read back one by one, as a test may."""
    rows = column.rows
    found: list[object]
    if column.type in ("timestamp", "int64"):
        found = list(struct.unpack(f"<{rows}q", column.buffers[0]))
    elif column.type == "float64":
        found = list(struct.unpack(f"<{rows}d", column.buffers[0]))
    elif column.type == "bool":
        found = [bool(column.buffers[0][i >> 3] >> (i & 7) & 1) for i in range(rows)]
    elif column.type == "string":
        offsets = struct.unpack(f"<{rows + 1}i", column.buffers[0])
        found = [column.buffers[1][offsets[i] : offsets[i + 1]].decode() for i in range(rows)]
    else:
        code = {1: "B", 2: "h", 4: "i"}[column.width]
        found = [column.names[i] for i in struct.unpack(f"<{rows}{code}", column.buffers[0])]
    if column.validity is None:
        return found
    return [v if column.validity[i >> 3] >> (i & 7) & 1 else None for i, v in enumerate(found)]


@given(optional_columns, st.integers(1, 1 << 62), st.booleans())
def test_columns_go_through_a_message_unchanged(values: tuple[list, ...], seq: int, compress: bool) -> None:
    """Integers, floats, booleans and texts, with nulls among them, come out as they went in."""
    integers, floats, booleans, texts_in = values
    made = [
        columns.integers("i", integers),
        columns.floats("f", floats),
        columns.booleans("b", booleans),
        columns.strings("s", texts_in),
    ]
    message = wire.encode_batch(
        wire.encode_columns(made), device="d", epoch=EPOCH, seq=seq, rows=len(integers), stream="s", compress=compress
    )
    header, body = wire.decode_header(message)
    assert (header.seq_first, header.seq_last, header.rows) == (seq, seq, len(integers))
    found = wire.decode_columns(header, body)
    assert [values_of(column) for column in found] == [integers, floats, booleans, texts_in]


@given(st.binary(max_size=300))
def test_any_bytes_are_decoded_or_rejected(data: bytes) -> None:
    """Bytes from anywhere raise DecodeError or give a header; nothing else happens."""
    try:
        header, body = wire.decode_header(data)
        wire.decode_columns(header, body)
    except DecodeError:
        pass


def sample_message() -> bytes:
    """A batch of three rows."""
    body = wire.encode_columns(
        [
            columns.timestamps("ts", array("q", [1, 2, 3])),
            columns.strings("name", ["a", "b", "a"]),
            columns.floats("value", array("d", [1.0, 2.5, -3.0])),
        ]
    )
    return wire.encode_batch(body, device="dev-1", epoch=EPOCH, seq=7, rows=3, stream="readings", function="host")


@given(st.data())
def test_a_damaged_message_is_never_taken_for_another(data: st.DataObject) -> None:
    """Whatever bytes of a message change, either a checksum notices or what is decoded is equal."""
    message = bytearray(sample_message())
    original = wire.decode_header(bytes(message))[0]
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(message)))
    try:
        header, body = wire.decode_header(bytes(message[:cut]))
        assert header == original
        wire.decode_columns(header, body)
        assert bytes(message[:cut]) == sample_message()
    except DecodeError:
        pass


@given(st.binary(max_size=400))
def test_any_body_under_a_good_header_is_decoded_or_rejected(data: bytes) -> None:
    """A body that is msgpack of anything, or nothing, raises DecodeError or has columns of the header's rows."""
    message = wire.encode_batch(data, device="d", epoch=EPOCH, seq=1, rows=3, stream="s", compress=False)
    header, body = wire.decode_header(message)
    try:
        found = wire.decode_columns(header, body)
    except DecodeError:
        return
    assert all(column.rows == 3 for column in found)


@given(
    st.integers(1, 1000), st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 70_000)), min_size=1, max_size=50)
)
def test_a_skip_record_keeps_stream_and_rows_of_each_seq(first: int, entries: list[tuple[str, int]]) -> None:
    """What a skip record lists is read back seq by seq."""
    skipped = [wire.Skipped(first + i, stream, rows) for i, (stream, rows) in enumerate(entries)]
    last = first + len(entries) - 1
    message = wire.encode_skip(
        device="d", epoch=EPOCH, seq_first=first, seq_last=last, reason=wire.Reason.DROPPED, skipped=skipped
    )
    header, body = wire.decode_header(message)
    assert wire.decode_skipped(header, body) == skipped
    assert header.rows == sum(rows for _, rows in entries)


@given(st.binary(max_size=100))
def test_any_skip_body_is_decoded_or_rejected(data: bytes) -> None:
    """A skip record's body of any bytes raises DecodeError or lists each seq once."""
    message = wire._message(
        wire.Kind.SKIP, data, device="d", epoch=EPOCH, seq_first=1, seq_last=4, reason=wire.Reason.LOST
    )
    header, body = wire.decode_header(message)
    try:
        found = wire.decode_skipped(header, body)
    except DecodeError:
        return
    assert [item.seq for item in found] in ([], [1, 2, 3, 4])


def test_limits_hold_for_the_largest_header() -> None:
    """The longest names that are allowed make a header that HEADER_BYTES_MAX allows."""
    body = wire.encode_columns([columns.integers("i", [1])])
    message = wire.encode_batch(
        body,
        device="d" * limits.DEVICE_ID_CHARACTERS_MAX,
        epoch=EPOCH,
        seq=1,
        rows=1,
        stream="s" * limits.STREAM_NAME_CHARACTERS_MAX,
        function="f" * limits.FUNCTION_NAME_CHARACTERS_MAX,
        trace=bytes(limits.TRACE_BYTES),
    )
    header, _ = wire.decode_header(message)
    assert header.header_bytes <= limits.HEADER_BYTES_MAX
