"""The names of MQTT topics and log topics, and what may stand in them.

MQTT: `edgewater/batch/<shard>/<device>`, `edgewater/hello/<shard>/<device>` and `edgewater/report/<shard>/<device>`
from the device, `edgewater/ack/<device>` to it. The shard is in the topic so that a bridge subscribes to shards, not to
devices. QoS 1, never retained, never through a shared subscription.

**Delivery**: a topic whose shard is not the hash of its device is refused, so that one device cannot write
into another bridge's shard. **Bounds**: a topic has at most 160 characters.
"""

from __future__ import annotations

from .errors import DecodeError, RejectError, quoted
from .names import check_device
from .ring import shard_of

__all__ = [
    "LOG_BATCHES",
    "LOG_CHECKPOINTS",
    "LOG_TABLES",
    "ack_topic",
    "batch_topic",
    "device_of",
    "hello_topic",
    "report_topic",
    "shard_filters",
]

LOG_BATCHES = "edgewater.batches"
LOG_TABLES = "edgewater.tables"
LOG_CHECKPOINTS = "edgewater.checkpoints"

_ROOT = "edgewater"
_KINDS = ("batch", "hello", "report")
"""What devices publish."""
_TOPIC_CHARACTERS_MAX = 160


def batch_topic(device: str) -> str:
    """Where a device publishes its batches, skip records and closes."""
    return f"{_ROOT}/batch/{shard_of(device)}/{check_device(device)}"


def hello_topic(device: str) -> str:
    """Where a device says which epochs it holds."""
    return f"{_ROOT}/hello/{shard_of(device)}/{check_device(device)}"


def report_topic(device: str) -> str:
    """Where a device says how it is."""
    return f"{_ROOT}/report/{shard_of(device)}/{check_device(device)}"


def ack_topic(device: str) -> str:
    """Where a device reads its watermarks."""
    return f"{_ROOT}/ack/{check_device(device)}"


def shard_filters(shards: range | None = None) -> list[str]:
    """Topic filters for all that devices of `shards` (None: all of them) publish."""
    if shards is None:
        return [f"{_ROOT}/{kind}/+/+" for kind in _KINDS]
    return [f"{_ROOT}/{kind}/{shard}/+" for kind in _KINDS for shard in shards]


def device_of(topic: str) -> tuple[str, str]:
    """(`batch`, `hello` or `report`, device) of a topic that a device published to; DecodeError otherwise."""
    parts = topic[: _TOPIC_CHARACTERS_MAX + 1].split("/")
    if len(parts) != 4 or parts[0] != _ROOT or parts[1] not in _KINDS:
        raise DecodeError(f"MQTT topic {quoted(topic)} is not {_ROOT}/{'|'.join(_KINDS)}/<shard>/<device>")
    try:
        device = check_device(parts[3])
    except RejectError as error:
        raise DecodeError(f"MQTT topic {quoted(topic)}: {error}") from None
    if parts[2] != str(shard_of(device)):
        raise DecodeError(
            f"MQTT topic {quoted(topic)} names shard {quoted(parts[2])}; {device} is in {shard_of(device)}"
        )
    return parts[1], device
