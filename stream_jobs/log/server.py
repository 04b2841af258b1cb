"""The process of the embedded log: opens the store, listens, writes its status, ends cleanly.

On SIGTERM or SIGINT: stop listening, let the syncs that are wanted finish, seal the last segments, close.

**Delivery**: kill -9 at any moment costs nothing that was acknowledged; a clean end also saves the next start its scan.
**Bounds**: open files (the soft limit is raised to the hard one); connections_max; ending takes at most END_S.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import time
from pathlib import Path
from typing import Any

from edge_agent.contract.clock import SystemClock
from edge_agent.contract.errors import SettingsError
from edge_agent.contract.listening import cannot_listen
from edge_agent.contract.status import StatusFile

from .connection import Connection, Connections
from .coordinator import Coordinator
from .durability import Durability
from .handlers import Broker
from .settings import LogSettings
from .store import Store

__all__ = ["advertised_host", "check_settings", "run"]

_LOG = logging.getLogger(__name__)
STATUS_INTERVAL_S = 0.5
END_S = 5.0
SLOW_ROUND_S = 5.0
REQUEST_FRAME_BYTES = 1024
_FILES_MAX = 65_536


def run(settings: LogSettings) -> int:
    """Serve until SIGTERM or SIGINT; exit status 0 for a clean end. StopError when the log cannot start."""
    return asyncio.run(_serve(settings))


def check_settings(settings: LogSettings) -> None:
    """SettingsError when settings contradict each other."""
    if settings.message_bytes_max + REQUEST_FRAME_BYTES > settings.request_bytes_max:
        raise SettingsError(
            f"message_bytes_max of {settings.message_bytes_max} and {REQUEST_FRAME_BYTES} for the request around it "
            f"exceed request_bytes_max of {settings.request_bytes_max}; raise that one"
        )
    if settings.session_timeout_min_ms > settings.session_timeout_max_ms:
        message = f"session_timeout_min_ms of {settings.session_timeout_min_ms} exceeds session_timeout_max_ms"
        raise SettingsError(f"{message} of {settings.session_timeout_max_ms}; lower it")


def advertised_host(settings: LogSettings) -> str:
    """What clients are told to connect to; SettingsError when that cannot be known."""
    if settings.advertised_host:
        return settings.advertised_host
    if settings.host in {"", "0.0.0.0", "::"}:  # noqa: S104 - refused here, not bound
        raise SettingsError(
            f"host {settings.host!r} is every address; give --advertised-host, the name clients can reach"
        )
    return settings.host


async def _serve(settings: LogSettings) -> int:
    began_s = time.monotonic()
    check_settings(settings)
    host = advertised_host(settings)
    _raise_file_limit()
    loop = asyncio.get_running_loop()
    durability = Durability(loop)
    try:
        with Store(settings, durability) as store:
            broker = Broker(
                settings=settings,
                store=store,
                coordinator=Coordinator(settings, store.offsets, loop),
                clock=SystemClock(),
                loop=loop,
                host=host,
                port=settings.port,
            )
            await _listen(broker, durability, began_s)
    finally:
        durability.stop()
    return 0


async def _listen(broker: Broker, durability: Durability, began_s: float) -> None:
    settings, loop = broker.settings, broker.loop
    connections = Connections(settings.connections_max)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    try:
        server = await loop.create_server(
            lambda: Connection(broker, connections), settings.host, settings.port, start_serving=False
        )
    except OSError as error:
        raise cannot_listen(settings.host, settings.port, error) from None
    broker.port = server.sockets[0].getsockname()[1]
    await server.start_serving()
    start_s = time.monotonic() - began_s
    _LOG.info("log on %s:%d, directory %s, started in %.2f s", broker.host, broker.port, settings.dir, start_s)
    status = StatusFile(Path(settings.run_dir) if settings.run_dir else None, "log")
    while not ended.is_set():
        status.write(**_status(broker, durability, connections, start_s))
        try:
            async with asyncio.timeout(STATUS_INTERVAL_S):
                await ended.wait()
        except TimeoutError:
            continue
    server.close()
    try:
        async with asyncio.timeout(END_S):
            await durability.drain()
    except TimeoutError:
        _LOG.error("the last syncs took longer than %.0f s; what they cover was not acknowledged", END_S)
    broker.coordinator.close()
    for connection in list(connections.open):
        connection.close()
    await asyncio.sleep(0)
    _LOG.info("log ended")


def _status(broker: Broker, durability: Durability, connections: Connections, start_s: float) -> dict[str, Any]:
    store, counters = broker.store, durability.counters
    return {
        "host": broker.host,
        "port": broker.port,
        "start_s": round(start_s, 3),
        "topics": len(store.topics),
        "partitions": store.partitions,
        "bytes": store.usage.bytes,
        "bytes_max": broker.settings.bytes_max,
        "appends": store.appends,
        "bytes_cut": store.bytes_cut,
        "files_set_aside": store.set_aside,
        "groups": len(broker.coordinator.names),
        "connections": len(connections.open),
        "connections_refused": connections.refused,
        "requests": connections.requests,
        "requests_malformed": connections.malformed,
        "sync_rounds": counters.rounds,
        "sync_files": counters.files,
        "sync_failures": counters.failures,
        "sync_seconds_total": round(counters.seconds_total, 6),
        "sync_seconds_max": round(counters.seconds_max, 6),
        "alarms": _alarms(broker, durability),
    }


def _alarms(broker: Broker, durability: Durability) -> list[str]:
    """What a person has to look at, in words."""
    store = broker.store
    alarms = list(store.failures[:10])
    if store.full:
        limit = broker.settings.bytes_max
        alarms.append(
            f"{store.usage.bytes} bytes reach bytes_max of {limit}: appends are refused; delete records or raise it"
        )
    if store.set_aside:
        alarms.append(
            f"{store.set_aside} segment files were set aside on start as .cut: the disk lost what it had synced"
        )
    if durability.round_s > SLOW_ROUND_S:
        alarms.append(f"a sync takes {durability.round_s:.0f} s already; check the disk")
    return alarms


def _raise_file_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_MAX)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
