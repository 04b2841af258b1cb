"""Topics, names, the two messages of the watermark protocol, and golden bytes of the wire format."""

from __future__ import annotations

import contextlib
from array import array
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import columns, topics, watermarks, wire
from edge_agent.contract.errors import DecodeError, LimitError, RejectError
from edge_agent.contract.names import check_device, check_stream
from edge_agent.contract.ring import shard_of

GOLDEN = Path(__file__).parents[1] / "golden" / "wire"
EPOCH = 911_234_005_414_707_205


def test_a_topic_carries_the_hash_of_its_device() -> None:
    """A device's own topics are read back; another shard's number in them is refused."""
    assert topics.device_of(topics.batch_topic("pi-4")) == ("batch", "pi-4")
    assert topics.device_of(topics.hello_topic("pi-4")) == ("hello", "pi-4")
    wrong = (shard_of("pi-4") + 1) % 256
    with pytest.raises(DecodeError, match=f"names shard '{wrong}'"):
        topics.device_of(f"edgewater/batch/{wrong}/pi-4")


@given(st.text(max_size=200))
def test_any_topic_is_read_or_refused(topic: str) -> None:
    """Nothing but DecodeError comes out of a foreign topic."""
    for candidate in (topic, f"edgewater/batch/{topic}", f"edgewater/hello/3/{topic}"):
        with contextlib.suppress(DecodeError):
            topics.device_of(candidate)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 129, "ü", "a\n", "..", "#", "+"])
def test_a_name_that_would_break_a_topic_or_path_is_refused(name: str) -> None:
    """Wildcards, separators, control characters, dots alone and overlong names."""
    with pytest.raises(RejectError):
        check_device(name)


def test_a_stream_name_may_be_a_table() -> None:
    """Letters, digits and underscores, no digit first."""
    assert check_stream("readings_1m") == "readings_1m"
    for wrong in ("1m", "a-b", "", "x" * 65):
        with pytest.raises(RejectError):
            check_stream(wrong)


def test_hello_and_watermarks_go_through() -> None:
    """What one side encodes the other decodes."""
    hello = watermarks.make_hello(b"12345678", (watermarks.HeldEpoch(EPOCH, 5, True),))
    assert watermarks.decode_hello(watermarks.encode(hello)) == hello
    answer = watermarks.make_watermarks(b"12345678", ((EPOCH, 4),), 1_790_000_000_000_000)
    assert watermarks.decode_watermarks(watermarks.encode(answer)) == answer
    with pytest.raises(LimitError):
        watermarks.make_hello(b"12345678", (watermarks.HeldEpoch(EPOCH, 5, True),) * 65)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    """Nothing but DecodeError comes out of foreign bytes."""
    for decode in (watermarks.decode_hello, watermarks.decode_watermarks):
        with contextlib.suppress(DecodeError):
            decode(data)


def golden_messages() -> dict[str, bytes]:
    """One message of each kind, made from fixed values."""
    body = wire.encode_columns(
        [
            columns.timestamps("ts", array("q", [1_790_000_000_000_000, 1_790_000_000_200_000])),
            columns.dictionary("name", array("B", [0, 1]), ("cpu_percent", "load_1m")),
            columns.floats("value", array("d", [12.5, 0.75])),
            columns.integers("count", [None, -(1 << 63)]),
            columns.booleans("ok", [True, False]),
            columns.strings("note", ["grüß", "gott"]),
        ]
    )
    common = {"device": "pi4", "epoch": EPOCH}
    return {
        "batch": wire.encode_batch(
            body,
            **common,
            seq=7,
            rows=2,
            stream="readings",
            function="host",
            function_version=bytes(range(8)),
            trace=bytes(range(24)),
            compress=False,
        ),
        "skip": wire.encode_skip(
            **common,
            seq_first=8,
            seq_last=9,
            reason=wire.Reason.DROPPED,
            skipped=[wire.Skipped(8, "readings", 1000), wire.Skipped(9, "events", 1)],
        ),
        "lost": wire.encode_skip(**common, seq_first=10, seq_last=1_000_000, reason=wire.Reason.LOST),
        "close": wire.encode_close(**common, seq_last=9),
        "out": wire.encode_marker(wire.Kind.OUT, shard=17, table_number=2),
        "in": wire.encode_marker(wire.Kind.IN, shard=17, table_number=2, out_offset=99, state=b"\x90"),
    }


@pytest.mark.parametrize("name", ["batch", "skip", "lost", "close", "out", "in"])
def test_the_wire_format_has_the_bytes_it_was_released_with(name: str) -> None:
    """Version 1 is what the golden file says, to the byte, and reads back."""
    message = golden_messages()[name]
    assert message.hex() == (GOLDEN / f"v1-{name}.hex").read_text().strip()
    header, body = wire.decode_header(message)
    if name == "batch":
        assert [column.name for column in wire.decode_columns(header, body)] == [
            "ts", "name", "value", "count", "ok", "note",
        ]  # fmt: skip
    if name == "skip":
        assert [item.rows for item in wire.decode_skipped(header, body)] == [1000, 1]


def test_a_value_that_fits_no_column_is_an_error_with_the_column() -> None:
    """Integers beyond 64 bits, lone surrogates, unequal lengths, too many rows, doubled names."""
    with pytest.raises(LimitError, match="column n value of 9223372036854775808"):
        columns.integers("n", [1 << 63])
    with pytest.raises(RejectError, match="surrogate"):
        columns.strings("s", ["\ud800"])
    with pytest.raises(RejectError, match="2 rows"):
        wire.encode_columns([columns.integers("a", [1]), columns.integers("b", [1, 2])])
    with pytest.raises(LimitError, match="batch rows"):
        wire.encode_columns([columns.integers("a", array("q", bytes(8 * 65_537)))])
    with pytest.raises(LimitError, match="batch rows of 0"):
        wire.encode_columns([])
    with pytest.raises(RejectError, match="same name"):
        wire.encode_columns([columns.integers("a", [1]), columns.integers("a", [1])])


def test_a_body_that_inflates_beyond_its_header_is_refused() -> None:
    """A zip bomb costs no more memory than the header declared."""
    body = bytes(3 * 1024 * 1024)
    message = wire.encode_batch(body, device="d", epoch=EPOCH, seq=1, rows=1, stream="s")
    header, sent = wire.decode_header(message)
    assert header.coding == wire.Coding.ZLIB
    lying = wire.Header(**{**{f: getattr(header, f) for f in header.__slots__}, "body_raw_bytes": 100})
    with pytest.raises(DecodeError, match="inflates to another size"):
        wire.decode_columns(lying, sent)
