"""Mistakes that people make: each gives one message with the value, the place and the next step, and fails."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import lake
from tests.kit.mistakes import environment_for, mistake
from tests.kit.mosquitto import free_port
from tests.kit.processes import Product, edgewater
from tests.kit.services import EmbeddedLog
from tests.kit.wait import until

CALM = """
from edge_agent import every

@every(0.05)
def calm():
    return {"calm": 1.0}
"""


class TestCommandLine:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("agnet run", ["there is no noun 'agnet'; did you mean agent?", "`edgewater --help`"]),
            ("agent rnu", ["there is no verb 'rnu'; did you mean run?", "`edgewater agent --help`"]),
            ("agent run --devcie pump-7", ["there is no option --devcie; did you mean --device?"]),
            ("agent run --device", ["option --device needs a value", "`edgewater agent run --help`"]),
            ("agent run --dev pump-7", ["there is no option --dev; did you mean --device?"]),
            ("--verbose agent run", ["there is no option --verbose"]),
            ("log", ["a verb is missing; use one of run"]),
            ("demo --seconds soon", ["--seconds", "'soon' is no time; use 5 to 3600 seconds"]),
            ("demo 30", ["'30' is one argument too many"]),
            ("lake query --dir x --format xml y", ["--format is 'xml'; use one of table, csv, json"]),
            ("kafka run", ["--dir is missing", "`edgewater kafka run --help`"]),
            ("completion powershell", ["'powershell'; use one of bash, zsh, fish"]),
            ("help agnet", ["there is no noun 'agnet'; did you mean agent?"]),
        ],
    )
    def test_a_mistyped_word(self, tmp_path: Path, line: str, words: list[str]) -> None:
        """Noun, verb, option, value: the nearest right one and the help that shows more; status 2; nothing was done."""
        found = mistake(tmp_path, *line.split(), debug=False)
        found.says(2, *words)
        assert found.err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


class TestSettings:
    def test_on_the_command_line(self, tmp_path: Path) -> None:
        """A value out of bounds, of another type, and none of the choices."""
        mistake(tmp_path, "agent", "run", "--spool-bytes-max", "1kB").says(
            1, "option --spool-bytes-max is 1000; the least allowed is 8388608"
        )
        mistake(tmp_path, "log", "run", "--port", "http").says(1, "option --port is 'http'; use a whole number")
        mistake(tmp_path, "agent", "run", "--spool-policy", "drop").says(
            1, "option --spool-policy is 'drop'; use one of reject, drop-oldest, drop-lowest-priority"
        )

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("EDGEWATER_AGENT__DEVCIE", "there is no setting 'devcie'; did you mean device?"),
            ("EDGEWATER_AGNET__DEVICE", "there is no section 'agnet'; did you mean agent?"),
            ("EDGEWATER_AGENT__STALL_S", "environment variable EDGEWATER_AGENT__STALL_S is 'pump-7'; use a number"),
            ("EDGEWATER_AGENT_DEVICE", "sets nothing; did you mean EDGEWATER_AGENT__DEVICE?"),
        ],
    )
    def test_in_the_environment(self, tmp_path: Path, name: str, words: str) -> None:
        """The variable, what is wrong with it, and what to write."""
        mistake(tmp_path, "agent", "run", environment={name: "pump-7"}).says(1, name, words)

    @pytest.mark.parametrize("part", ["agent", "mqtt", "log", "bridge", "worker"])
    def test_in_a_file(self, tmp_path: Path, part: str) -> None:
        """Every part says file and line of a name that does not exist."""
        (tmp_path / "edgewater.toml").write_text(f"# ours\n[{part}]\n\nrun_drr = 'x'\n")
        mistake(tmp_path, part, "run", "--config", "edgewater.toml").says(
            1, f"edgewater.toml:4 [{part}]: there is no setting 'run_drr'"
        )

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("[agnet]\ndevice = 'x'\n", "edgewater.toml:1: there is no section 'agnet'; did you mean agent?"),
            ("[agent]\ndevice = pump-7\n", "edgewater.toml:2: this is not TOML"),
            ("[agent]\nspool_bytes_max = true\n", "edgewater.toml:2 [agent] spool_bytes_max is True; use a number"),
        ],
    )
    def test_a_wrong_file(self, tmp_path: Path, content: str, words: str) -> None:
        """A section that does not exist, bad TOML, a wrong type."""
        (tmp_path / "edgewater.toml").write_text(content)
        mistake(tmp_path, "agent", "run", "--config", "edgewater.toml").says(1, words)

    def test_no_file(self, tmp_path: Path) -> None:
        """A path that leads nowhere, and one that leads to a directory."""
        mistake(tmp_path, "agent", "run", "--config", "edge.toml").says(1, "edge.toml does not exist; check the path")
        mistake(tmp_path, "agent", "run", "--config", ".").says(1, "is a directory; give the file in it")

    @pytest.mark.parametrize(
        ("command", "url"),
        [
            (["agent", "run", "--mqtt"], "http://me:secret@10.0.0.5"),
            (["agent", "run", "--mqtt"], "mqtt://me:secret@10.0.0.5:port"),
            (["agent", "run", "--mqtt"], "mqtt://me:se/secret@10.0.0.5"),
            (["agent", "run", "--mqtt"], "mqtt://me:secret,secret@10.0.0.5"),
            (["agent", "run", "--mqtt"], "me:secret@10.0.0.5"),
            (["agent", "run", "--stall-s"], "mqtt://me:secret@10.0.0.5"),
            (["bridge", "run", "--mqtt-url"], "http://me:secret@10.0.0.5"),
            (["bridge", "run", "--mqtt-url"], "mqtt://me:secret@10.0.0.5:port"),
        ],
    )
    def test_no_password_is_shown(self, tmp_path: Path, command: list[str], url: str) -> None:
        """A URL that is wrong, or in the wrong place, is quoted without user and password; with --debug, too."""
        found = mistake(tmp_path, *command, url)
        found.says(1, "***")
        assert "secret" not in found.err


class TestLake:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A directory with an empty lake in it."""
        lake.open(tmp_path / "lake", create=True)
        return tmp_path

    def test_wrong_sql(self, folder: Path) -> None:
        """A mistyped word of SQL and a table that does not exist."""
        mistake(folder, "lake", "query", "--dir", "lake", "SELEKT 1").says(1, "SELEKT", "syntax error")
        mistake(folder, "lake", "query", "--dir", "lake", "SELECT * FROM raedings").says(1, "raedings")

    def test_a_directory_without_a_lake(self, tmp_path: Path) -> None:
        """It is named, and nothing is made there."""
        mistake(tmp_path, "lake", "query", "--dir", "none", "SELECT 1").says(1, "there is no lake in none")
        assert list(tmp_path.iterdir()) == []

    def test_standard_output_on_a_full_disk(self, folder: Path) -> None:
        """What cannot be written is an error, not silence."""
        done = mistake(folder, "settings", before="exec > /dev/full", debug=False)
        done.says(1, "standard output: no space is left on its disk; free some")

    def test_a_reader_that_has_seen_enough_is_no_error(self, folder: Path) -> None:
        """`| head -1` ends a command quietly."""
        with subprocess.Popen(
            [sys.executable, "-m", "edge_agent.cli", "settings"],
            cwd=folder, env=environment_for(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) == 0


class TestDevice:
    def test_a_wrong_name(self, tmp_path: Path) -> None:
        """The name, and what may be in one."""
        mistake(tmp_path, "agent", "run", "--device", "pump 7").says(
            1, "device name 'pump 7' is not allowed; use 1 to 128"
        )

    def test_a_function_file_that_does_not_exist(self, tmp_path: Path) -> None:
        """The path, and what to check."""
        mistake(tmp_path, "agent", "run", "boilr.py").says(1, "boilr.py does not exist; check the path")

    def test_a_second_agent_on_one_spool(self, tmp_path: Path) -> None:
        """The directory, and the two ways out; the first agent goes on."""
        url = f"mqtt://127.0.0.1:{free_port()}"
        command = edgewater("agent", "run", "--device", "a", "--dir", tmp_path / "s", "--mqtt", url,
                            "--run-dir", tmp_path / "run")  # fmt: skip
        with Product(tmp_path / "run", "agent-a", command) as first:
            first.ready()
            mistake(tmp_path, "agent", "run", "--device", "a", "--dir", "s", "--mqtt", url).says(
                1, "spool s is in use by another process; stop that one, or give this agent a --dir of its own"
            )
            assert first.alive

    def test_the_spool_of_another_device(self, tmp_path: Path) -> None:
        """A directory that belongs to another device's spool is named, with the name to give."""
        url = f"mqtt://127.0.0.1:{free_port()}"
        command = edgewater("agent", "run", "--device", "a", "--dir", tmp_path / "s", "--mqtt", url,
                            "--run-dir", tmp_path / "run")  # fmt: skip
        with Product(tmp_path / "run", "agent-a", command) as first:
            first.ready()
        mistake(tmp_path, "agent", "run", "--device", "b", "--dir", "s").says(
            1, "belongs to device 'a', not 'b'; give --device a, or another --dir"
        )

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """When the spool cannot grow any more the agent says so, once, with the path and what to do, and goes on."""
        (tmp_path / "calm.py").write_text(CALM)
        command = edgewater("agent", "run", "calm.py", "--device", "a", "--dir", "s", "--mqtt",
                            f"mqtt://127.0.0.1:{free_port()}", "--run-dir", tmp_path / "run")  # fmt: skip
        limited = ["bash", "-c", 'ulimit -f 120; exec "$@"', "bash", *command]
        (tmp_path / "run").mkdir()
        with Product(tmp_path / "run", "agent-a", limited) as agent:
            (tmp_path / "run" / "calm.py").write_text(CALM)
            until(lambda: "free space on its disk" in agent.tail(), 60, "a message")
            assert agent.terminate() == 0
        assert "s/spool.sqlite" in agent.tail()
        assert "Traceback" not in agent.tail()


class Refusing:
    """A broker that answers every CONNECT with `not authorized`."""

    def __init__(self) -> None:
        self.attempts = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                self.attempts += 1
                with connection:
                    connection.recv(4096)
                    connection.sendall(b"\x20\x02\x00\x05")

    def close(self) -> None:
        """End it; closing alone would leave its thread waiting."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def refusing() -> Iterator[Refusing]:
    """A broker that refuses everybody."""
    found = Refusing()
    yield found
    found.close()


class TestBroker:
    def said_once(self, tmp_path: Path, url: str, words: str, tried: Callable[[], bool] = lambda: True) -> None:
        """An agent with a broker of no use says so once, over several attempts; what it measured stays in the spool."""
        command = edgewater("agent", "run", "--device", "a", "--dir", "s", "--mqtt", url, "--run-dir", tmp_path / "run",
                            "--drain-timeout-s", "0.1")  # fmt: skip
        with Product(tmp_path / "run", "agent-a", command) as agent:
            until(lambda: words in agent.tail(), 30, words)
            until(tried, 60, "several attempts")
            until(lambda: (agent.status() or {}).get("rows_accepted", 0) > 0, 30, "rows in the spool")
            assert agent.terminate() == 3
            said = agent.tail()
        assert said.count(words) == 1
        assert "rows wait in the spool" in said
        assert "batches wait in the spool s for the next start" in said
        assert "secret" not in said
        assert "Traceback" not in said

    def test_unreachable(self, tmp_path: Path) -> None:
        """Nobody listens: the address without the password, what to check, where the rows are; exit status 3."""
        port = free_port()
        words = f"mqtt://127.0.0.1:{port}: Connection refused; check the broker's address, and that it runs"
        self.said_once(tmp_path, f"mqtt://me:secret@127.0.0.1:{port}", words)

    def test_refusing(self, tmp_path: Path, refusing: Refusing) -> None:
        """The broker does not take the password: who refuses, why, and what to check."""
        words = f"mqtt://127.0.0.1:{refusing.port}: the broker refuses the connection: Not authorized; check user"
        self.said_once(tmp_path, f"mqtt://me:secret@127.0.0.1:{refusing.port}", words, lambda: refusing.attempts >= 3)


class TestBridge:
    def said_once(self, tmp_path: Path, port: int, words: str, tried: Callable[[], bool] = lambda: True) -> None:
        """A bridge with a broker of no use says so once, over several attempts, and goes on trying."""
        with EmbeddedLog(tmp_path / "log", tmp_path / "run") as log:
            command = edgewater("bridge", "run", "--bootstrap-servers", log.bootstrap_servers, "--run-dir",
                                tmp_path / "run", "--mqtt-url", f"mqtt://me:secret@127.0.0.1:{port}")  # fmt: skip
            with Product(tmp_path / "run", "bridge", command) as bridge:
                until(lambda: words in bridge.tail(), 60, words)
                until(tried, 60, "several attempts")
                assert bridge.terminate() == 0
                said = bridge.tail()
        assert said.count(words) == 1
        assert "secret" not in said
        assert "Traceback" not in said

    def test_unreachable(self, tmp_path: Path) -> None:
        """Nobody listens: the address and what to check."""
        port = free_port()
        words = f"MQTT broker 127.0.0.1:{port} cannot be reached: Connection refused; check mqtt_url"
        self.said_once(tmp_path, port, words)

    def test_refusing(self, tmp_path: Path, refusing: Refusing) -> None:
        """The broker does not take the password."""
        words = f"MQTT broker 127.0.0.1:{refusing.port} refuses the connection: Not authorized; check user and password"
        self.said_once(tmp_path, refusing.port, words, lambda: refusing.attempts >= 3)


class TestServers:
    def test_a_port_that_is_taken(self, tmp_path: Path) -> None:
        """Broker and log name the address and the way out."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = str(other.getsockname()[1])
            words = f"cannot listen on 127.0.0.1:{port}: Address already in use; another process listens there"
            mistake(tmp_path, "mqtt", "run", "--port", port).says(1, words)
            mistake(tmp_path, "log", "run", "--dir", "log", "--port", port).says(1, words)

    def test_an_address_of_another_machine(self, tmp_path: Path) -> None:
        """The host is wrong, not the port."""
        for noun in ("mqtt", "log"):
            mistake(tmp_path, noun, "run", "--host", "192.0.2.1", "--port", "0").says(
                1, "cannot listen on 192.0.2.1:0", "this machine has no such address; give another --host"
            )

    def test_a_second_log_on_one_directory(self, tmp_path: Path) -> None:
        """The directory, who holds it, and the way out; the first one goes on."""
        command = edgewater("log", "run", "--dir", tmp_path / "log", "--port", "0", "--run-dir", tmp_path / "run")
        with Product(tmp_path / "run", "log", command) as first:
            first.ready(60)
            mistake(tmp_path, "log", "run", "--dir", "log", "--port", "0").says(
                1, f"log directory log is in use by process {first.pid}; end that one, or give another --dir"
            )
            assert first.alive

    def test_a_log_on_a_full_disk(self, tmp_path: Path) -> None:
        """It does not start, and says which file could not be written."""
        mistake(tmp_path, "log", "run", "--dir", "log", "--port", "0", before="ulimit -f 0").says(
            1, "log: the largest file that is allowed is reached; raise the limit"
        )

    def test_a_log_that_is_no_address(self, tmp_path: Path) -> None:
        """The worker says what to write."""
        mistake(tmp_path, "worker", "run", "--bootstrap-servers", "nowhere").says(
            1, "bootstrap_servers is 'nowhere'; write host:port"
        )


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize(
    ("missing", "command", "extra"),
    [
        (["pyarrow", "deltalake", "duckdb"], ["lake", "query", "--dir", ".", "SELECT 1"], "lake"),
        (["amqtt"], ["mqtt", "run", "--port", "0"], "embedded"),
        (["kafka"], ["log", "run", "--port", "0"], "stream"),
        (["kafka"], ["bridge", "run"], "stream"),
        (["faust"], ["worker", "run"], "stream"),
    ],
)
def test_a_missing_extra(tmp_path: Path, missing: list[str], command: list[str], extra: str) -> None:
    """Without its libraries a command says which package it needs and how it is installed."""
    found = mistake(tmp_path, *command, code=BLOCKED.format(names=missing))
    found.says(1, f"which is not installed: pip install 'edgewater[{extra}]'")


ON_A_TERMINAL = [
    ["--help"],
    ["lake", "query", "--dir", "lake", "SELECT chr(27) || '[31mred' AS c"],
    ["agent", "run", "--devcie"],
    ["agent", "run", "--device", "\x1b[31m"],
]
QUIET = [
    *ON_A_TERMINAL,
    ["--version"],
    ["help", "agent", "run"],
    ["lake", "--help"],
    ["demo", "--help"],
    ["settings", "agent"],
    ["completion", "bash"],
    ["mqtt", "config"],
    ["lake", "tables", "--dir", "lake"],
]
"""Commands that end by themselves, within a second or so."""


@pytest.mark.parametrize(
    ("where", "command"),
    [
        *(("pipe", command) for command in QUIET),
        *((where, command) for where in ("NO_COLOR", "dumb") for command in ON_A_TERMINAL),
    ],
)
def test_no_escape_codes(tmp_path: Path, where: str, command: list[str]) -> None:
    """Neither into a pipe, nor on a terminal with NO_COLOR or TERM=dumb does any command print an escape code."""
    lake.open(tmp_path / "lake", create=True)
    variables = {"pipe": {"TERM": "xterm"}, "NO_COLOR": {"TERM": "xterm", "NO_COLOR": "1"}, "dumb": {"TERM": "dumb"}}
    shown = seen_by(tmp_path, command, variables[where], terminal=where != "pipe")
    assert shown.strip()
    assert "\x1b" not in shown


def seen_by(folder: Path, command: list[str], variables: dict[str, str], *, terminal: bool) -> str:
    """Everything that the command writes, to a pipe or to a terminal."""
    environment = environment_for(variables)
    words = [sys.executable, "-m", "edge_agent.cli", *command]
    if not terminal:
        done = subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done.stdout + done.stderr
    master, slave = pty.openpty()
    with subprocess.Popen(words, cwd=folder, env=environment, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        shown = b""
        with contextlib.suppress(OSError):
            while select.select([master], [], [], 60)[0] and (more := os.read(master, 65536)):
                shown += more
        process.wait(60)
    os.close(master)
    return shown.decode("utf-8", "replace")


def test_an_agent_on_a_terminal(tmp_path: Path) -> None:
    """Lines of the log are short: the time of day, the level, and what happened."""
    master, slave = pty.openpty()
    words = [sys.executable, "-m", "edge_agent.cli", "agent", "run", "--device", "a", "--dir", "s", "--mqtt",
             f"mqtt://127.0.0.1:{free_port()}"]  # fmt: skip
    shown = ""
    with subprocess.Popen(words, cwd=tmp_path, env=environment_for(), stdin=slave, stdout=slave, stderr=slave) as agent:
        os.close(slave)
        while not ("rows wait" in shown and "agent a runs" in shown) and select.select([master], [], [], 60)[0]:
            shown += os.read(master, 65536).decode()
        agent.send_signal(signal.SIGINT)
        assert agent.wait(30) == 0
    os.close(master)
    assert re.search(r"^\d\d:\d\d:\d\d INFO    agent a runs, spool in s\r$", shown, re.MULTILINE)
    assert re.search(r"^\d\d:\d\d:\d\d WARNING mqtt://127.0.0.1:\d+: Connection refused; ", shown, re.MULTILINE)
