"""Any bytes: parsed or refused, never anything else; any numbers of a header survive being written and read."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.errors import DecodeError
from stream_jobs.log.batches import HEADER_BYTES, append_header, checksum, parse_header, record_at, validate
from stream_jobs.log.codec import SUPPORTED, decode_request
from stream_jobs.log.codes import ProtocolError
from stream_jobs.log.index import SparseIndex
from stream_jobs.log.producers import ProducerTable
from stream_jobs.log.seal import decode_seal
from tests.unit.log_records import make_batch

BATCH = make_batch([b"one", b"two", b"three"], producer=5, epoch=0, sequence=0, timestamps=[10, 30, 20])

mutations = st.lists(st.tuples(st.integers(0, len(BATCH) - 1), st.integers(0, 255)), max_size=4)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_refused(data: bytes) -> None:
    """Parsing, checking and searching raise their own errors only."""
    with contextlib.suppress(DecodeError):
        parse_header(data)
    with contextlib.suppress(ProtocolError):
        validate(data)


@given(mutations, st.integers(0, len(BATCH)), st.integers(-5, 50))
def test_a_damaged_batch_is_refused_or_as_it_was(changes: list[tuple[int, int]], length: int, time_ms: int) -> None:
    """Whatever is changed or cut: what is accepted has the same records; a search by time in damaged records ends."""
    data = bytearray(BATCH)
    for position, byte in changes:
        data[position] = byte
    del data[length:]
    try:
        header = validate(data)
    except ProtocolError:
        header = validate(BATCH)
        with contextlib.suppress(DecodeError):
            record_at(header, bytes(data).ljust(HEADER_BYTES, b"\0"), time_ms)
    else:
        assert data[17:] == BATCH[17:]
        assert record_at(header, data, time_ms)[0] in {0, 1, 2}


@given(
    st.lists(st.binary(max_size=50), min_size=1, max_size=20),
    st.integers(0, 2**62),
    st.none() | st.integers(0, 2**62),
)
def test_a_stamped_batch_is_intact(values: list[bytes], offset: int, append_time_ms: int | None) -> None:
    """Whatever offset and time it gets, its checksum is right and its records are untouched."""
    batch = make_batch(values)
    header, packed = append_header(validate(batch), batch, offset, append_time_ms)
    stored = packed + batch[HEADER_BYTES:]
    assert parse_header(stored) == header
    assert checksum(stored, 0, len(stored)) == header.crc
    assert (header.base_offset, header.next_offset) == (offset, offset + len(values))


@given(st.sampled_from(sorted(SUPPORTED)), st.integers(0, 13), st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(key: int, version: int, body: bytes) -> None:
    """Behind a well-formed head anything may follow: it is decoded or refused."""
    head = key.to_bytes(2, "big") + version.to_bytes(2, "big") + b"\0\0\0\1\0\1c"
    with contextlib.suppress(DecodeError):
        decode_request(memoryview(head + body))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_seal_or_refused(data: bytes) -> None:
    """Seals, indexes and producer tables from disk are read or refused."""
    for decode in (decode_seal, SparseIndex.from_bytes, ProducerTable.from_bytes):
        with contextlib.suppress(DecodeError):
            decode(data)  # type: ignore[operator]


@given(st.lists(st.tuples(st.integers(1, 90_000), st.integers(0, 1000)), min_size=1, max_size=60), st.data())
def test_an_index_never_points_too_far(batches: list[tuple[int, int]], data: st.DataObject) -> None:
    """For any offset the position found is the start of a batch at or before the one that holds it."""
    index, positions, position = SparseIndex(), [0], 0
    for offset, (size, timestamp) in enumerate(batches):
        index.add(offset, position, timestamp)
        position += size
        positions.append(position)
    index = SparseIndex.from_bytes(index.to_bytes())
    wanted = data.draw(st.integers(0, len(batches) - 1))
    found = index.position_before(wanted)
    assert found in positions
    assert found <= positions[wanted]
    assert index.boundary_at_or_before(positions[wanted]) <= positions[wanted]
    time_ms = data.draw(st.integers(0, 1000))
    start = index.position_before_time(time_ms)
    assert all(timestamp < time_ms for place, (_, timestamp) in zip(positions, batches, strict=False) if place < start)
