"""What a device says of itself now and then: how much waits in its spool, and what troubles it.

report (device -> bridge), on connect, about every 10 s, and when its problem changes. Only for people
(`edgewater status`): nothing is decided by it.

**Delivery**: may be lost, doubled or late. **Bounds**: MESSAGE_BYTES_MAX; a problem has PROBLEM_CHARACTERS_MAX
characters.
"""

from __future__ import annotations

import msgspec

from .errors import DecodeError

__all__ = ["PROBLEM_CHARACTERS_MAX", "Report", "decode_report", "encode_report", "make_report"]

_VERSION = 1
MESSAGE_BYTES_MAX = 4 * 1024
PROBLEM_CHARACTERS_MAX = 300


class Report(msgspec.Struct, array_like=True, frozen=True):
    """`backlog_*` is what the spool holds that is not yet durable in the log; `rows_dropped` since it started."""

    version: int
    time_us: int
    backlog_batches: int
    backlog_bytes: int
    rows_dropped: int
    problem: str


def make_report(*, time_us: int, backlog_batches: int, backlog_bytes: int, rows_dropped: int, problem: str) -> Report:
    """A report of the current version; a longer problem is cut."""
    return Report(_VERSION, time_us, backlog_batches, backlog_bytes, rows_dropped, problem[:PROBLEM_CHARACTERS_MAX])


def encode_report(report: Report) -> bytes:
    """The MQTT payload."""
    return msgspec.msgpack.encode(report)


def decode_report(data: bytes) -> Report:
    """The report in an MQTT payload; DecodeError when it is none."""
    if len(data) > MESSAGE_BYTES_MAX:
        raise DecodeError(f"report of {len(data)} bytes; at most {MESSAGE_BYTES_MAX} are allowed")
    try:
        report = msgspec.msgpack.decode(data, type=Report)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a report: {error}") from None
    numbers = (report.time_us, report.backlog_batches, report.backlog_bytes, report.rows_dropped)
    if report.version != _VERSION or min(numbers) < 0 or len(report.problem) > PROBLEM_CHARACTERS_MAX:
        raise DecodeError(f"report of version {report.version} with {numbers}; this program knows version {_VERSION}")
    return report
