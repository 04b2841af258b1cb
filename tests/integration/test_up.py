"""`edgewater up` and `edgewater status` as real processes: start, rows, the end, going on, parts that die."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lake
from edge_agent.contract.reports import encode_report, make_report
from edge_agent.contract.topics import report_topic
from tests.kit.mqtt_client import MqttClient
from tests.kit.processes import Product, edgewater
from tests.kit.wait import until

FUNCTION = """\
from edge_agent import every

@every(0.1)
def boiler():
    return {"temperature": 71.5}
"""


class Running:
    """One `up` on a directory, started as often as the test wants."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.product = Product(directory / "run", "up", edgewater("up", "--dir", directory, *options))
        self._said = 0

    def start(self) -> Running:
        """Start, and wait until everything is ready."""
        self._said = len(self.output)
        self.product.start()
        until(lambda: "Ctrl-C ends" in self.said or not self.product.alive, 60, "the last line of the start")
        assert self.product.alive, self.said
        return self

    @property
    def output(self) -> str:
        """What all starts wrote."""
        path = self.product.stderr_path
        return path.read_text("utf-8") if path.exists() else ""

    @property
    def said(self) -> str:
        """What the present one wrote."""
        return self.output[self._said :]

    def status(self) -> tuple[int, dict[str, Any]]:
        """Exit status and document of `edgewater status --json`."""
        command = edgewater("status", "--dir", self.directory, "--json")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, json.loads(done.stdout)

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        self.product.signal(signal.SIGINT)
        return self.product.wait(30)

    def rows(self) -> int:
        """Rows of `readings` that readers see."""
        return lake.open(self.directory / "lake").snapshot().rows("readings")

    def processes(self) -> list[str]:
        """Command lines of live processes that name the directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if str(self.directory) in command:
                    found.append(command)
        return found


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Running]:
    """A stack with one function, not started yet."""
    (tmp_path / "boiler.py").write_text(FUNCTION)
    config = tmp_path / "edgewater.toml"
    config.write_text('[agent]\ndevice = "pi4"\n[bridge]\nname = "other"\n[worker]\ncommit_interval_s = 0.3\n')
    running = Running(
        tmp_path / "data", "--functions", str(tmp_path / "boiler.py"), "--config", str(config), "--mqtt-port", "0"
    )
    yield running
    running.product.kill()


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_stack_is_seen_ended_and_goes_on_where_it_stopped(up: Running, tmp_path: Path) -> None:
    """Rows land, `status` shows them, a second `up` is refused, Ctrl-C ends all; then the same ports and more rows."""
    up.start()
    urls = re.findall(r"mqtt://127\.0\.0\.1:\d+", up.said)
    assert f"lake    {up.directory / 'lake'}" in up.said
    report = make_report(time_us=1, backlog_batches=3, backlog_bytes=4000, rows_dropped=2, problem="no\x1b[31m network")
    with MqttClient("127.0.0.1", int(urls[0].rpartition(":")[2]), "far-away") as client:
        client.publish(report_topic("far-away"), encode_report(report))

    def well() -> dict[str, Any] | None:
        code, found = up.status()
        far = [one for one in found["devices"]["devices"] if one["device"] == "far-away"]
        return found if code == 0 and found["workers"][0]["rows_per_s"] and far else None

    document = until(well, 60, "rows on their way")
    assert [one["name"] for one in document["processes"]] == ["up", "mqtt", "log", "bridge", "worker", "agent-pi4"]
    assert {one["state"] for one in document["processes"]} == {"running"}
    assert document["stack"]["mqtt_url"] == urls[0]
    assert document["workers"][0]["lag_records"] is not None
    assert document["lake"]["transaction"] > 0
    devices = {one["device"]: one for one in document["devices"]["devices"]}
    assert devices["far-away"]["problem"] == "no\x1b[31m network"
    assert (devices["far-away"]["backlog_batches"], devices["far-away"]["rows_dropped"]) == (3, 2)
    assert devices["pi4"]["rows"] > 0
    shown = subprocess.run(edgewater("status", "--dir", up.directory), capture_output=True, text=True, check=False)
    assert "all is well" in shown.stdout, shown.stdout
    assert r"no\x1b[31m network" in shown.stdout
    assert "\x1b" not in shown.stdout

    second = subprocess.run(edgewater("up", "--dir", up.directory), capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"in use by process {up.product.pid}" in second.stderr

    started_at = time.monotonic()
    assert up.interrupt() == 0, up.said
    assert time.monotonic() - started_at < 20
    assert up.processes() == []
    assert up.status()[0] == 1
    rows = up.rows()
    assert rows > 0

    up.product.command = [word for word in up.product.command if word not in ("--mqtt-port", "0")]
    up.start()
    assert re.findall(r"mqtt://127\.0\.0\.1:\d+", up.said) == urls
    until(lambda: up.rows() > rows, 30, "more rows")
    assert up.interrupt() == 0
    assert up.processes() == []


@pytest.mark.long
@pytest.mark.timeout(180)
def test_a_part_that_dies_is_started_again_and_a_killed_up_takes_all_with_it(up: Running) -> None:
    """`status` fails while the bridge is gone and says so; it tells of the restart; kill -9 of `up` leaves nothing,
    and the next one starts at once."""
    up.start()
    until(lambda: up.status()[0] == 0, 30, "all is well")
    bridge = next(one["pid"] for one in up.status()[1]["processes"] if one["name"] == "bridge")
    os.kill(bridge, signal.SIGKILL)
    until(lambda: "bridge was ended by SIGKILL; starting again" in up.said, 10, "the event")
    until(lambda: "bridge runs again" in up.said, 30, "the second event")

    def again() -> bool:
        code, document = up.status()
        return code == 0 and next(one["restarts"] for one in document["processes"] if one["name"] == "bridge") == 1

    until(again, 30, "all is well again")
    up.product.kill()
    code, document = up.status()
    assert code == 1
    assert "nothing runs" in document["problems"][0]
    up.start()
    assert up.interrupt() == 0
    assert up.processes() == []


@pytest.mark.long
@pytest.mark.timeout(120)
def test_ctrl_c_twice_leaves_nothing(up: Running) -> None:
    """Impatience ends it at once, also while it starts."""
    up.product.start()
    until(lambda: list((up.directory / "run").glob("bridge.json")), 40, "the bridge's status")
    up.product.signal(signal.SIGINT)
    until(lambda: "interrupted" in up.said or '"stopped"' in (up.directory / "run" / "up.json").read_text(), 30)
    assert up.product.wait(20) == 130, up.said
    until(lambda: not up.processes(), 20, "the end of the parts")
    up.start()
    up.product.signal(signal.SIGINT)
    until(lambda: "ending" in up.said, 10, "the answer to Ctrl-C")
    up.product.signal(signal.SIGINT)
    assert up.product.wait(20) == 0
    assert "Traceback" not in up.said
    until(lambda: not up.processes(), 20, "the end of the parts")


@pytest.mark.timeout(120)
def test_a_function_file_that_cannot_be_loaded_ends_up(up: Running, tmp_path: Path) -> None:
    """With the place of the mistake and status 1, and nothing goes on running; bad syntax before anything starts."""
    file = tmp_path / "boiler.py"
    file.write_text(FUNCTION + "raise RuntimeError('no sensor')\n")
    up.product.start()
    assert up.product.wait(90) == 1
    assert re.search(r"no sensor \(.*boiler\.py:6\)", up.output), up.output
    assert "Traceback" not in up.output
    assert up.processes() == []
    file.write_text(FUNCTION + "def broken(:\n")
    done = subprocess.run(up.product.command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"edgewater: {file}:6: SyntaxError: invalid syntax; mend the file, then start again\n"


def test_a_directory_without_a_stack_is_an_error_that_says_how_to_start_one(tmp_path: Path) -> None:
    """One line, status 1."""
    done = subprocess.run(edgewater("status", "--dir", tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    why = f"the directory {tmp_path} holds no stack (it has no run/)"
    assert done.stderr == f"edgewater: {why}; start one: edgewater up --dir {tmp_path}\n"
