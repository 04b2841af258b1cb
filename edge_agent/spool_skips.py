"""Skip records of the spool: which seqs will never come, joined while they are neighbours.

**Delivery**: pure; a joined record covers exactly the seqs of its parts. **Bounds**: the caller's limit on listed seqs.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.contract import wire
from edge_agent.contract.errors import DecodeError
from edge_agent.contract.wire import Reason, Skipped

__all__ = ["joined", "skip_message"]

_STREAMS_MAX = 256


def skip_message(device: str, epoch: int, seqs: tuple[int, int], reason: Reason, listed: Sequence[Skipped]) -> bytes:
    """The skip record of these seqs (first, last), on the wire."""
    return wire.encode_skip(
        device=device, epoch=epoch, seq_first=seqs[0], seq_last=seqs[1], reason=reason, skipped=listed
    )


def joined(before: bytes, reason: Reason, listed: Sequence[Skipped], listed_max: int) -> list[Skipped] | None:
    """What the record `before` lists and then `listed`, or None when they do not go into one record: another reason, no
    list, too many seqs or streams."""
    try:
        header, body = wire.decode_header(before)
        earlier = wire.decode_skipped(header, body)
    except DecodeError:
        return None
    together = [*earlier, *listed]
    if header.reason is not reason or not earlier or len(together) > listed_max:
        return None
    return together if len({item.stream for item in together}) <= _STREAMS_MAX else None
