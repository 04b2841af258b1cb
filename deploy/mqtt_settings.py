"""Settings of the embedded MQTT broker, apart from it so that `--help` loads no broker.

**Delivery**: read once at start. **Bounds**: each number has its least and greatest value here.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.contract.limits import BATCH_BYTES_MAX, HEADER_BYTES_MAX, KIB, MIB
from edge_agent.contract.settings import setting

__all__ = ["MqttSettings"]

PACKET_FRAME_BYTES = 4096
"""Room for MQTT's own header and a topic beside the largest batch."""


@dataclass(frozen=True, kw_only=True)
class MqttSettings:
    """Where the broker listens and how much it holds."""

    host: str = setting("127.0.0.1", help="address to listen on; other machines' clients come in without a password")
    port: int = setting(1883, help="port to listen on (0: any free one, see the status file)", minimum=0, maximum=65535)
    connections_max: int = setting(1000, help="connections at once; more are closed", minimum=1, maximum=60_000)
    packet_bytes_max: int = setting(
        BATCH_BYTES_MAX + HEADER_BYTES_MAX + PACKET_FRAME_BYTES,
        help="largest MQTT packet; a client that sends a larger one is disconnected",
        minimum=4 * KIB,
        maximum=16 * MIB,
    )
    queue_bytes_max: int = setting(
        8 * MIB, help="bytes waiting for one subscriber; at this, its publishers wait", minimum=64 * KIB
    )
    queue_messages_max: int = setting(
        10_000, help="messages waiting for one subscriber; at this, its publishers wait", minimum=1
    )
    in_flight_max: int = setting(
        1000, help="QoS 1 messages sent to one subscriber and not yet acknowledged", minimum=1, maximum=60_000
    )
    stall_timeout_s: float = setting(
        10.0, help="a subscriber with a full queue that takes nothing for so long is disconnected", minimum=0.1
    )
    retained_bytes_max: int = setting(
        16 * MIB, help="retained messages in all; at this, new ones are refused", minimum=0
    )
