"""From records to accepted batches: the fold decides, then bodies become columns; what cannot is a dead letter.

Batches of a stream that the job declares have its columns. Those of any other stream are grouped by the columns they
were sent with, text being one type however it travelled: each group becomes one table.

Records that nobody can decode, and what is skipped, are the default job's to keep; other jobs pass them over, and keep
only what their own declarations refuse.

**Delivery**: pure. The fold moves with every record, whatever it holds, so nothing that cannot be decoded stands in
the way; its payload is kept with the reason. Only newly covered seqs are counted as skipped.
**Bounds**: memory is that of the records and their decompressed bodies; a reason has at most 1,000 characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_agent.contract.columns import Column
from edge_agent.contract.errors import DecodeError, RejectError
from edge_agent.contract.fold import Outcome, PartitionFold, Verdict
from edge_agent.contract.topics import LOG_BATCHES
from edge_agent.contract.wire import Header, Kind, decode_columns, decode_header, decode_skipped
from stream_jobs.arrow_columns import Batch, StreamColumns, check_stream_columns, fitting
from stream_jobs.bridge.dead_letters import decode_dead_letter
from stream_jobs.jobs import KNOWN_STREAMS, NO_STREAM, Job

from .batching import Record

__all__ = ["Accepted", "DeadLetter", "Decoded", "Group", "SkippedRows", "decode", "fold_records"]

_REASON_CHARACTERS_MAX = 1000


class Accepted(NamedTuple):
    """A batch or skip record that the fold accepted; the verdict's seqs are those newly covered."""

    record: Record
    header: Header
    body: memoryview
    verdict: Verdict


class DeadLetter(NamedTuple):
    """A message that cannot become rows, with where it was; no header: device, epoch and seq are None.

    `job` put it aside, None: it is no job's fault. `topic` and `payload` are the log's and the record's but for what a
    bridge put aside, where they are MQTT's.
    """

    record: Record
    reason: str
    header: Header | None
    job: str | None = None
    topic: str = LOG_BATCHES
    payload: bytes | None = None


class SkippedRows(NamedTuple):
    """Seqs of one stream that will never come; stream and rows are None where nobody knows."""

    header: Header
    seq_first: int
    seq_last: int
    stream: str | None
    rows: int | None
    received_at_us: int


@dataclass(slots=True)
class Folded:
    """What the fold made of records."""

    accepted: list[Accepted] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)


@dataclass(slots=True)
class Group:
    """Batches of one stream that have the same columns, and the record of each."""

    stream: str
    columns: StreamColumns
    batches: list[Batch] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)


_Key = str | tuple[str, frozenset[tuple[str, str]]]
"""A declared stream's name, or any other's with its columns."""


@dataclass(slots=True)
class Decoded:
    """Batches in groups, and everything that is not a batch."""

    groups: dict[_Key, Group] = field(default_factory=dict)
    skipped: list[SkippedRows] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)


def dead_letter(record: Record, reason: str, header: Header | None, job: str | None = None) -> DeadLetter:
    """With the reason cut to its bound."""
    return DeadLetter(record, reason[:_REASON_CHARACTERS_MAX], header, job)


def _without_header(record: Record, problem: str) -> DeadLetter:
    """A record without a header: what a bridge put aside, or bytes that nobody knows."""
    try:
        found = decode_dead_letter(record.value)
    except DecodeError:
        return dead_letter(record, problem, None)
    reason = found.reason
    if found.payload_bytes > len(found.payload):
        reason += f" (the first {len(found.payload)} of its {found.payload_bytes} bytes are kept)"
    return DeadLetter(record, reason, None, None, found.topic, found.payload)


def fold_records(fold: PartitionFold, records: Iterable[Record], into: Folded) -> None:
    """Take `fold` over the records of its partition, in offset order."""
    for record in records:
        header: Header | None
        try:
            header, body = decode_header(record.value)
            problem = ""
        except DecodeError as error:
            header, body, problem = None, memoryview(b""), str(error)
        needs_body = header is not None and header.kind is Kind.IN
        verdict = fold.apply(record.offset, record.append_time_ms, header, bytes(body) if needs_body else b"")
        into.outcomes[verdict.outcome] += 1
        if verdict.outcome is Outcome.ACCEPTED:
            assert header is not None
            into.accepted.append(Accepted(record, header, body, verdict))
        elif verdict.outcome is Outcome.MALFORMED:
            into.dead_letters.append(_without_header(record, problem))
        elif verdict.outcome is Outcome.EXPIRED and header is not None and header.kind is not Kind.CLOSE:
            reason = f"epoch {header.epoch} of {header.device} was closed and forgotten; an old copy of its spool sends"
            into.dead_letters.append(dead_letter(record, reason, header))


def decode(accepted: Iterable[Accepted], job: Job) -> Decoded:
    """Columns of every accepted batch that `job` reads, and what the skip records say."""
    decoded = Decoded()
    for item in accepted:
        try:
            if item.header.kind is Kind.BATCH:
                if job.reads(item.header.stream):
                    _batch(item, job, decoded)
            elif job.is_default:
                decoded.skipped += _skipped(item)
        except DecodeError as error:
            if not job.is_default:
                continue
            decoded.dead_letters.append(dead_letter(item.record, str(error), item.header))
            if item.header.kind is Kind.SKIP:
                decoded.skipped.append(_unknown(item))
    return decoded


def _batch(item: Accepted, job: Job, decoded: Decoded) -> None:
    header = item.header
    columns = decode_columns(header, item.body)
    wanted = job.streams.get(header.stream)
    try:
        if wanted is None:
            group, columns = _as_sent(header.stream, columns, decoded)
        else:
            columns = fitting(columns, wanted)
            found = decoded.groups.get(header.stream)
            group = found or decoded.groups.setdefault(header.stream, Group(header.stream, wanted))
    except RejectError as error:
        # What every job knows is refused once, by the default job.
        if job.is_default or header.stream not in KNOWN_STREAMS:
            decoded.dead_letters.append(dead_letter(item.record, str(error), header, job.name))
        return
    group.batches.append(Batch(header, columns, item.record.append_time_ms * 1000))
    group.records.append(item.record)


def _as_sent(stream: str, columns: list[Column], decoded: Decoded) -> tuple[Group, list[Column]]:
    """The group of `columns`, and they in its order. RejectError: no table could have them."""
    types = {column.name: "string" if column.type == "dictionary" else column.type for column in columns}
    key = (stream, frozenset(types.items()))
    group = decoded.groups.get(key)
    if group is None:
        if stream.lower() == NO_STREAM:
            raise RejectError(f"no stream may be named {NO_STREAM}, which is a table of its own; rename the stream")
        check_stream_columns(stream, types)
        group = decoded.groups[key] = Group(stream, types)
    if list(types) != list(group.columns):
        named = {column.name: column for column in columns}
        columns = [named[name] for name in group.columns]
    return group, columns


def _unknown(item: Accepted) -> SkippedRows:
    verdict = item.verdict
    return SkippedRows(item.header, verdict.seq_first, verdict.seq_last, None, None, item.record.append_time_ms * 1000)


def _skipped(item: Accepted) -> list[SkippedRows]:
    """One entry a stream: the newly covered seqs it had, from its first to its last."""
    found: dict[str, SkippedRows] = {}
    for entry in decode_skipped(item.header, item.body):
        if entry.seq < item.verdict.seq_first:
            continue
        before = found.get(entry.stream)
        if before is None:
            received_at_us = item.record.append_time_ms * 1000
            found[entry.stream] = SkippedRows(
                item.header, entry.seq, entry.seq, entry.stream, entry.rows, received_at_us
            )
        else:
            found[entry.stream] = before._replace(seq_last=entry.seq, rows=(before.rows or 0) + entry.rows)
    return list(found.values()) or [_unknown(item)]
