"""Settings of a topic: which names are known, which values they take, which of them this log acts on. Pure.

Names and meanings are Apache Kafka's (https://kafka.apache.org/documentation/#topicconfigs). Acted on are
max.message.bytes, message.timestamp.type and segment.bytes. The others are kept and reported, and change nothing: this
log neither compacts nor expires records, so it keeps more than such a topic promises, never less.

**Delivery**: settings live in the catalog. **Bounds**: an unknown name or a wrong value is INVALID_CONFIG.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .codes import Code, ProtocolError
from .settings import LogSettings

__all__ = ["CONFIG_TYPES", "TopicConfig", "check_configs", "defaults"]

_INT, _LONG, _LIST, _STRING, _DOUBLE, _BOOLEAN = 3, 5, 7, 2, 6, 1
_INT_MAX, _LONG_MAX = (1 << 31) - 1, (1 << 63) - 1
_POLICIES = {"delete", "compact"}

_KNOWN: dict[str, tuple[int, int, int]] = {
    "delete.retention.ms": (_LONG, 0, _LONG_MAX),
    "file.delete.delay.ms": (_LONG, 0, _LONG_MAX),
    "flush.messages": (_LONG, 1, _LONG_MAX),
    "flush.ms": (_LONG, 0, _LONG_MAX),
    "index.interval.bytes": (_INT, 0, _INT_MAX),
    "max.compaction.lag.ms": (_LONG, 1, _LONG_MAX),
    "max.message.bytes": (_INT, 61, _INT_MAX),
    "message.timestamp.difference.max.ms": (_LONG, 0, _LONG_MAX),
    "min.compaction.lag.ms": (_LONG, 0, _LONG_MAX),
    "min.insync.replicas": (_INT, 1, _INT_MAX),
    "retention.bytes": (_LONG, -1, _LONG_MAX),
    "retention.ms": (_LONG, -1, _LONG_MAX),
    "segment.bytes": (_INT, 4096, _INT_MAX),
    "segment.index.bytes": (_INT, 4, _INT_MAX),
    "segment.jitter.ms": (_LONG, 0, _LONG_MAX),
    "segment.ms": (_LONG, 1, _LONG_MAX),
}
_CHOICES = {
    "compression.type": ("producer",),
    "message.timestamp.type": ("CreateTime", "LogAppendTime"),
    "preallocate": ("false", "true"),
    "unclean.leader.election.enable": ("false", "true"),
}

CONFIG_TYPES: dict[str, int] = {
    "cleanup.policy": _LIST,
    "min.cleanable.dirty.ratio": _DOUBLE,
    **{name: kind for name, (kind, _, _) in _KNOWN.items()},
    **{name: _BOOLEAN if "true" in choices else _STRING for name, choices in _CHOICES.items()},
}
"""Type of each known setting, as DescribeConfigs numbers them (ConfigDef.Type)."""


@dataclass(frozen=True)
class TopicConfig:
    """What the log acts on."""

    message_bytes_max: int
    log_append_time: bool
    segment_bytes: int

    @classmethod
    def of(cls, configs: Mapping[str, str], settings: LogSettings) -> TopicConfig:
        """From a topic's own settings and, where it has none, the log's."""
        return cls(
            int(configs.get("max.message.bytes", settings.message_bytes_max)),
            configs.get("message.timestamp.type") == "LogAppendTime",
            int(configs.get("segment.bytes", settings.segment_bytes)),
        )


def defaults(settings: LogSettings) -> dict[str, str]:
    """Values of the settings people ask about, for a topic that sets none."""
    return {
        "cleanup.policy": "delete",
        "compression.type": "producer",
        "max.message.bytes": str(settings.message_bytes_max),
        "message.timestamp.type": "CreateTime",
        "min.insync.replicas": "1",
        "retention.bytes": "-1",
        "retention.ms": "-1",
        "segment.bytes": str(settings.segment_bytes),
    }


def check_configs(configs: Mapping[str, str | None]) -> dict[str, str]:
    """`configs` without its nulls (null: the default). ProtocolError INVALID_CONFIG names the first wrong one."""
    checked = {name: value for name, value in configs.items() if value is not None}
    for name, value in checked.items():
        problem = _problem(name, value)
        if problem:
            raise ProtocolError(Code.INVALID_CONFIG, f"topic setting {name[:100]}: {problem}")
    return checked


def _problem(name: str, value: str) -> str:
    if name in _KNOWN:
        _, least, most = _KNOWN[name]
        try:
            number = int(value)
        except ValueError:
            return f"{value[:100]!r} is not a whole number"
        return "" if least <= number <= most else f"{number} is not in {least} to {most}"
    if name in _CHOICES:
        return "" if value in _CHOICES[name] else f"{value[:100]!r} is not one of {', '.join(_CHOICES[name])}"
    if name == "cleanup.policy":
        return "" if {each.strip() for each in value.split(",")} <= _POLICIES else "use delete, compact or both"
    if name == "min.cleanable.dirty.ratio":
        try:
            return "" if 0 <= float(value) <= 1 else f"{value[:100]} is not in 0 to 1"
        except ValueError:
            return f"{value[:100]!r} is not a number"
    return "there is no such setting here"
