"""A small lake as the default job leaves it: readings, aggregates, dead letters, gaps, a chain with its fold.

**Delivery**: nothing is kept. **Bounds**: three devices, one partition.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

import lake
from edge_agent.contract import limits, wire
from edge_agent.contract.columns import Column
from edge_agent.contract.fold import PartitionFold
from edge_agent.contract.names import new_epoch
from edge_agent.contract.wire import decode_header
from lake.aggregate import partials_from
from lake.schema import DEAD_LETTERS, READINGS, SKIPPED
from tests.kit.lake_rows import START_US, readings

__all__ = ["EPOCHS", "TRACEBACK", "landed_lake", "moment"]

EPOCHS = {"pi4": new_epoch(START_US, 4, 0), "pi5": new_epoch(START_US, 5, 0)}
TRACEBACK = 'step alert raised ValueError: \x1b[31mbad\nTraceback (most recent call last):\n  File "job.py", line 3'

_BODY = wire.encode_columns([Column("i", "int64", 1, None, (bytes(8),))])


def moment(seconds: float) -> datetime:
    """`seconds` after the first reading."""
    return datetime.fromtimestamp(START_US / 1e6 + seconds, UTC)


def _fold(batches: dict[str, int]) -> PartitionFold:
    """Of a partition that has so many batches of each device, the last device's epoch closed."""
    fold = PartitionFold(0, [0] * limits.SHARDS)
    for device, count in batches.items():
        for seq in range(1, count + 1):
            content = wire.encode_batch(_BODY, device=device, epoch=EPOCHS[device], seq=seq, rows=1, stream="readings")
            fold.apply(fold.next_offset, START_US // 1000, decode_header(content)[0])
    close = wire.encode_close(device=device, epoch=EPOCHS[device], seq_last=count)
    fold.apply(fold.next_offset, START_US // 1000, decode_header(close)[0])
    return fold


def landed_lake(directory: Path) -> lake.Lake:
    """Ten readings of pi4 and of pi5; two dead letters and two gaps of pi4, a letter of pi6's own, one of nobody."""
    here = lake.open(directory, create=True)
    rows = pa.concat_tables([readings(10, device=device).cast(READINGS) for device in ("pi4", "pi5")])
    letters = pa.table(
        {
            "payload": [b'{"a": 1}', b"\xed\x47\x00\x1b[2J" * 1000, None, "Zeile 17;grün\n".encode()],
            "reason": ["not a batch", TRACEBACK, "no header", "line 17: not a number"],
            "topic": ["edgewater.batches", "edgewater.batches", "zigbee2mqtt/x", "file.csv:17"],
            "partition": pa.array([0, 0, 0, None], pa.int32()),
            "offset": [7, 7, 9, None],
            "device": ["pi4", "pi4", None, "pi6"],
            "epoch": [EPOCHS["pi4"], EPOCHS["pi4"], None, 3],
            "seq": [2, 2, None, 1],
            "received_at": [moment(0), moment(1), moment(2), moment(3)],
            "job": [None, "alerts", None, None],
        },
        schema=DEAD_LETTERS,
    )
    gaps = pa.table(
        {
            "device": ["pi4", "pi4"],
            "epoch": [EPOCHS["pi4"]] * 2,
            "seq_first": [3, 5],
            "seq_last": [4, 5],
            "stream": ["readings", None],
            "rows": [12, None],
            "reason": ["dropped", "lost"],
            "received_at": [moment(1), moment(2)],
        },
        schema=SKIPPED,
    )
    link = lake.Link(
        job="readings",
        partition=0,
        origin_transaction=0,
        offset=12,
        topic_id="t",
        last_record_crc=None,
        state=_fold({"pi4": 5, "pi5": 1}).to_bytes(),
    )
    here.commit(
        {"readings": rows, "readings_1m": partials_from(rows), "dead_letters": letters, "skipped": gaps}, [link]
    )
    here.close()
    return here
