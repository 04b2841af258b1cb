"""The agent's settings, section `agent`, declared once (see `contract/settings.py`).

**Delivery**: read at start. **Bounds**: each number has its own below; relations between them are checked by `checked`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.contract import limits
from edge_agent.contract.balancing import STRATEGIES
from edge_agent.contract.errors import RejectError, SettingsError, quoted
from edge_agent.contract.names import check_device, check_stream
from edge_agent.contract.settings import setting

from .spool import POLICIES, PRIORITIES

__all__ = ["AgentSettings", "checked", "default_device", "parse_priorities"]

PRIORITY_DEFAULT = 1


@dataclass(frozen=True, kw_only=True)
class AgentSettings:
    """One agent on one device."""

    device: str = setting("", help="name of this device; empty: the host's name")
    mqtt_urls: str = setting(
        "mqtt://127.0.0.1:1883", help="brokers, mqtt://[user:password@]host:port[;weight=N], separated by commas"
    )
    balancing: str = setting("round-robin", help="how to choose among several brokers", choices=STRATEGIES)
    mqtt_version: str = setting("3.1.1", help="MQTT protocol version", choices=("3.1.1", "5"))
    dir: Path = setting(Path("edgewater-agent"), help="folder of the spool, one for each agent")
    run_dir: str = setting("", help="folder for the status file; empty: none is written")
    functions: str = setting("", help="built-in functions to run, separated by commas (host); without files: host")
    spool_bytes_max: int = setting(
        256 * limits.MIB, help="what the spool may hold", minimum=8 * limits.MIB, maximum=1 << 50
    )
    spool_policy: str = setting("reject", help="what to do when the spool is full; reject lets functions wait",
                                choices=POLICIES)  # fmt: skip
    stream_priorities: str = setting(
        "", help=f"stream=0 (most important) to {PRIORITIES - 1}, separated by commas; others have {PRIORITY_DEFAULT}"
    )
    compress: bool = setting(True, help="compress batches (zlib), about half the bytes for 0.15 ms a batch of 1000")
    ledger: bool = setting(False, help="keep a copy of every accepted batch for checkers; grows without bound")
    unacked_bytes_max: int = setting(
        limits.UNACKED_BYTES_MAX_DEFAULT, help="bytes under way without a watermark",
        minimum=2 * limits.BATCH_BYTES_MAX, maximum=1 << 30,
    )  # fmt: skip
    stall_s: float = setting(2.0, help="ask the bridge after so long without progress", minimum=0.1, maximum=60)
    flush_interval_s: float = setting(0.2, help="a batch waits at most so long for more rows", minimum=0, maximum=60)
    batch_rows: int = setting(1000, help="a batch of single rows has at most so many", minimum=1, maximum=16_384)
    http_host: str = setting("127.0.0.1", help="address at which WSGI functions are served; there is no authentication")
    http_port: int = setting(
        8080,
        help="port of the first WSGI function, the next ones have the following; 0: any free",
        minimum=0,
        maximum=65_535,
    )
    http_body_bytes_max: int = setting(
        limits.MIB, help="a request's body to a WSGI function has at most so many", minimum=0, maximum=64 * limits.MIB
    )
    drain_timeout_s: float = setting(
        0.0, help="on SIGTERM: keep sending for so long; exit status 3 when batches remain", minimum=0, maximum=86_400
    )


def default_device() -> str:
    """The host's name, with what a device name may not contain replaced by '-'."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[: limits.DEVICE_ID_CHARACTERS_MAX] or "device"


def parse_priorities(text: str) -> dict[str, int]:
    """`alarms=0,readings=2` as a mapping; SettingsError names what is wrong."""
    priorities = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        stream, _, number = part.partition("=")
        if not (number.isdecimal() and int(number) < PRIORITIES):
            raise SettingsError(f"stream_priorities has {quoted(part)}; write stream=0 to stream={PRIORITIES - 1}")
        try:
            priorities[check_stream(stream.strip())] = int(number)
        except RejectError as error:
            raise SettingsError(f"stream_priorities: {error}") from None
    return priorities


def checked(settings: AgentSettings) -> Mapping[str, int]:
    """The priorities of streams, after all relations between settings were checked; SettingsError otherwise."""
    try:
        check_device(settings.device or default_device())
    except RejectError as error:
        raise SettingsError(f"device: {error}") from None
    if settings.spool_bytes_max < 2 * settings.unacked_bytes_max:
        raise SettingsError(
            f"spool_bytes_max is {settings.spool_bytes_max}, less than twice unacked_bytes_max "
            f"({settings.unacked_bytes_max}); raise it, or lower unacked_bytes_max"
        )
    return parse_priorities(settings.stream_priorities)
