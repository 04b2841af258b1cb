"""From records to accepted batches: the fold decides, then bodies become columns; what cannot is a dead letter.

**Delivery**: pure. The fold moves with every record, whatever it holds, so nothing that cannot be decoded stands in
the way; its payload is kept with the reason. Only newly covered seqs are counted as skipped.
**Bounds**: memory is that of the records and their decompressed bodies; a reason has at most 1,000 characters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from edge_agent.contract.errors import DecodeError, quoted
from edge_agent.contract.fold import Outcome, PartitionFold, Verdict
from edge_agent.contract.wire import Header, Kind, decode_columns, decode_header, decode_skipped
from stream_jobs.arrow_columns import Batch, StreamColumns, fitting

from .batching import Record

__all__ = ["Accepted", "DeadLetter", "Decoded", "SkippedRows", "decode", "fold_records"]

_REASON_CHARACTERS_MAX = 1000


class Accepted(NamedTuple):
    """A batch or skip record that the fold accepted; the verdict's seqs are those newly covered."""

    record: Record
    header: Header
    body: memoryview
    verdict: Verdict


class DeadLetter(NamedTuple):
    """A message that cannot become rows, with where it was; no header: device, epoch and seq are None."""

    record: Record
    reason: str
    header: Header | None


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
class Decoded:
    """Batches by stream with the record of each, and everything that is not a batch."""

    batches: dict[str, list[Batch]] = field(default_factory=dict)
    records: dict[str, list[Record]] = field(default_factory=dict)
    skipped: list[SkippedRows] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)


def dead_letter(record: Record, reason: str, header: Header | None) -> DeadLetter:
    """With the reason cut to its bound."""
    return DeadLetter(record, reason[:_REASON_CHARACTERS_MAX], header)


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
            into.dead_letters.append(dead_letter(record, problem, None))
        elif verdict.outcome is Outcome.EXPIRED and header is not None and header.kind is not Kind.CLOSE:
            reason = f"epoch {header.epoch} of {header.device} was closed and forgotten; an old copy of its spool sends"
            into.dead_letters.append(dead_letter(record, reason, header))


def decode(accepted: Iterable[Accepted], streams: Mapping[str, StreamColumns]) -> Decoded:
    """Columns of every accepted batch of a known stream, and what the skip records say."""
    decoded = Decoded()
    for item in accepted:
        try:
            if item.header.kind is Kind.BATCH:
                _batch(item, streams, decoded)
            else:
                decoded.skipped += _skipped(item)
        except DecodeError as error:
            decoded.dead_letters.append(dead_letter(item.record, str(error), item.header))
            if item.header.kind is Kind.SKIP:
                decoded.skipped.append(_unknown(item))
    return decoded


def _batch(item: Accepted, streams: Mapping[str, StreamColumns], decoded: Decoded) -> None:
    header = item.header
    wanted = streams.get(header.stream)
    if wanted is None:
        raise DecodeError(f"no job reads stream {quoted(header.stream)}; declare it in a job, then replay")
    columns = fitting(decode_columns(header, item.body), wanted)
    decoded.batches.setdefault(header.stream, []).append(Batch(header, columns, item.record.append_time_ms * 1000))
    decoded.records.setdefault(header.stream, []).append(item.record)


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
