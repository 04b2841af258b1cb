"""The bytes of the transaction log's records: golden files, damage, and versions that are too new."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from edge_agent.contract.errors import StopError
from lake.transaction.checkpoint import decode_checkpoint, encode_checkpoint
from lake.transaction.fold import Fold, Parameters
from lake.transaction.records import (
    RECORD_FORMAT,
    VERSION,
    Abort,
    Blob,
    Body,
    Change,
    Column,
    Decision,
    File,
    Lease,
    Link,
    Outbox,
    Publication,
    Record,
    RemovedFile,
    State,
    decode_record,
    encode_record,
)
from tests.kit.lake_log import AT_US

GOLDEN = Path(__file__).parents[1] / "golden" / "transaction-log"
HOLDER = "c0ffee00c0ffee00c0ffee00c0ffee00"
FIRST = "0000000000000001-11111111111111111111111111111111"
SECOND = "0000000000000003-22222222222222222222222222222222"


def golden_bodies() -> list[Body]:
    """A log of one record of each kind and shape, all of which count but the last."""
    statistics = {
        "numRecords": 2,
        "minValues": {"ts": "2026-09-21T14:13:20.000000Z", "value": 0.75},
        "maxValues": {"ts": "2026-09-21T14:13:20.200000Z", "value": 12.5},
        "nullCount": {"ts": 0, "value": 0},
    }
    columns = (Column("ts", "timestamp", "key"), Column("value", "double", "sum"))
    return [
        Lease(replaces=0, holder=HOLDER, duration_ms=10_000, place="boot pid:[1]", process="17 4711"),
        Decision(
            FIRST,
            {"readings": Change(schema=columns, adds=(File(f"{FIRST}-0.parquet", 813, statistics),))},
            (
                Link(
                    "readings",
                    0,
                    0,
                    42,
                    "kQ2jt0Q_SyqUJx2V1vEv5w",
                    State(base=Blob(inline=b"\x00state", size=6)),
                    305419896,
                    Outbox(1, 2, Blob(inline=b"messages", size=8)),
                ),
                Link(
                    "readings",
                    1,
                    0,
                    7,
                    "kQ2jt0Q_SyqUJx2V1vEv5w",
                    State(
                        base=Blob(path=f"states/{FIRST}-1.state", size=20_000, crc32="89abcdef"),
                        deltas=(Blob(inline=b"delta", size=5),),
                    ),
                ),
            ),
        ),
        Publication(lease=1, through=2, versions={"readings": 1}),
        Decision(
            SECOND,
            {
                "readings": Change(
                    adds=(File(f"{SECOND}-0.parquet", 700, {"numRecords": 2}),),
                    removes=(RemovedFile(f"{FIRST}-0.parquet", 813),),
                    data_change=False,
                )
            },
            note="compaction",
        ),
        Abort("0000000000000004-33333333333333333333333333333333"),
        Abort(SECOND),
    ]


def golden_records() -> list[Record]:
    """The golden bodies, numbered."""
    return [
        Record(RECORD_FORMAT, VERSION, number, f"{number:032x}", AT_US + number, "host 17 c0ffee00", body)
        for number, body in enumerate(golden_bodies(), start=1)
    ]


@pytest.mark.parametrize("record", golden_records(), ids=lambda record: str(record.number))
def test_records_have_the_bytes_they_were_released_with(record: Record) -> None:
    """Version 1 is what the golden file says, to the byte, and reads back."""
    content = encode_record(record)
    assert content == (GOLDEN / f"{record.number:020d}.json").read_bytes()
    assert decode_record(content, record.number) == record


def test_the_golden_log_folds_to_the_golden_checkpoint() -> None:
    """Records 1 to 5 count, 6 is void, and the state is the golden checkpoint, to the byte."""
    fold = Fold(Parameters())
    assert [fold.apply(record) for record in golden_records()] == [None] * 5 + ["decided"]
    content = encode_checkpoint(fold)
    assert content == (GOLDEN / "checkpoints" / f"{fold.number:020d}.json").read_bytes()
    assert vars(decode_checkpoint(content, 6, Parameters())) == vars(fold)


@pytest.mark.parametrize("cut", [0, 1, 20, 21, 50])
def test_a_record_that_was_cut_short_is_damaged(cut: int) -> None:
    """Bytes missing at the end, or at the beginning, are seen."""
    content = encode_record(golden_records()[1])
    with pytest.raises(StopError, match="transaction 2 is damaged"):
        decode_record(content[: len(content) - cut - 1], 2)
    with pytest.raises(StopError, match="transaction 2 is damaged"):
        decode_record(content[cut + 1 :], 2)


def test_each_flipped_bit_is_seen() -> None:
    """The checksum covers every byte of the record, and its own digits."""
    content = encode_record(golden_records()[4])
    for index in range(len(content)):
        flipped = bytearray(content)
        flipped[index] ^= 1
        with pytest.raises(StopError):
            decode_record(bytes(flipped), 5)


def _sealed(text: bytes) -> bytes:
    return text + b',"crc32":"%08x"}\n' % zlib.crc32(text)


def test_a_newer_version_is_refused_with_the_next_step() -> None:
    """An old reader does not guess what a newer format means."""
    text = encode_record(golden_records()[0])[:-21].replace(b'"version":1', b'"version":2')
    with pytest.raises(StopError, match=r"transaction 1 is in version 2 of .*reads up to 1; upgrade Edgewater"):
        decode_record(_sealed(text), 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"kind":"lease"', b'"kind":"vote"', "not a valid"),
        (RECORD_FORMAT.encode(), b"something-else", "has format 'something-else'"),
        (b'"number":1', b'"number":7', "transaction 1 says that it is 7"),
        (b'"replaces":0', b'"replaces":"x"', "not a valid"),
    ],
)
def test_a_record_that_is_something_else_is_refused(old: bytes, new: bytes, message: str) -> None:
    """Another kind, format, number or type is an error that says so."""
    text = encode_record(golden_records()[0])[:-21].replace(old, new)
    with pytest.raises(StopError, match=message):
        decode_record(_sealed(text), 1)


def test_members_that_are_not_known_are_ignored() -> None:
    """Within a version, additions that do not change what counts are allowed."""
    text = encode_record(golden_records()[4])[:-21] + b',"colour":"blue"'
    assert decode_record(_sealed(text), 5) == golden_records()[4]
