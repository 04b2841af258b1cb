"""Columns to Arrow: whatever is encoded comes out equal, and whatever bytes come in, a step of the worker survives."""

from __future__ import annotations

import math
import struct
import zlib
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import wire
from edge_agent.contract.columns import Column, booleans, floats, integers, strings, timestamps
from edge_agent.contract.errors import DecodeError
from edge_agent.contract.fold import PartitionFold
from stream_jobs.arrow_columns import Batch, arrow_table
from stream_jobs.jobs import Job
from stream_jobs.worker.steps import Phases, run_step
from tests.kit.worker_world import ALL_MINE, NOW_US, epoch, readings_body, readings_message, records_of

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(max_size=12)
MAKERS: dict[str, tuple[Any, Any]] = {
    "timestamp": (timestamps, INT64),
    "float64": (floats, st.floats(width=64)),
    "int64": (integers, INT64),
    "bool": (booleans, st.booleans()),
    "string": (strings, TEXT),
    "dictionary": (strings, st.sampled_from(["a", "b", "", "ü"])),
}


@st.composite
def batches_of_values(draw: st.DrawFn) -> tuple[dict[str, str], list[dict[str, list[Any]]]]:
    """Columns of a stream, and for each of several batches the values of each column."""
    types = draw(st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=4))
    columns = {f"c{index}": name for index, name in enumerate(types)}
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(1, 20))
        batch = {}
        for name, kind in columns.items():
            values = MAKERS[kind][1]
            element = st.one_of(values, st.none()) if draw(st.booleans()) else values
            batch[name] = draw(st.lists(element, min_size=rows, max_size=rows))
        batches.append(batch)
    return columns, batches


def _same(left: Any, right: Any) -> bool:
    return left == right or (isinstance(left, float) and math.isnan(left) and math.isnan(right))


@given(batches_of_values())
def test_any_columns_come_out_equal(drawn: tuple[dict[str, str], list[dict[str, list[Any]]]]) -> None:
    """encode -> wire -> Arrow gives every value of every batch back, in order, with its place."""
    columns, values = drawn
    batches = []
    for seq, batch in enumerate(values, 1):
        body = wire.encode_columns([MAKERS[columns[name]][0](name, batch[name]) for name in columns])
        rows = len(next(iter(batch.values())))
        message = wire.encode_batch(body, device="pi", epoch=epoch(), seq=seq, rows=rows, stream="s")
        header, raw = wire.decode_header(message)
        batches.append(Batch(header, wire.decode_columns(header, raw), NOW_US))
    table = arrow_table(batches, columns)
    table.validate(full=True)
    for name, kind in columns.items():
        found = table[name].cast(pa.int64()) if kind == "timestamp" else table[name]
        wanted = [value for batch in values for value in batch[name]]
        assert all(_same(left, right) for left, right in zip(found.to_pylist(), wanted, strict=True))
    places = [(seq, row) for seq, batch in enumerate(values, 1) for row in range(len(next(iter(batch.values()))))]
    assert list(zip(table["seq"].to_pylist(), table["row"].to_pylist(), strict=True)) == places


@given(
    kind=st.sampled_from(["string", "dictionary"]),
    rows=st.integers(1, 6),
    data=st.binary(max_size=40),
    width=st.sampled_from([0, 1, 2, 4]),
    names=st.lists(TEXT, max_size=3),
    validity=st.one_of(st.none(), st.binary(min_size=1, max_size=1)),
)
def test_any_buffers_are_arrow_or_an_error(
    *, kind: str, rows: int, data: bytes, width: int, names: list[str], validity: bytes | None
) -> None:
    """Text columns of arbitrary offsets, codes and bitmaps become a table that Arrow finds valid, or a DecodeError."""
    if width:
        buffers: tuple[bytes, ...] = (data[: rows * width].ljust(rows * width, b"\0"),)
        column = Column("c", "dictionary", rows, validity, buffers, tuple(names), width)
    else:
        offsets = struct.unpack(f"<{rows + 1}i", data[: 4 * rows + 4].ljust(4 * rows + 4, b"\1"))
        small = struct.pack(f"<{rows + 1}i", *(offset % 16 - 2 for offset in offsets))
        column = Column("c", "string", rows, validity, (small, data))
    message = wire.encode_batch(
        wire.encode_columns([integers("c", [0] * rows)]), device="pi", epoch=epoch(), seq=1, rows=rows, stream="s"
    )
    batch = Batch(wire.decode_header(message)[0], [column], NOW_US)
    try:
        table = arrow_table([batch, batch], {"c": kind})
    except DecodeError:
        return
    table.validate(full=True)
    assert table.num_rows == 2 * rows
    table["c"].to_pylist()


GOOD = readings_message("pi", 2)


@st.composite
def poison(draw: st.DrawFn) -> bytes:
    """Arbitrary bytes; a batch with bytes changed; a right header around an arbitrary or changed body."""
    kind = draw(st.integers(0, 2))
    if kind == 0:
        return draw(st.binary(max_size=200))
    body = draw(st.binary(max_size=100)) if draw(st.booleans()) else readings_body("pi", 2, 3)
    changed = bytearray(body)
    for _ in range(draw(st.integers(0, 4)) if changed else 0):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    message = wire.encode_batch(
        bytes(changed), device="pi", epoch=epoch(), seq=2, rows=draw(st.sampled_from([1, 3, 65_536])), stream="readings"
    )
    if kind == 1:
        return message
    head = bytearray(message[: int.from_bytes(message[2:4], "little") - 4])
    head[draw(st.integers(0, len(head) - 1))] = draw(st.integers(0, 255))
    return bytes(head) + zlib.crc32(head).to_bytes(4, "little") + message[len(head) + 4 :]


@given(st.lists(poison(), max_size=6))
def test_any_bytes_land_or_become_dead_letters(messages: list[bytes]) -> None:
    """A step over arbitrary messages never fails; the good batch before them lands, what is accepted but cannot land is
    a dead letter."""
    job = Job("readings")
    job.step(stream="readings", table="readings")(lambda rows: rows)
    records = records_of(0, [readings_message("pi", 1), *messages])
    result = run_step(job, {0: PartitionFold(0, ALL_MINE)}, {0: records}, Phases())
    for table in result.appends.values():
        table.validate(full=True)
    landed = result.appends["readings"]
    assert landed.slice(0, 3)["seq"].to_pylist() == [1, 1, 1]
    payloads = [record.value for record in records]
    for row in result.appends.get("dead_letters", pa.table({"payload": []})).to_pylist():
        assert row["payload"] in payloads
    accounted = result.batches + result.dead_letters + result.appends.get("skipped", pa.table({})).num_rows
    assert accounted >= sum(n for o, n in result.outcomes.items() if o.value in ("accepted", "malformed", "expired"))
