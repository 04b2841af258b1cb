"""Idempotent producers: repetitions are recognised, gaps refused, the table survives."""

from __future__ import annotations

import pytest

from edge_agent.contract.errors import DecodeError
from stream_jobs.log.batches import Header, validate
from stream_jobs.log.codes import Code, ProtocolError
from stream_jobs.log.producers import Appended, ProducerTable

from .log_records import make_batch


def header(sequence: int, *, records: int = 1, epoch: int = 0, producer: int = 1, offset: int = 0) -> Header:
    """A batch's header as it is in the log at `offset`."""
    batch = make_batch([b"x"] * records, producer=producer, epoch=epoch, sequence=sequence)
    return validate(batch)._replace(base_offset=offset)


def refused(table: ProducerTable, batch: Header) -> Code:
    """The code with which the batch is refused."""
    with pytest.raises(ProtocolError) as caught:
        table.check(batch)
    return caught.value.code


def test_a_repeated_batch_gets_its_first_offset() -> None:
    """Any of the last five batches is recognised; the sixth last is not."""
    table = ProducerTable()
    for number in range(6):
        assert table.check(header(number * 2, records=2)) is None
        table.record(header(number * 2, records=2, offset=100 + number * 2))
    for number in range(1, 6):
        assert table.check(header(number * 2, records=2)) == Appended(
            number * 2, number * 2 + 1, 100 + number * 2, 102 + number * 2, -1
        )
    assert refused(table, header(0, records=2)) is Code.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_a_gap_is_refused() -> None:
    """A sequence that is not the next one is out of order, also when it only overlaps an old batch."""
    table = ProducerTable()
    table.record(header(0, records=3))
    assert refused(table, header(4)) is Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert refused(table, header(2)) is Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert table.check(header(3)) is None


def test_epochs() -> None:
    """A newer epoch begins at 0, an older one is fenced off."""
    table = ProducerTable()
    table.record(header(0, epoch=3))
    assert refused(table, header(1, epoch=4)) is Code.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert table.check(header(0, epoch=4)) is None
    table.record(header(0, epoch=4, offset=9))
    assert refused(table, header(1, epoch=3)) is Code.INVALID_PRODUCER_EPOCH


def test_an_unknown_producer_may_begin_anywhere() -> None:
    """Whose records were deleted is forgotten, and may go on (KIP-360)."""
    assert ProducerTable().check(header(77)) is None


def test_plain_producers_leave_no_trace() -> None:
    """Batches without a producer id are never repetitions."""
    table = ProducerTable()
    plain = validate(make_batch([b"x"]))
    table.record(plain)
    assert table.check(plain) is None
    assert len(table) == 0


def test_sequences_wrap_around() -> None:
    """After 2**31 - 1 comes 0."""
    table = ProducerTable()
    table.record(header(2**31 - 1))
    assert table.check(header(0)) is None
    assert refused(table, header(1)) is Code.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_the_longest_silent_producer_is_forgotten_first() -> None:
    """The table is bounded; who spoke last stays."""
    table = ProducerTable(2)
    for producer in (1, 2, 1, 3):
        table.record(header(5, producer=producer))
    assert table.check(header(99, producer=2)) is None
    assert refused(table, header(99, producer=1)) is Code.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_the_table_as_bytes() -> None:
    """What is written is read back; anything shorter or longer is refused."""
    table = ProducerTable()
    for producer in (1, 2):
        for number in range(7):
            table.record(header(number, producer=producer, offset=number))
    data = table.to_bytes()
    again = ProducerTable.from_bytes(data)
    assert again.to_bytes() == data
    assert again.check(header(6, producer=2)) == Appended(6, 6, 6, 7, -1)
    for wrong in (data[:-1], data + b"\0", b"", data[:4] + b"\xff" * 40):
        with pytest.raises(DecodeError):
            ProducerTable.from_bytes(wrong)
