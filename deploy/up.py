"""`edgewater up`: the whole stack in the foreground until Ctrl-C, with a person's functions, jobs and mappings.

Steps, in order: lock the directory; start broker, log, bridge and worker, then a worker for each job file, the mapping,
and the agent; say where everything is; then keep it running, and print what happens: a part that ended and was started
again, an alarm. Started again on the same directory it goes on where it stopped.

**Delivery**: nothing is kept here but ports; every part may be killed at any moment, this process too (the kernel tells
its children to end). **Bounds**: those of `supervisor.py`; LOADING_TIMEOUT_S for function files; one line an event.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import re
import shlex
import signal
import socket
import sys
import time
import types
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from edge_agent.contract.errors import StopError, quoted
from edge_agent.contract.names import check_device
from edge_agent.contract.sections import SECTIONS
from edge_agent.contract.settings import load
from edge_agent.contract.status import StatusFile

from .alarms import AlarmWatch
from .directory import DIRECTORY_DEFAULT, any_free_ports, choose_port, port_taken
from .mqtt_settings import MqttSettings
from .stack import START_TIMEOUT_S, Addresses, Configuration, Stack, device_name, is_loopback, url_host

__all__ = ["Up", "UpOptions", "worker_names"]

LOADING_TIMEOUT_S = 30.0
DRAIN_TIMEOUT_S = 2.0
_STATUS_INTERVAL_S = 0.5
_PAUSE_S = 0.2
_INTERRUPTED = 130
_FAILURE_CHARACTERS_MAX = 500
_NEEDED = ("amqtt", "kafka", "faust", "pyarrow", "deltalake", "duckdb")
_QUERY = "SELECT * FROM readings ORDER BY ts DESC LIMIT 10"
_SECTIONS = ("mqtt", "log", "bridge", "worker", "agent")
_USUAL_PORTS = {"mqtt": 1883, "http": 8080}


@dataclass(frozen=True, kw_only=True)
class UpOptions:
    """What the command line says. A port of None: the one of the last start, else the usual one if it is free."""

    directory: Path = DIRECTORY_DEFAULT
    functions: tuple[Path, ...] = ()
    jobs: tuple[Path, ...] = ()
    config: Path | None = None
    device: str = ""
    host: str = ""
    mqtt_port: int | None = None
    http_port: int | None = None


def _class_of(section: str) -> type[Any]:
    """The settings class of a part; those of a device are known to this room by name only."""
    module, _, name = SECTIONS[section].partition(":")
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def _check_file(kind: str, file: Path) -> None:
    """StopError when a person's file is not there or no Python; what it does when it runs is its process' business."""
    if not file.is_file():
        raise StopError(f"{kind} file {file} does not exist; check the path")
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        place = file if error.lineno is None else f"{file}:{error.lineno}"
        raise StopError(f"{place}: SyntaxError: {error.msg}; mend the file, then start again") from None
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise StopError(f"{kind} file {file} cannot be read: {error}") from None


def worker_names(jobs: tuple[Path, ...]) -> list[str]:
    """A status file's name for the worker of each job file, different for each."""
    names: list[str] = []
    for file in jobs:
        base = name = f"worker-{re.sub(r'[^A-Za-z0-9_.-]+', '-', file.stem)}"
        number = 1
        while name in names:
            number += 1
            name = f"{base}-{number}"
        names.append(name)
    return names


def loading_failure(status: Mapping[str, Any]) -> tuple[bool, str]:
    """(whether every function of the agent runs, what keeps one from being loaded), by the agent's status."""
    functions = [one for one in status.get("functions") or () if isinstance(one, dict)]
    for one in functions:
        if not one.get("version") and one.get("last_error"):
            return False, f"{one.get('name')}: {one['last_error']}"
    return bool(functions) and all(one.get("version") for one in functions), ""


class Up:
    """One run of `edgewater up`."""

    def __init__(self, options: UpOptions, out: TextIO | None = None) -> None:
        """Check what can be checked before anything starts. StopError says what a person has to do."""
        # Once imported, Faust has no spec to be found by.
        missing = [name for name in _NEEDED if not sys.modules.get(name) and importlib.util.find_spec(name) is None]
        if missing:
            raise StopError(f"`edgewater up` needs {', '.join(missing)}, not installed: pip install 'edgewater[all]'")
        for kind, files in (("function", options.functions), ("job", options.jobs)):
            for file in files:
                _check_file(kind, file)
        self.options = options
        self._out = out or sys.stdout
        self._configuration = Configuration(options.config)
        settings = {section: load(_class_of(section), section, file=options.config) for section in _SECTIONS}
        self._mqtt: MqttSettings = settings["mqtt"]
        self._log_port: int | None = settings["log"].port if self._configuration.says("log", "port") else None
        self._agent_settings = settings["agent"]
        self._device = options.device or self._agent_settings.device or device_name(socket.gethostname())
        self._host = options.host or self._mqtt.host
        if why := port_taken(self._host, 0):
            raise StopError(f"cannot listen at --host {quoted(self._host)}: {why}; use an address of this machine")
        check_device(self._device)
        self._ports: dict[str, int] = {}
        self._state = "starting"
        self._failure = ""
        self._status_at_s = self._alarms_at_s = 0.0
        self._alarms = AlarmWatch()
        self._parts: list[str] = []
        self._agent = ""
        self._stack = Stack(
            options.directory, configuration=self._configuration, on_event=self._event, on_check=self._checked
        )
        self._status = StatusFile(None, "up")

    def run(self) -> int:
        """Until SIGINT or SIGTERM; the exit status. StopError when a part cannot run."""
        signal.signal(signal.SIGTERM, _interrupt)
        # A shell starts background jobs with SIGINT ignored, which children would inherit.
        signal.signal(signal.SIGINT, _interrupt)
        started_at_s = time.monotonic()
        try:
            with self._stack:
                self._status = StatusFile(self._stack.supervisor.run_dir, "up")
                self._checked()
                addresses = self._start()
                self._state = "running"
                self._write_status()
                self._say_where(addresses, time.monotonic() - started_at_s)
                try:
                    self._watch()
                except KeyboardInterrupt:
                    self._state = "stopping"
                    self._write_status()
                    self._say("\nending")
            self._say("ended")
        except KeyboardInterrupt:
            stopped = self._state == "stopping"
            self._say("ended at once" if stopped else "\ninterrupted before everything was ready; ended")
            return 0 if stopped else _INTERRUPTED
        except StopError as error:
            self._failure = str(error).partition("\n")[0][:_FAILURE_CHARACTERS_MAX]
            raise
        finally:
            self._state = "stopped"
            self._write_status()
        return 0

    # Starting

    def _start(self) -> Addresses:
        options, stack = self.options, self._stack
        assert stack.lock is not None, "entered"
        kept = stack.lock.ports()
        if not is_loopback(self._host):
            self._event(
                f"warning: listening at {self._host}: every machine that reaches it may publish, subscribe and call "
                "functions, since there is no authentication"
            )
        wanted = options.mqtt_port
        if wanted is None and self._configuration.says("mqtt", "port"):
            wanted = self._mqtt.port
        port = self._choose("mqtt", wanted, kept)
        log_port = self._log_port
        if log_port is None:
            log_port = kept.get("log", 0)
            if log_port and port_taken("127.0.0.1", log_port):
                log_port = 0
        addresses = stack.start(host=self._host, mqtt_port=port, log_port=log_port)
        self._ports = {
            **kept,
            "mqtt": int(addresses.mqtt_url.rpartition(":")[2]),
            "log": int(addresses.bootstrap_servers.rpartition(":")[2]),
        }
        stack.lock.keep_ports(self._ports)
        names = worker_names(options.jobs)
        for name, file in zip(names, options.jobs, strict=True):
            stack.start_job(name, file)
        if self._configuration.mappings:
            names.append("mapping")
            stack.start_mapping("mapping")
        for name in names:
            stack.supervisor.wait_ready(name, START_TIMEOUT_S, lambda status: status.get("ready", True))
        if options.functions:
            self._start_agent(self._http_port(kept))
            if urls := self._http_urls():
                stack.lock.keep_ports({**self._ports, "http": min(int(url.rpartition(":")[2]) for url in urls)})
        return addresses

    def _http_port(self, kept: Mapping[str, int]) -> int:
        """The port of the first function that is served over HTTP; the next ones have the following."""
        wanted = self.options.http_port
        if wanted is None and self._configuration.says("agent", "http_port"):
            wanted = self._agent_settings.http_port
        return self._choose("http", wanted, kept) or any_free_ports(self._host, len(self.options.functions))

    def _choose(self, what: str, wanted: int | None, kept: Mapping[str, int]) -> int:
        """The port for `what`, 0 for any free one."""
        found = choose_port(
            what, wanted=wanted, kept=kept.get(what), usual=_USUAL_PORTS[what],
            taken=lambda port: port_taken(self._host, port),
        )  # fmt: skip
        return found or 0

    def _start_agent(self, http_port: int) -> None:
        stack = self._stack
        self._agent = stack.start_agent(
            self._device,
            [*map(str, self.options.functions), "--http-host", self._host, "--http-port", str(http_port)],
            drain_timeout_s=DRAIN_TIMEOUT_S,
            first_tries=1,
        )
        deadline_s = time.monotonic() + LOADING_TIMEOUT_S
        while True:
            loaded, failure = loading_failure(stack.supervisor.status(self._agent) or {})
            if failure:
                raise StopError(f"function file {failure}")
            if loaded:
                break
            if time.monotonic() > deadline_s:
                raise StopError(
                    f"the functions were not loaded after {LOADING_TIMEOUT_S:g} s; does a file compute at its top "
                    f"level?{stack.supervisor.last_words(self._agent)}"
                )
            if self._agent in stack.supervisor.check():
                words = stack.supervisor.last_words(self._agent)
                raise StopError(f"{self._agent} ended before its functions were loaded{words}")
            time.sleep(0.05)
        stack.supervisor.wait_ready(self._agent, START_TIMEOUT_S, lambda status: status.get("connected"))

    def _http_urls(self) -> list[str]:
        if not self._agent:
            return []
        status = self._stack.supervisor.status(self._agent) or {}
        return [str(one["url"]) for one in status.get("functions") or () if isinstance(one, dict) and one.get("url")]

    # Running

    def _watch(self) -> None:
        while True:
            self._stack.supervisor.check()
            time.sleep(_PAUSE_S)

    def _checked(self) -> None:
        """With every look at the parts: say how we are, and pass on their alarms."""
        now_s = time.monotonic()
        if now_s >= self._status_at_s:
            self._status_at_s = now_s + _STATUS_INTERVAL_S
            self._write_status()
            for name in self._stack.supervisor.services:
                for alarm in self._alarms.new(name, self._stack.supervisor.status(name) or {}):
                    self._event(f"ALARM {alarm.part}: {alarm.text}")

    def _write_status(self) -> None:
        addresses = self._stack.addresses
        self._status.write(
            state=self._state,
            failure=self._failure,
            directory=str(self.options.directory.absolute()),
            lake=str(self._stack.lake.absolute()),
            mqtt_url="" if addresses is None else addresses.mqtt_url,
            bootstrap_servers="" if addresses is None else addresses.bootstrap_servers,
            http_urls=self._http_urls(),
            services=[
                {
                    "name": service.name,
                    "pid": 0 if service.process is None else service.process.pid,
                    "restarts": service.restarts,
                }
                for service in self._stack.supervisor.services.values()
            ],
        )

    # Saying

    def _say(self, text: str) -> None:
        # Whoever read it may be gone, or the disk it goes to full: no reason to end the stack.
        with contextlib.suppress(OSError):
            print(text, file=self._out, flush=True)

    def _event(self, text: str) -> None:
        if not text.isprintable():
            # Loaded for what needs it only: it brings pyarrow with it.
            from lake.terminal import escaped

            text = "\n".join(map(escaped, text.splitlines()))
        self._say(f"{time.strftime('%H:%M:%S')}  {text}")

    def _say_where(self, addresses: Addresses, seconds: float) -> None:
        directory = self.options.directory
        at = "" if directory == DIRECTORY_DEFAULT else f" --dir {shlex.quote(str(directory))}"
        lines = [f"Edgewater runs in {directory}, ready after {seconds:.1f} s.", ""]
        lines.append(f"  MQTT    {addresses.mqtt_url}{self._from_elsewhere(addresses)}")
        lines += [f"  HTTP    {url}" for url in self._http_urls()]
        lines += [
            f"  log     {addresses.bootstrap_servers}   (for Kafka clients)",
            f"  lake    {addresses.lake}",
            "",
            f'  query   edgewater lake query{at} "{_QUERY}"',
            f"  status  edgewater status{at}",
        ]
        if not self._agent:
            lines.append(f"  send    edgewater agent run --device NAME --mqtt {addresses.mqtt_url}")
        self._say("\n".join([*lines, "", "Ctrl-C ends"]))

    def _from_elsewhere(self, addresses: Addresses) -> str:
        """What other machines write instead, where the broker listens at all addresses."""
        if is_loopback(self._host) or url_host(self._host) == self._host:
            return ""
        return f"   (other machines: mqtt://{socket.gethostname()}:{addresses.mqtt_url.rpartition(':')[2]})"


def _interrupt(_signal: int, _frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt
