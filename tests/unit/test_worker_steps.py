"""One step of the worker on records: known rows, duplicates, gaps, and everything a log may hold that is no batch."""

from __future__ import annotations

import pickle
import random
import zlib
from array import array
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract import wire
from edge_agent.contract.columns import Column, dictionary, floats, integers, timestamps
from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.limits import EPOCH_FORGET_AFTER_S
from edge_agent.contract.wire import Reason, Skipped
from stream_jobs.default_job import job as default_job
from stream_jobs.jobs import Job
from stream_jobs.worker.batching import Record
from stream_jobs.worker.steps import Phases, StepResult, run_step
from tests.kit.worker_world import (
    ALL_MINE,
    NOW_US,
    epoch,
    expected_rows,
    readings_body,
    readings_message,
    records_of,
)  # fmt: skip


def step(records: list[Record], fold: PartitionFold | None = None, job: Job | None = None) -> StepResult:
    """One step of the default job over records of partition 0."""
    return run_step(job or default_job, {0: fold or PartitionFold(0, ALL_MINE)}, {0: records}, Phases())


def landed(result: StepResult) -> list[tuple[Any, ...]]:
    """Identities and values in `readings`."""
    table = result.appends.get("readings")
    rows = [] if table is None else table.to_pylist()
    return sorted((r["device"], r["epoch"], r["seq"], r["row"], r["value"]) for r in rows)


def letters(result: StepResult) -> list[dict[str, Any]]:
    """The rows of `dead_letters`."""
    table = result.appends.get("dead_letters")
    found: list[dict[str, Any]] = [] if table is None else table.to_pylist()
    return found


def damaged(message: bytes, at: int) -> bytes:
    """`message` with one bit changed."""
    return message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]


def with_header(message: bytes, **positions: int) -> bytes:
    """`message` with bytes of its header set, and the header's checksum made right."""
    size = int.from_bytes(message[2:4], "little")
    head = bytearray(message[: size - 4])
    for position, value in positions.items():
        head[int(position.removeprefix("at_"))] = value
    return bytes(head) + zlib.crc32(head).to_bytes(4, "little") + message[size:]


def test_each_batch_lands_once_whatever_the_order() -> None:
    """Batches of several devices, sent twice and in disorder, land exactly as the fold accepts them (seed 7)."""
    batches = [(f"dev-{n}", seq, 2 + n) for n in range(4) for seq in range(1, 6)]
    messages = [readings_message(device, seq, rows=rows) for device, seq, rows in batches]
    sent = messages * 3
    random.Random(7).shuffle(sent)
    sent += [message for _, message in sorted(zip(batches, messages, strict=True))]
    result = step(records_of(0, sent))
    assert landed(result) == expected_rows(batches)
    assert result.rows == len(expected_rows(batches))
    assert result.outcomes[Outcome.ACCEPTED] == len(batches)
    assert "dead_letters" not in result.appends


def test_the_same_rows_however_the_log_is_cut() -> None:
    """Cutting the records into steps at any place gives the same rows, state included."""
    messages = [readings_message(f"dev-{n % 3}", n // 3 + 1) for n in range(12)]
    records = records_of(0, [*messages[:8], *messages[2:]])
    whole_fold = PartitionFold(0, ALL_MINE)
    whole = landed(step(records, whole_fold))
    for cut in range(len(records)):
        fold = PartitionFold(0, ALL_MINE)
        parts = landed(step(records[:cut], fold)) + landed(step(records[cut:], fold))
        assert sorted(parts) == whole
        assert fold.to_bytes() == whole_fold.to_bytes()


def test_partials_of_a_minute() -> None:
    """The default job appends count, sum, minimum and maximum a device, name and minute."""
    body = wire.encode_columns(
        [
            timestamps("ts", [NOW_US, NOW_US + 1, NOW_US + 120_000_000]),
            dictionary("name", array("B", [0, 0, 0]), ("t",)),
            floats("value", [1.0, 3.0, 10.0]),
        ]
    )
    message = wire.encode_batch(body, device="pi", epoch=epoch(), seq=1, rows=3, stream="readings")
    rows = step(records_of(0, [message])).appends["readings_1m"].to_pylist()
    assert sorted((r["device"], r["name"], r["count"], r["sum"], r["min"], r["max"]) for r in rows) == [
        ("pi", "t", 1, 10.0, 10.0, 10.0), ("pi", "t", 2, 4.0, 1.0, 3.0),
    ]  # fmt: skip


def test_what_nobody_can_decode_is_a_dead_letter_and_the_rest_lands() -> None:
    """Damaged header or body, unknown body version, unknown coding, wrong schema, unknown stream: each is kept whole
    with its reason and place, takes its seq, and the batches around it land."""
    good = readings_message("pi", 1)
    no_columns = wire.encode_columns([integers("value", [1])])
    wrong_type = [timestamps("ts", [1]), floats("name", [1.0]), floats("value", [1.0])]
    pointing = readings_body("pi", 7, 3).replace(bytes([0, 1, 2]), bytes([0, 1, 99]))
    poison = [
        (damaged(good, 20), "checksum", None),
        (damaged(readings_message("pi", 2), -3), "body", 2),
        (with_header(readings_message("pi", 3), at_5=9), "version 9", 3),
        (with_header(readings_message("pi", 4), at_6=7), "coding 7", 4),
        (wire.encode_batch(no_columns, device="pi", epoch=epoch(), seq=5, rows=1, stream="readings"), "are not the", 5),
        (
            wire.encode_batch(
                wire.encode_columns(wrong_type), device="pi", epoch=epoch(), seq=6, rows=1, stream="readings"
            ),
            "'name' has type float64", 6,
        ),
        (wire.encode_batch(pointing, device="pi", epoch=epoch(), seq=7, rows=3, stream="readings"), "'name'", 7),
        (readings_message("pi", 8, stream="readings_1M"), "would land in table readings_1m", 8),
        (b"", "0 bytes", None),
    ]  # fmt: skip
    messages = [good, *(message for message, _, _ in poison), readings_message("pi", 9)]
    result = step(records_of(0, messages, first_offset=100), fold := PartitionFold(0, ALL_MINE))
    assert landed(result) == expected_rows([("pi", 1, 3), ("pi", 9, 3)])
    assert fold.watermark("pi", epoch()) == 9
    found = {letter["offset"]: letter for letter in letters(result)}
    assert len(found) == len(poison) == result.dead_letters
    for offset, (message, reason, seq) in enumerate(poison, 101):
        assert found[offset]["payload"] == message
        assert reason in found[offset]["reason"]
        assert (found[offset]["topic"], found[offset]["partition"]) == ("edgewater.batches", 0)
        assert found[offset]["device"] == (None if seq is None else "pi")
        assert found[offset]["received_at"].timestamp() == NOW_US // 1_000_000 + offset - 100


class _Armed:
    """Unpickling this touches a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickled_message_is_a_dead_letter_and_runs_nothing(tmp_path: Path) -> None:
    """Pickle bytes, alone or as a batch's body, are kept as dead letters and nothing they say happens."""
    armed = pickle.dumps(_Armed(tmp_path / "touched"))
    in_body = wire.encode_batch(armed, device="pi", epoch=epoch(), seq=1, rows=1, stream="readings")
    result = step(records_of(0, [armed, in_body]))
    assert [letter["payload"] for letter in letters(result)] == [armed, in_body]
    assert not (tmp_path / "touched").exists()
    pickle.loads(armed)  # noqa: S301 - shows that the bytes would have done it
    assert (tmp_path / "touched").exists()


def test_skips_are_counted_once() -> None:
    """A skip record's rows are noted by stream for the seqs it newly covers, and only once."""
    skip = wire.encode_skip(
        device="pi", epoch=epoch(), seq_first=1, seq_last=4, reason=Reason.DROPPED,
        skipped=[
            Skipped(1, "readings", 10), Skipped(2, "events", 5), Skipped(3, "readings", 7), Skipped(4, "events", 1),
        ],
    )  # fmt: skip
    unknown = wire.encode_skip(device="pi", epoch=epoch(), seq_first=5, seq_last=9, reason=Reason.LOST)
    result = step(records_of(0, [readings_message("pi", 1), skip, skip, unknown]))
    rows = result.appends["skipped"].to_pylist()
    assert [(r["stream"], r["rows"], r["seq_first"], r["seq_last"], r["reason"]) for r in rows] == [
        ("events", 6, 2, 4, "dropped"), ("readings", 7, 3, 3, "dropped"), (None, None, 5, 9, "lost"),
    ]  # fmt: skip
    assert result.skipped_rows == 13


def test_a_damaged_skip_record_still_skips() -> None:
    """A skip record whose list is damaged covers its seqs: a dead letter, and an entry of unknown rows."""
    skip = wire.encode_skip(
        device="pi", epoch=epoch(), seq_first=1, seq_last=1, reason=Reason.DAMAGED, skipped=[Skipped(1, "readings", 10)]
    )
    result = step(records_of(0, [damaged(skip, -1), readings_message("pi", 2)]))
    assert [(r["stream"], r["rows"]) for r in result.appends["skipped"].to_pylist()] == [(None, None)]
    assert len(letters(result)) == 1
    assert landed(result) == expected_rows([("pi", 2, 3)])


def test_records_of_a_forgotten_epoch_are_dead_letters() -> None:
    """What an old copy of a spool sends after its epoch was closed and forgotten is kept apart."""
    messages = [
        readings_message("pi", 1), wire.encode_close(device="pi", epoch=epoch(), seq_last=1), readings_message("pi", 2),
    ]  # fmt: skip
    records = records_of(0, messages)
    late = records[2]._replace(append_time_ms=records[1].append_time_ms + EPOCH_FORGET_AFTER_S * 1000)
    result = step([*records[:2], late])
    assert landed(result) == expected_rows([("pi", 1, 3)])
    assert "closed and forgotten" in letters(result)[0]["reason"]


def test_a_step_that_raises_leaves_the_raw_rows() -> None:
    """A failing step's batches become dead letters with the traceback; the other steps append their rows."""
    job = Job("readings")
    job.step(stream="readings", table="readings")(lambda rows: rows)

    @job.step(stream="readings", table="alerts")
    def alerts(rows: Any) -> Any:
        if 2 in rows["seq"].to_pylist():
            raise ZeroDivisionError("two")
        return rows

    result = step(records_of(0, [readings_message("pi", seq) for seq in (1, 2, 3)]), job=job)
    assert landed(result) == expected_rows([("pi", seq, 3) for seq in (1, 2, 3)])
    assert sorted(set(result.appends["alerts"]["seq"].to_pylist())) == [1, 3]
    (letter,) = letters(result)
    assert (letter["offset"], letter.get("seq", 2)) == (1, 2)
    assert "ZeroDivisionError: two" in letter["reason"]


def test_a_batch_that_arrow_refuses_is_found_among_good_ones() -> None:
    """One batch with a code beyond its dictionary, among many of the same entries, alone does not land."""
    bad = Column("name", "dictionary", 3, None, (bytes([0, 1, 3]),), ("cpu", "memory", "disk"), 1)
    columns = [timestamps("ts", [1, 2, 3]), bad, floats("value", [1.0, 2.0, 3.0])]
    message = wire.encode_batch(
        wire.encode_columns(columns), device="pi", epoch=epoch(), seq=5, rows=3, stream="readings"
    )
    messages = [message if seq == 5 else readings_message("pi", seq) for seq in range(1, 12)]
    result = step(records_of(0, messages))
    assert landed(result) == expected_rows([("pi", seq, 3) for seq in range(1, 12) if seq != 5])
    assert [letter["offset"] for letter in letters(result)] == [4]


@pytest.mark.parametrize("rows", [1, 1000])
def test_phases_are_measured(rows: int) -> None:
    """Every phase of a step has its CPU seconds."""
    phases = Phases()
    records = records_of(0, [readings_message("pi", 1, rows=rows)])
    run_step(default_job, {0: PartitionFold(0, ALL_MINE)}, {0: records}, phases)
    assert set(phases.cpu_s) == set(phases.elapsed_s) == {"fold", "decode", "arrow", "steps"}
