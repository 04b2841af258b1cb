"""Settings of the bridge, section `[bridge]`.

**Delivery**: read once at start. **Bounds**: each number has its own; together they bound the bridge's memory to
about twice `in_flight_bytes_max` plus the fold (some 200 bytes for each device) and what is shown of devices (some 400
bytes for each).
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.contract import limits
from edge_agent.contract.errors import SettingsError, quoted
from edge_agent.contract.limits import KIB, MIB
from edge_agent.contract.settings import setting

__all__ = ["BridgeSettings", "parse_shards"]


@dataclass(frozen=True, kw_only=True)
class BridgeSettings:
    """All settings of one bridge process."""

    mqtt_url: str = setting("mqtt://127.0.0.1:1883", help="MQTT broker: mqtt(s)://[user:password@]host[:port]")
    bootstrap_servers: str = setting("127.0.0.1:9092", help="the log: host:port[,host:port...]")
    run_dir: str = setting("", help="directory for the status file; empty: none")
    name: str = setting("bridge", help="name of this bridge in the status file and its client ids")
    partitions: int = setting(4, help="partitions of the log, fixed when its topics are made", minimum=1, maximum=1000)
    shards: str = setting("0-255", help="shards whose devices this bridge serves, for instance 0-127,200")
    in_flight_bytes_max: int = setting(
        16 * MIB,
        help="bytes under way to the log at once; at the limit MQTT is not read",
        minimum=MIB,
        maximum=1024 * MIB,
    )
    in_flight_records_max: int = setting(4096, help="records under way to the log at once", minimum=16, maximum=100_000)
    flush_interval_s: float = setting(
        0.02, help="how long progress is collected before a device is told", minimum=0.001, maximum=5
    )
    repeat_interval_s: float = setting(
        0.5, help="how often at most a watermark is repeated to a device that sends what cannot be taken", minimum=0.01
    )
    linger_s: float = setting(0.002, help="how long an append waits for company", minimum=0, maximum=0.2)
    delivery_timeout_s: float = setting(30.0, help="time after which an append has failed", minimum=1, maximum=600)
    checkpoint_records: int = setting(
        10_000, help="records of a partition after which its fold is checkpointed", minimum=1
    )
    checkpoint_interval_s: float = setting(30.0, help="time after which a changed fold is checkpointed", minimum=0.1)
    devices_max: int = setting(100_000, help="devices whose hello is remembered; the oldest is forgotten", minimum=1)
    log_timeout_s: float = setting(5.0, help="time within which the log must answer a request", minimum=0.1, maximum=60)
    stop_timeout_s: float = setting(
        5.0, help="time for appends under way when the bridge is told to end", minimum=0, maximum=60
    )


assert BridgeSettings().in_flight_bytes_max >= 16 * limits.BATCH_BYTES_MAX > 16 * KIB


def parse_shards(text: str) -> frozenset[int]:
    """The shards of `0-127,200`; SettingsError for anything else."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not first.isdecimal() or not last.isdecimal():
            raise SettingsError(f"shards is {quoted(text)}; write numbers and ranges such as 0-127,200")
        found.update(range(int(first), min(int(last), limits.SHARDS) + 1))
    if not found or max(found) >= limits.SHARDS:
        raise SettingsError(f"shards is {quoted(text)}; shards are 0 to {limits.SHARDS - 1}")
    return frozenset(found)
