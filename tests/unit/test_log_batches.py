"""Record batches: headers read, checked and stamped."""

from __future__ import annotations

import pytest

from edge_agent.contract.errors import DecodeError
from stream_jobs.log.batches import HEADER_BYTES, append_header, checksum, parse_header, record_at, validate
from stream_jobs.log.codes import Code, ProtocolError

from .log_records import make_batch

BATCH = make_batch([b"a", b"bc"], producer=7, epoch=1, sequence=5, timestamps=[1000, 1010])


def test_header_of_an_intact_batch() -> None:
    """Every field of the header is read as it was written."""
    header = validate(BATCH)
    assert (header.size, header.next_offset, header.records, header.last_sequence) == (len(BATCH), 2, 2, 6)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 1, 5)
    assert (header.base_timestamp, header.max_timestamp, header.compression) == (1000, 1010, 0)


def test_sequences_wrap() -> None:
    """After sequence 2**31 - 1 comes 0."""
    assert validate(make_batch([b""] * 3, producer=1, epoch=0, sequence=2**31 - 2)).last_sequence == 0


def test_append_changes_only_offset_and_epoch() -> None:
    """With CreateTime the checksum and everything it covers stay as the producer sent them."""
    header, packed = append_header(validate(BATCH), BATCH, 900, None)
    assert header.base_offset == 900
    assert packed[:8] == (900).to_bytes(8, "big")
    assert packed[16:] == BATCH[16:HEADER_BYTES]


def test_log_append_time_is_set_with_a_new_checksum() -> None:
    """With LogAppendTime the time is the log's, and the checksum is right again."""
    header, packed = append_header(validate(BATCH), BATCH, 900, 5555)
    stored = packed + BATCH[HEADER_BYTES:]
    assert parse_header(stored) == header
    assert header.log_append_time
    assert header.max_timestamp == 5555
    assert checksum(stored, 0, len(stored)) == header.crc != validate(BATCH).crc


def test_a_producer_cannot_pretend_log_append_time() -> None:
    """A topic with CreateTime clears the bit that only the log may set."""
    sent = make_batch([b"a"], attributes=0x08)
    header, packed = append_header(validate(sent), sent, 0, None)
    assert not header.log_append_time
    stored = packed + sent[HEADER_BYTES:]
    assert checksum(stored, 0, len(stored)) == header.crc


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        (b"", Code.CORRUPT_MESSAGE),
        (BATCH[:-1], Code.CORRUPT_MESSAGE),
        (BATCH[:-1] + b"?", Code.CORRUPT_MESSAGE),
        (BATCH + BATCH, Code.INVALID_RECORD),
        (BATCH[:16] + b"\1" + BATCH[17:], Code.UNSUPPORTED_FOR_MESSAGE_FORMAT),
        (make_batch([b"a"], attributes=0x10), Code.INVALID_RECORD),
        (make_batch([b"a"], attributes=0x20), Code.INVALID_RECORD),
        (make_batch([b"a"], attributes=0x07), Code.UNSUPPORTED_COMPRESSION_TYPE),
        (make_batch([b"a"], producer=3, epoch=-1, sequence=0), Code.INVALID_RECORD),
        (make_batch([]), Code.CORRUPT_MESSAGE),
    ],
)
def test_what_a_producer_may_not_send(batch: bytes, code: Code) -> None:
    """Each kind of wrong batch is refused with its own code."""
    with pytest.raises(ProtocolError) as caught:
        validate(batch)
    assert caught.value.code is code


def test_a_header_needs_all_its_bytes() -> None:
    """A header that is cut off is an error, not a guess."""
    with pytest.raises(DecodeError, match="60"):
        parse_header(BATCH[:60])


def test_search_by_time_within_a_batch() -> None:
    """The first record that is not older is found by its own timestamp; a compressed batch counts as one."""
    header = validate(BATCH)
    assert record_at(header, BATCH, 1000) == (0, 1000)
    assert record_at(header, BATCH, 1001) == (1, 1010)
    compressed = make_batch([b"a", b"bc"], timestamps=[1000, 1010], attributes=1)
    assert record_at(validate(compressed), compressed, 1001) == (0, 1010)
