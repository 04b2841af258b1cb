"""The agent: functions in processes of their own, one thread that sends, one that talks MQTT, and this main thread.

    function processes -> main thread (supervisor) -> sender thread (spool, uplink) -> network thread (paho) -> broker

and back, for functions on_topic: network thread -> mailboxes -> main thread -> function processes.

On SIGTERM or SIGINT the functions send what they have (STOP_PATIENCE_S); with `drain_timeout_s` the sender then goes on
until everything accepted is durable in the log, or the time is over. A second signal ends the waiting.

A function file is looked at before anything starts; when none of the sources can be loaded the agent ends, since a
person has to act; when some can, those go on, and the others are tried again.

**Delivery**: see `spool.py` and `uplink.py`; messages for functions at most once, see `supervisor.py`. Killed at any
moment, the agent goes on with the spool as it finds it.
**Bounds**: threads and processes as above; `contract/limits.py` and the settings say how much each may hold.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import signal
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, cast

from edge_agent.contract import topics, watermarks
from edge_agent.contract.balancing import parse_endpoints
from edge_agent.contract.clock import SystemClock
from edge_agent.contract.errors import EdgewaterError, RejectError, SettingsError, StopError
from edge_agent.contract.status import StatusFile

from .agent_settings import PRIORITY_DEFAULT, AgentSettings, checked, default_device
from .functions.frames import Batch
from .functions.http_ports import HttpSettings
from .functions.loader import check_syntax
from .functions.supervisor import Source, Supervisor, Token
from .functions.warm import WarmParent
from .mqtt import Connection, Event, Take, parse_url
from .reconnect import Reconnect
from .sender import Sender, Submitted
from .spool import NewBatch, Spool, SpoolSettings
from .uplink import Uplink, UplinkSettings

__all__ = ["Agent"]

BUILTINS = ("host",)
EXIT_OK, EXIT_FAILED, EXIT_NOT_DRAINED = 0, 1, 3
_STATUS_INTERVAL_S = 0.5

log = logging.getLogger("edgewater.agent")


def sources_of(files: Sequence[str], builtins: str) -> list[Source]:
    """What to run: files in order, then built-in functions; `host` when nothing is named. SettingsError otherwise."""
    names = [name.strip() for name in builtins.split(",") if name.strip()]
    for name in names:
        if name not in BUILTINS:
            raise SettingsError(f"there is no built-in function {name}; known: {', '.join(BUILTINS)}")
    for file in files:
        check_syntax(Path(file))
    if not files and not names:
        names = [BUILTINS[0]]
    return [Source(str(Path(file).resolve())) for file in files] + [Source(name, builtin=True) for name in names]


class Agent:
    """One agent; `run` in the main thread until a signal."""

    def __init__(self, settings: AgentSettings, files: Sequence[str]) -> None:
        """Check everything and open the spool. StopError says what a person has to do."""
        self._settings = settings
        self.device = settings.device or default_device()
        self._priorities: Mapping[str, int] = checked(settings)
        self._clock = SystemClock()
        self._connect = Connector(settings, self.device, self._message)
        sources = sources_of(files, settings.functions)
        generator = random.SystemRandom()
        try:
            endpoints = parse_endpoints(settings.mqtt_urls)
        except RejectError as error:
            raise SettingsError(f"mqtt_urls: {error}") from None
        for endpoint in endpoints:
            parse_url(endpoint.url)
        reconnect = Reconnect(endpoints, settings.balancing, generator)
        spool_settings = SpoolSettings(
            settings.spool_bytes_max, settings.spool_policy, settings.compress, settings.ledger
        )
        self._spool = Spool(
            settings.dir, self.device, spool_settings, self._clock, random_32=lambda: secrets.randbits(32)
        )
        uplink = Uplink(
            UplinkSettings(settings.unacked_bytes_max, settings.stall_s),
            generator,
            lambda: secrets.token_bytes(watermarks.NONCE_BYTES),
        )
        self.sender = Sender(
            self._spool, uplink, reconnect, connect=self._connect, clock=self._clock, answer=self._answered,
            subscribed=self._subscribed,
        )  # fmt: skip
        self._warm = WarmParent()
        self._supervisor = Supervisor(
            sources, self._submit, self._clock, batch_rows=settings.batch_rows,
            flush_interval_s=settings.flush_interval_s, want=self.sender.want,
            http=HttpSettings(settings.http_host, settings.http_port, settings.http_body_bytes_max),
            start=self._warm.start,
        )  # fmt: skip
        self._status = StatusFile(settings.run_dir or None, f"agent-{self.device}")
        self._status_at_s = 0.0
        self._signals = 0

    def _submit(self, token: Token, function: str, version: bytes, batch: Batch) -> None:
        new = NewBatch(
            batch.stream, batch.rows, batch.body, function, version,
            self._priorities.get(batch.stream, PRIORITY_DEFAULT),
        )  # fmt: skip
        self.sender.submit(Submitted(token, new))

    def _answered(self, token: object, refused: str) -> None:
        # The sender gives back what `_submit` gave it.
        self._supervisor.answer(cast("Token", token), refused)

    # The supervisor needs the sender, and the sender's connections need the supervisor: hence these two.

    def _message(self, topic: str, payload: bytes) -> None:
        self._supervisor.message(topic, payload)

    def _subscribed(self, topic_filter: str, refused: str) -> None:
        self._supervisor.subscribed(topic_filter, refused)

    # -- running -----------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until a signal; the exit status."""
        self._take_signals()
        self.sender.start()
        log.info("agent %s runs, spool in %s", self.device, self._settings.dir)
        try:
            self._poll_while(lambda: self._signals == 0, "running")
            self._supervisor.stop()
            self._poll_while(lambda: not self._supervisor.ended, "stopping")
            return self._drain() if self.sender.failure is None else EXIT_FAILED
        finally:
            self._supervisor.close()
            self._warm.close()
            self.sender.stop()
            self._write_status("stopped")
            if self.sender.failure is not None:
                raise _as_stop(self.sender.failure)

    def _take_signals(self) -> None:
        def took(_number: int, _frame: FrameType | None) -> None:
            self._signals += 1

        signal.set_wakeup_fd(self._supervisor.wake_descriptor, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, took)
        signal.signal(signal.SIGINT, took)

    def _poll_while(self, condition: Callable[[], bool], state: str) -> None:
        while condition() and self.sender.failure is None:
            self._supervisor.poll(max(0.0, self._status_at_s - self._clock.monotonic_s()))
            if self._supervisor.deserted:
                self._warm.close()
            if self._supervisor.unloadable:
                raise StopError(f"no function could be loaded: {self._supervisor.unloadable}")
            now_s = self._clock.monotonic_s()
            if now_s >= self._status_at_s:
                self._status_at_s = now_s + _STATUS_INTERVAL_S
                self._write_status(state)

    def _drain(self) -> int:
        if self._settings.drain_timeout_s <= 0:
            return EXIT_OK
        end_s = self._clock.monotonic_s() + self._settings.drain_timeout_s
        signals = self._signals
        self._poll_while(
            lambda: not self.sender.idle and self._clock.monotonic_s() < end_s and self._signals == signals, "draining"
        )
        if self.sender.idle:
            log.info("drained: everything accepted is durable in the log")
            return EXIT_OK
        log.warning(
            "not drained: %d batches wait in the spool %s for the next start", self._spool.batches, self._settings.dir
        )
        return EXIT_NOT_DRAINED

    # -- status ------------------------------------------------------------------------------------------------

    def _write_status(self, state: str) -> None:
        self.sender.functions_problem = self._supervisor.problem
        self._status.write(**self.status_fields(state))

    def status_fields(self, state: str) -> dict[str, Any]:
        """What the status file says; counters since the process began, but for what the spool holds."""
        counts, sender, uplink = self._spool.counts, self.sender.status, self.sender.uplink
        return {
            "state": state,
            "device": self.device,
            "ready": True,
            "batches_accepted": counts.accepted_batches,
            "rows_accepted": counts.accepted_rows,
            "batches_sent": sender.batches_sent,
            "rows_sent": sender.rows_sent,
            "bytes_sent": sender.bytes_sent,
            "messages_resent": sender.messages_resent,
            "batches_durable": counts.trimmed_batches,
            "rows_durable": counts.trimmed_rows,
            "batches_dropped": counts.dropped_batches,
            "rows_dropped": counts.dropped_rows,
            "batches_damaged": counts.damaged_batches,
            "rows_damaged": counts.damaged_rows,
            "spool_batches": self._spool.batches,
            "spool_bytes": self._spool.bytes,
            "spool_bytes_max": self._settings.spool_bytes_max,
            "unacked_bytes": uplink.unacked_bytes,
            "connected": sender.connected_url,
            "bridge_answered": sender.session_answered,
            "connections": sender.connections,
            "hellos": sender.hellos,
            "last_error": sender.last_error,
            "functions": self._supervisor.states(),
        }


class Connector:
    """Makes the agent's connections: one client id for its life, one TLS context, loaded when a URL needs it."""

    def __init__(self, settings: AgentSettings, device: str, take: Take) -> None:
        # Random, so that a device and its clone, whose spools do no harm to each other, do not throw each other out.
        self._client_id = f"edgewater-{device}-{secrets.token_hex(4)}"
        self._settings = settings
        self._take = take
        self._topic = topics.ack_topic(device)
        self._tls: ssl.SSLContext | None = None
        if "mqtts://" in settings.mqtt_urls:
            self._tls = ssl.create_default_context()

    def __call__(self, url: str, deliver: Callable[[Event], None]) -> Connection:
        return Connection(
            url, client_id=self._client_id, topic=self._topic, deliver=deliver, take=self._take, tls=self._tls,
            queued_bytes_max=self._settings.unacked_bytes_max, version=self._settings.mqtt_version,
        )  # fmt: skip


def _as_stop(failure: BaseException) -> StopError:
    if isinstance(failure, EdgewaterError):
        return StopError(str(failure))
    return StopError(f"the agent failed: {failure!r} (process {os.getpid()}); start it again, and report this")
