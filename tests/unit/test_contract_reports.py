"""Reports: what a device says of itself, decoded or refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract import reports, topics
from edge_agent.contract.errors import DecodeError
from edge_agent.contract.streams import DEAD_LETTER_COLUMNS, READINGS_COLUMNS


def report(problem: str = "") -> reports.Report:
    """A report like any."""
    return reports.make_report(time_us=5, backlog_batches=2, backlog_bytes=900, rows_dropped=0, problem=problem)


def test_a_report_comes_back() -> None:
    """What was encoded is decoded."""
    assert reports.decode_report(reports.encode_report(report("disk full"))) == report("disk full")


def test_a_long_problem_is_cut() -> None:
    """A problem of any length fits."""
    made = report("x" * 10_000)
    assert reports.decode_report(reports.encode_report(made)).problem == "x" * reports.PROBLEM_CHARACTERS_MAX


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        msgspec.msgpack.encode([2, 0, 0, 0, 0, ""]),
        msgspec.msgpack.encode([1, 0, -1, 0, 0, ""]),
        bytes(5000),
    ],
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    """Other bytes, other versions and negative numbers are DecodeErrors."""
    with pytest.raises(DecodeError):
        reports.decode_report(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    """Nothing but DecodeError comes out of hostile bytes."""
    try:
        reports.decode_report(data)
    except DecodeError:
        return


def test_a_report_has_a_topic_of_its_own() -> None:
    """The report's topic names shard and device, and bridges subscribe to it."""
    assert topics.device_of(topics.report_topic("pi4")) == ("report", "pi4")
    assert "edgewater/report/+/+" in topics.shard_filters()


def test_the_known_streams_have_a_time() -> None:
    """Both streams that everybody knows begin with ts."""
    assert next(iter(READINGS_COLUMNS)) == next(iter(DEAD_LETTER_COLUMNS)) == "ts"
