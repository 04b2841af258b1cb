"""Settings of the embedded log, section `[log]`.

**Delivery**: read once at start. Topic settings (retention, timestamps, message size) are not here: they belong to
the topic and are kept in the catalog. **Bounds**: each number has its own below; what they bound is in their help.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.contract.limits import KIB, LOG_RECORD_BYTES_MAX, MIB
from edge_agent.contract.settings import setting

__all__ = ["LogSettings"]


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """All settings of one log process."""

    dir: Path = setting(Path("log"), help="directory of the log; one process at a time")
    run_dir: str = setting("", help="directory for the status file `log.json`; empty: none")
    host: str = setting("127.0.0.1", help="address to listen on")
    port: int = setting(9092, help="TCP port; 0: any free one, found in the status file", minimum=0, maximum=65535)
    advertised_host: str = setting("", help="host name that clients are told; empty: the address listened on")
    segment_bytes: int = setting(
        64 * MIB,
        help="size at which a segment file is finished; records are deleted by whole segments",
        minimum=4 * KIB,
        maximum=1024 * MIB,
    )
    bytes_max: int = setting(0, help="bytes of all segments at which appends are refused; 0: no limit", minimum=0)
    message_bytes_max: int = setting(
        1_048_588,
        help="largest record batch of a topic without its own max.message.bytes",
        minimum=1024,
        maximum=64 * MIB,
    )
    partitions_default: int = setting(1, help="partitions of a topic created without a number", minimum=1, maximum=1000)
    partitions_max: int = setting(2000, help="partitions of all topics together", minimum=1, maximum=20_000)
    auto_create_topics: bool = setting(False, help="create a topic when a client asks for one that does not exist")
    connections_max: int = setting(256, help="client connections at once; more are closed", minimum=1, maximum=10_000)
    in_flight_max: int = setting(
        32, help="produce requests of one connection that wait for their sync at once", minimum=1, maximum=1000
    )
    request_bytes_max: int = setting(
        20 * MIB, help="largest request; a larger one closes its connection", minimum=64 * KIB, maximum=256 * MIB
    )
    fetch_bytes_max: int = setting(
        8 * MIB, help="records in one fetch response, whatever the client asks", minimum=64 * KIB, maximum=256 * MIB
    )
    groups_max: int = setting(1000, help="consumer groups", minimum=1, maximum=100_000)
    group_members_max: int = setting(200, help="members of one consumer group", minimum=1, maximum=10_000)
    session_timeout_min_ms: int = setting(1000, help="shortest session timeout a group member may ask for", minimum=10)
    session_timeout_max_ms: int = setting(
        1_800_000, help="longest session timeout a group member may ask for", minimum=10
    )
    rebalance_delay_ms: int = setting(
        100, help="time an empty group waits for more members before its first assignment", minimum=0, maximum=60_000
    )


assert LOG_RECORD_BYTES_MAX < 1_048_588
