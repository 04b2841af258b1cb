"""`edgewater worker run`: options, signals, exit status.

**Delivery**: exit status 0 after SIGTERM or SIGINT, 1 where the process must be started again or a person has to act
(the last line says what). When the log restarts the worker goes on by itself; when its consumer does not survive
that, it ends with 1 at once.
**Bounds**: ends within twice `stop_timeout_s` and 3 s more.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_agent.contract.clock import Clock
from edge_agent.contract.errors import EdgewaterError, RetryError
from edge_agent.contract.settings import add_options, flags_from, load
from edge_agent.contract.status import StatusFile
from edge_agent.contract.topics import LOG_BATCHES

from .orphans import watch_orphans
from .settings import WorkerSettings

__all__ = ["add_options_to", "main", "run"]

_log = logging.getLogger("edgewater.worker")

_LIBRARIES = ("aiokafka", "asyncio", "faust", "kafka", "mode", "stream_jobs.faust_app")
_NEEDED = ("faust", "deltalake", "pyarrow")
"""Looked for at once: they are imported only when the log has its topics."""
LIBRARY_INTERVAL_S = 10.0
_TOPICS_PAUSE_S = 0.2
_CLOSE_TIMEOUT_S = 3.0
_ORPHANS_INTERVAL_S = 5.0


class _OneLine(logging.Filter):
    """Libraries log tracebacks, tables and every attempt for what is expected here (a log that restarts): one line says
    it too, and one every LIBRARY_INTERVAL_S for each of their loggers."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until_s: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith(_LIBRARIES):
            now_s = time.monotonic()
            if now_s < self._quiet_until_s.get(record.name, 0.0):
                return False
            self._quiet_until_s[record.name] = now_s + LIBRARY_INTERVAL_S
            text = " ".join(record.getMessage().split())
            if record.exc_info and record.exc_info[1] is not None:
                text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
            record.msg, record.args, record.exc_info, record.exc_text = text[:500], None, None, None
        return True


def add_options_to(parser: argparse.ArgumentParser) -> None:
    """Options of `edgewater worker run`."""
    parser.add_argument(
        "--config", type=Path, default=None, metavar="FILE.toml", help="settings file, section [worker]"
    )
    add_options(parser, WorkerSettings)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run one worker until it is told to end."""
    # Does nothing where `edgewater` has set it up; the filter belongs to whatever handles.
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(_OneLine())
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in _NEEDED:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    try:
        flags = flags_from(arguments, WorkerSettings)
        settings = load(WorkerSettings, "worker", file=arguments.config, flags=flags)
        status = asyncio.run(_Process(settings).run())
    except EdgewaterError as error:
        if getattr(arguments, "debug", False):
            raise
        print(f"edgewater: {error}", file=sys.stderr)
        status = 1
    # Faust's threads may still wait for a log that is gone; everything that counts is decided in the lake.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)


class _Process:
    """The parts, put together."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._status = StatusFile(settings.run_dir or None, settings.name)

    async def run(self) -> int:
        """Until a signal; the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        if not await self._topics():
            return 0
        service, source = self._parts()
        tasks = {
            asyncio.create_task(source.run(), name="log"),
            asyncio.create_task(service.run(), name="steps"),
            asyncio.create_task(self._stop.wait(), name="signal"),
            asyncio.create_task(self._watch_orphans(service), name="orphans"),
        }
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        failures = [error for task in done if (error := task.exception()) is not None]
        for error in failures:
            if not isinstance(error, EdgewaterError):
                _log.error("unexpected %s: %s", type(error).__name__, error, exc_info=error)
            else:
                _log.error("%s", error)
        if not failures:
            await service.stop()
        await source.close(_CLOSE_TIMEOUT_S)
        return 1 if failures or not self._stop.is_set() else 0

    async def _watch_orphans(self, service: Any) -> None:
        from stream_jobs.faust_app import group_of
        from stream_jobs.jobs import readings_job
        from stream_jobs.kafka_client import LogClient

        group = group_of(readings_job().name)

        def unowned() -> set[int]:
            client = LogClient(self._settings.bootstrap_servers, timeout_s=self._settings.log_timeout_s)
            try:
                return client.unowned_partitions(group, LOG_BATCHES)
            finally:
                client.close()

        await watch_orphans(
            lambda: service.owns_any, unowned, max(_ORPHANS_INTERVAL_S, self._settings.session_timeout_s)
        )

    async def _topics(self) -> bool:
        """Wait until the first bridge has made the log's topics and its shard table; False when told to end."""
        told = False
        while not self._stop.is_set():
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._look_for_topics)
            except RetryError as error:
                if not told:
                    _log.info("waiting for the log and its topics: %s", error)
                    told = True
            else:
                return True
            try:
                await asyncio.wait_for(self._stop.wait(), _TOPICS_PAUSE_S)
            except TimeoutError:
                continue
        return False

    def _look_for_topics(self) -> None:
        from stream_jobs.kafka_client import LogClient

        client = LogClient(self._settings.bootstrap_servers, timeout_s=self._settings.log_timeout_s)
        try:
            client.topic_id(LOG_BATCHES)
            if client.tables() is None:
                raise RetryError("the log has no shard table yet; the first bridge writes it")
        finally:
            client.close()

    def _parts(self) -> tuple[Any, Any]:
        import lake
        from stream_jobs.faust_app import FaustSource
        from stream_jobs.jobs import readings_job
        from stream_jobs.kafka_client import LogClient

        from .landing import Landing
        from .service import WorkerService

        settings, job = self._settings, readings_job()
        opened = lake.open(settings.lake, create=True)

        def make_landing(clock: Clock, alarm: Callable[[str], None]) -> Landing:
            return Landing(
                job=job,
                lake=opened,
                link=lake.Link,
                open_log=lambda: LogClient(settings.bootstrap_servers, timeout_s=settings.log_timeout_s),
                clock=clock,
                alarm=alarm,
                check=opened.check,
            )

        def report(fields: Mapping[str, Any]) -> None:
            self._status.write(**fields)

        source = FaustSource(settings, job.name)
        service = WorkerService(settings, make_landing, source, report)
        source.attach(service)
        return service, source


def main(arguments: list[str] | None = None) -> int:
    """`python -m stream_jobs.worker`."""
    parser = argparse.ArgumentParser(prog="edgewater worker run", description="land the log's batches in the lake")
    add_options_to(parser)
    return run(parser.parse_args(arguments))
