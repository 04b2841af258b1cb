"""Dead letters as people look for them: newest first, by id, with the payload readable where it can be.

A dead letter's id is where it was: `topic/partition/offset` in the log, or `device/epoch/seq` for what a device put
aside itself. Where several share a place (two jobs and one record, the lines of one batch), `#2`, `#3` ... tell them
apart.

**Delivery**: reads only. **Bounds**: a list reads no payloads; a payload is shown up to `SHOWN_BYTES_MAX` bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edge_agent.contract.errors import RejectError, quoted
from lake.snapshot import Snapshot
from lake.terminal import escaped

__all__ = ["SHOWN_BYTES_MAX", "Wanted", "dead_letter", "dead_letters", "payload_lines"]

SHOWN_BYTES_MAX = 4096
_BYTES_A_LINE = 16

_NUMBERED = """
    SELECT *,
        CASE WHEN "offset" IS NULL THEN concat_ws('/', device, epoch, seq)
        ELSE concat_ws('/', topic, "partition", "offset") END AS place
    FROM dead_letters
"""
_WITH_IDS = f"""
    SELECT *,
        CASE WHEN nth = 1 THEN place ELSE place || '#' || nth END AS id
    FROM (
        SELECT *,
            row_number() OVER (
                PARTITION BY place ORDER BY received_at, job, topic, reason, md5(coalesce(payload, ''::BLOB))
            ) AS nth
        FROM ({_NUMBERED})
    )
"""  # noqa: S608 - constants
_COLUMNS = 'id, received_at, device, job, topic, "partition", "offset", epoch, seq, reason'


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters; None is any."""

    device: str | None = None
    job: str | None = None
    since: datetime | None = None


def dead_letters(snapshot: Snapshot, wanted: Wanted, limit: int) -> tuple[list[dict[str, Any]], int]:
    """The newest `limit` of those `wanted`, newest first, without their payloads, and how many there are."""
    conditions, parameters = ["true"], []
    for condition, value in (
        ("device = ?", wanted.device),
        ("job = ?", wanted.job),
        ("received_at >= ?", wanted.since),
    ):
        if value is not None:
            conditions.append(condition)
            parameters.append(value)
    where = " AND ".join(conditions)
    (total,) = snapshot.query(f"SELECT count(*) AS n FROM dead_letters WHERE {where}", parameters).arrow().to_pylist()  # noqa: S608 - constants
    rows = snapshot.query(
        f"SELECT {_COLUMNS}, octet_length(payload) AS payload_bytes FROM ({_WITH_IDS}) WHERE {where} "  # noqa: S608 - constants
        f"ORDER BY received_at DESC NULLS LAST, id LIMIT {max(0, limit)}",
        parameters,
    )
    return rows.arrow().to_pylist(), total["n"]


def dead_letter(snapshot: Snapshot, identifier: str) -> dict[str, Any]:
    """All of one, `payload` too. RejectError: there is none."""
    place, _, nth = identifier.partition("#")
    number = int(nth) if nth.isdecimal() else 0 if nth else 1
    rows = snapshot.query(
        f"SELECT {_COLUMNS}, payload FROM ({_WITH_IDS}) WHERE place = ? AND nth = ?",  # noqa: S608 - constants
        [place, number],
    )
    found: list[dict[str, Any]] = rows.arrow().to_pylist()
    if not found:
        raise RejectError(
            f"there is no dead letter {quoted(identifier)}; `edgewater dead-letters list` shows their ids "
            "(topic/partition/offset, or device/epoch/seq)"
        )
    return found[0]


def payload_lines(payload: bytes | None) -> list[str]:
    """The payload as text when it is text, else in hexadecimal; what is left out is told."""
    if not payload:
        return ["(empty)"]
    shown = payload[:SHOWN_BYTES_MAX]
    lines = _text_lines(shown) or _hex_lines(shown)
    if len(payload) > len(shown):
        lines.append(f"({len(shown):,} of {len(payload):,} bytes; --raw into a file or a pipe gives all)")
    return lines


def _text_lines(content: bytes) -> list[str] | None:
    """None when `content` is not text; a letter that was cut in two at the end does not count."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        if len(content) < SHOWN_BYTES_MAX or error.start < len(content) - 3:
            return None
        text = content[: error.start].decode()
    if not all(character.isprintable() or character in "\r\n\t" for character in text):
        return None
    return [escaped(line.expandtabs()) for line in text.splitlines()]


def _hex_lines(content: bytes) -> list[str]:
    lines = []
    for start in range(0, len(content), _BYTES_A_LINE):
        part = content[start : start + _BYTES_A_LINE]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' ', 1):<{_BYTES_A_LINE * 3 - 1}}  {letters}")
    return lines
