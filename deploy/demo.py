"""The demo: this machine's own readings from a device function to an SQL answer, and the proof that none is lost.

Steps, in order: start broker, log, bridge, worker and an agent with the built-in `host` function; show their
progress; let the agent drain its spool; wait until the lake has everything; hold the lake against the ledger of
what the spool accepted; print one query, a chart and what to try next.

**Delivery**: exit status 0 only when each accepted row is in the lake exactly once with its values.
**Bounds**: `seconds` of measuring, DRAIN_TIMEOUT_S for draining, LANDING_TIMEOUT_S for landing; no process is left
behind.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lake
from edge_agent.contract.errors import StopError
from edge_agent.contract.status import read_status
from lake.chart import chart_lines

from .display import Display, Progress
from .stack import Stack, device_name
from .verify import Comparison, compare

__all__ = ["Demo", "device_name"]

DRAIN_TIMEOUT_S = 15.0
LANDING_TIMEOUT_S = 60.0
_INTERRUPTED = 130
_QUERY = """\
SELECT name, count(*) AS readings, round(avg(value), 2) AS mean, round(max(value), 2) AS highest
FROM readings WHERE name IN ('cpu_percent', 'load_1m', 'memory_used_bytes', 'processes')
GROUP BY name ORDER BY name"""


class Demo:
    """One run of `edgewater demo`. `seconds` None: until Ctrl-C."""

    def __init__(self, directory: Path | None, seconds: float | None) -> None:
        self.directory = (directory or Path(tempfile.mkdtemp(prefix="edgewater-demo-"))).absolute()
        self.seconds = seconds
        self.device = device_name(socket.gethostname())
        self._display = Display()
        self._stack = Stack(self.directory)

    def run(self) -> int:
        """The whole demo; its exit status."""
        print(f"Edgewater demo: readings of this machine ({self.device}), exactly once, in {self.directory}\n")
        try:
            with self._stack:
                return self._measured()
        except KeyboardInterrupt:
            print("\nInterrupted; every process of the demo has ended.", file=sys.stderr)
            return _INTERRUPTED

    def _measured(self) -> int:
        started_at = time.monotonic()
        addresses = self._stack.start()
        agent = self._stack.start_agent(self.device, ["--ledger", "true"], drain_timeout_s=DRAIN_TIMEOUT_S)
        print(
            f"broker {addresses.mqtt_url}, log {addresses.bootstrap_servers}, bridge, worker and agent are up "
            f"after {time.monotonic() - started_at:.1f} s\n"
        )
        self._watch(agent)
        comparison = self._drained(agent)
        self._display.show(self._progress(agent, "drained"), final=True)
        if not comparison.equal:
            return self._failed(comparison)
        print(
            f"\nThe spool accepted {comparison.accepted:,} rows; each of them is in the lake exactly once, "
            "with the same identity and value."
        )
        self._show_query()
        return 0

    def _watch(self, agent: str) -> None:
        end_at = math.inf if self.seconds is None else time.monotonic() + self.seconds
        try:
            while time.monotonic() < end_at:
                self._stack.supervisor.check()
                self._display.show(self._progress(agent, "measuring; Ctrl-C ends"))
                time.sleep(0.25)
        except KeyboardInterrupt:
            if self.seconds is not None:
                raise

    def _progress(self, agent: str, note: str) -> Progress:
        device: dict[str, Any] = self._read(agent)
        worker: dict[str, Any] = self._read("worker")
        freshness = worker.get("freshness") or {}
        return Progress(
            accepted=device.get("rows_accepted", 0),
            sent=device.get("rows_sent", 0),
            durable=device.get("rows_durable", 0),
            landed=worker.get("rows_landed", 0),
            freshness_p50_s=freshness.get("p50_s"),
            freshness_p99_s=freshness.get("p99_s"),
            note=note,
        )

    def _read(self, name: str) -> dict[str, Any]:
        return read_status(self._stack.supervisor.run_dir, name) or {}

    def _drained(self, agent: str) -> Comparison:
        """Let the agent empty its spool into the log, then wait until the lake holds all that the spool accepted."""
        self._display.show(self._progress(agent, "draining"))
        status = self._stack.supervisor.end(agent)
        if status != 0:
            raise StopError(
                f"the agent ended with status {status} before its spool was empty; the end of its log:\n"
                f"{self._stack.supervisor.tail(agent)}"
            )
        spool = self._stack.agent_directory(self.device) / "spool.sqlite"
        deadline = time.monotonic() + LANDING_TIMEOUT_S
        while True:
            self._stack.supervisor.check()
            comparison = compare([spool], self._stack.lake)
            if comparison.equal or comparison.doubled or comparison.foreign or time.monotonic() > deadline:
                return comparison
            time.sleep(0.25)

    def _failed(self, comparison: Comparison) -> int:
        print(f"\nThe lake does not equal the ledger: {comparison}", file=sys.stderr)
        print(f"Logs of every process: {self._stack.supervisor.run_dir}", file=sys.stderr)
        return 1

    def _show_query(self) -> None:
        snapshot = lake.open(self._stack.lake).snapshot()
        query = f"{_command()} lake query --dir {shlex.quote(str(self._stack.lake))}"
        print(f'\n  {query} "{" ".join(_QUERY.split())}"\n')
        print(snapshot.query(_QUERY).render())
        load = snapshot.query("SELECT value FROM readings WHERE name = 'cpu_percent' ORDER BY ts").arrow()
        print("\nCPU of this machine while the demo ran, percent:\n")
        print("\n".join(f"  {line}" for line in chart_lines(load.column(0).to_pylist(), unit=" %")))
        print(f"\nThe lake is in {self._stack.lake}. Next:")
        for arguments in (
            'query "SELECT * FROM readings_1m ORDER BY minute, name LIMIT 20"',
            "tables",
            "log",
        ):
            verb, _, rest = arguments.partition(" ")
            print(f"  {_command()} lake {verb} --dir {shlex.quote(str(self._stack.lake))} {rest}".rstrip())
        print(f"  {_command()} demo --dir {shlex.quote(str(self.directory))} --seconds 10   # goes on from here")


def _command() -> str:
    """How this very `edgewater` can be called again from the present directory."""
    called = Path(sys.argv[0])
    if shutil.which("edgewater") or called.name != "edgewater":
        return "edgewater"
    return shlex.quote(os.path.relpath(called))
