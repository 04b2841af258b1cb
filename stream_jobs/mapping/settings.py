"""Settings of the mapping process, section `[mapping]`; what is mapped is in `[[mappings]]`, see `declared.py`.

**Delivery**: read once at start. **Bounds**: each number has its own; together they bound memory to about four times
`in_flight_bytes_max` plus some 500 bytes for each device.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.contract.limits import KIB, MIB
from edge_agent.contract.settings import setting

__all__ = ["MappingSettings"]


@dataclass(frozen=True, kw_only=True)
class MappingSettings:
    """All settings of one mapping process."""

    mqtt_url: str = setting("mqtt://127.0.0.1:1883", help="MQTT broker: mqtt(s)://[user:password@]host[:port]")
    bootstrap_servers: str = setting("127.0.0.1:9092", help="the log: host:port[,host:port...]")
    run_dir: str = setting("", help="directory for the status file; empty: none")
    name: str = setting("mapping", help="name of this process in the status file")
    partitions: int = setting(4, help="partitions of the log, fixed when its topics are made", minimum=1, maximum=1000)
    flush_interval_s: float = setting(
        0.5, help="how long rows of a device are collected into one batch", minimum=0.001, maximum=60
    )
    batch_rows_max: int = setting(
        5000, help="rows of a device after which its batch is full", minimum=1, maximum=60_000
    )
    payload_bytes_max: int = setting(
        64 * KIB, help="bytes of one MQTT payload; a longer one is a dead letter", minimum=1, maximum=64 * KIB
    )
    in_flight_bytes_max: int = setting(
        16 * MIB,
        help="bytes not yet durable in the log at once; at the limit MQTT is not read",
        minimum=MIB,
        maximum=1024 * MIB,
    )
    devices_max: int = setting(
        10_000, help="devices remembered; the epoch of the longest silent one is closed", minimum=1, maximum=1_000_000
    )
    linger_s: float = setting(0.002, help="how long an append waits for company", minimum=0, maximum=0.2)
    delivery_timeout_s: float = setting(30.0, help="time after which an append has failed", minimum=1, maximum=600)
    log_timeout_s: float = setting(5.0, help="time within which the log must answer a request", minimum=0.1, maximum=60)
    stop_timeout_s: float = setting(
        5.0, help="time for appends under way when the process is told to end", minimum=0, maximum=60
    )
