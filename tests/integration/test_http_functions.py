"""A WSGI app as a function of a real agent: served unmodified, killed under load, stopped, and told what is wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kit.http import HttpCaller, call
from tests.kit.mosquitto import free_port
from tests.kit.processes import ROOT, Product, edgewater
from tests.kit.wait import until

pytestmark = pytest.mark.long

DEVICE = "pump-7"
HELLO = ROOT / "examples" / "hello_flask.py"
UNGUARDED = """
from flask import Flask

app = Flask(__name__)

@app.get("/")
def hello():
    return "unguarded"

app.run(port=1)
"""
BUGS = """
import os
import sys

from flask import Flask, request

app = Flask(__name__)

@app.get("/bug")
def bug():
    return {}["nothing"]

@app.get("/exit")
def leave():
    sys.exit(3)

@app.get("/crash")
def crash():
    os._exit(4)

@app.get("/pid")
def pid():
    return str(os.getpid())
"""


class Agent(Product):
    """An agent without a broker, with function files."""

    def __init__(self, tmp_path: Path, *arguments: str | Path, port: int = 0) -> None:
        self.port = port
        command = edgewater(
            "agent", "run", *arguments, "--device", DEVICE, "--mqtt", f"mqtt://127.0.0.1:{free_port()}",
            "--dir", tmp_path / "spool", "--run-dir", tmp_path / "run", "--http-port", str(port),
        )  # fmt: skip
        super().__init__(tmp_path / "run", f"agent-{DEVICE}", command)

    def function(self, name: str) -> dict[str, Any]:
        """The entry of a function in the status file, when it runs."""

        def running() -> dict[str, Any] | None:
            states = (self.status() or {}).get("functions", [])
            return next((one for one in states if one["name"] == name and one["state"] == "running"), None)

        return until(running, 30, f"function {name}: {self.tail()}")

    def port_of(self, name: str) -> int:
        """The port at which an app is served."""
        return int(self.function(name)["url"].rpartition(":")[2])


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture
def hello(tmp_path: Path) -> Iterator[Agent]:
    """An agent that serves examples/hello_flask.py."""
    with Agent(tmp_path, HELLO) as agent:
        yield agent


def test_the_example_runs_unmodified(hello: Agent) -> None:
    """It answers, its log says where, and its counters are in the status file."""
    port = hello.port_of("hello_flask")
    assert call(port, "GET", "/").body == b"Hello, World!"
    assert call(port, "POST", "/add", {"a": 1, "b": 2}).json == {"result": 3}
    assert call(port, "POST", "/add", {"a": 1}).json == {"error": "missing key 'b'"}
    assert f"http://127.0.0.1:{port} serves hello_flask" in hello.tail()

    def counted() -> bool:
        state = hello.function("hello_flask")
        return (state["requests"], state["errors_4xx"], state["errors_5xx"]) == (3, 1, 0)

    until(counted, 10, "counters")
    assert "Traceback" not in hello.tail()


def test_a_large_body(hello: Agent) -> None:
    """More than http_body_bytes_max (1 MiB) is a 413 in JSON."""
    answer = call(hello.port_of("hello_flask"), "POST", "/add", body=bytes((1 << 20) + 1))
    assert answer.status == 413
    assert "http_body_bytes_max of 1048576" in answer.json["error"]


def test_killed_under_load(hello: Agent) -> None:
    """kill -9 of the function's process loses the requests under way only: no connection is ever refused, and new ones
    are answered by the next process."""
    port = hello.port_of("hello_flask")
    stop = threading.Event()
    answered, cut, refused = [0] * 4, [0] * 4, [0] * 4

    def load(number: int) -> None:
        while not stop.is_set():
            try:
                with HttpCaller(port, 30) as caller:
                    for _ in range(20):
                        assert caller.request("POST", "/add", {"a": 1, "b": number}).json == {"result": 1 + number}
                        answered[number] += 1
            except (EOFError, ConnectionResetError, BrokenPipeError):
                cut[number] += 1
            except ConnectionRefusedError:
                refused[number] += 1

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for kills in range(1, 4):
            before = sum(answered)
            until(lambda before=before: sum(answered) > before + 50, 30, "answers")
            os.kill(hello.function("hello_flask")["pid"], signal.SIGKILL)
            until(lambda kills=kills: hello.function("hello_flask")["starts"] == kills + 1, 30, "the next process")
        before = sum(answered)
        until(lambda: sum(answered) > before + 50, 30, "answers of the last process")
    finally:
        stop.set()
        for thread in threads:
            thread.join(40)
    assert sum(refused) == 0
    assert all(each <= 3 for each in cut), cut


def test_connections_wait_while_the_process_is_started_again(hello: Agent) -> None:
    """A caller who comes while there is no process waits, and is answered."""
    port = hello.port_of("hello_flask")
    pid = hello.function("hello_flask")["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), 10, "the end of the process")
    with HttpCaller(port, 30) as caller:
        assert caller.request("GET", "/").body == b"Hello, World!"


def test_the_warm_parent_is_killed(hello: Agent) -> None:
    """kill -9 of the process that forks the functions costs the requests under way; callers who come then wait."""
    port = hello.port_of("hello_flask")
    before = hello.function("hello_flask")["pid"]
    parent = int(Path(f"/proc/{before}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent != hello.pid
    os.kill(parent, signal.SIGKILL)
    until(lambda: not alive(before), 10, "the end of its child")
    with HttpCaller(port, 30) as caller:
        assert caller.request("POST", "/add", {"a": 1, "b": 2}).json == {"result": 3}
    until(lambda: hello.function("hello_flask")["pid"] != before, 10, "the next process")
    assert hello.alive


def test_the_process_ends_with_the_agent(tmp_path: Path) -> None:
    """kill -9 of the agent ends the app's process, also while it hangs in a request; the port is free again."""
    (tmp_path / "hang.py").write_text(
        "import time\ndef app(environ, start_response):\n    print('hangs')\n    time.sleep(60)\n"
    )
    with Agent(tmp_path, tmp_path / "hang.py") as agent:
        port = agent.port_of("hang")
        pid = agent.function("hang")["pid"]
        with HttpCaller(port) as caller:
            caller.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: "hangs" in agent.tail(), 10)
            agent.kill()
            assert caller.closed()
        until(lambda: not alive(pid), 10, "the end of the app's process")
    until(lambda: refuses(port), 10, "the port to be free again")


def test_sigterm_ends_it_in_time(hello: Agent) -> None:
    """The agent stops its app, and ends with status 0."""
    port = hello.port_of("hello_flask")
    with HttpCaller(port) as idle:
        assert idle.request("GET", "/").status == 200
        began_s = time.monotonic()
        assert hello.terminate() == 0
        assert time.monotonic() - began_s < 5


def test_an_unguarded_run_does_not_block(tmp_path: Path) -> None:
    """`app.run()` at the file's end, without asking for __main__, returns; the agent serves the app at its own port."""
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    with Agent(tmp_path, tmp_path / "unguarded.py") as agent:
        assert call(agent.port_of("unguarded"), "GET", "/").body == b"unguarded"


def test_bugs(tmp_path: Path) -> None:
    """A bug is a 500 with an id and no more; the log has the traceback with that id, the status file its place; exit
    and crash of the app end no more than they must."""
    (tmp_path / "bugs.py").write_text(BUGS)
    with Agent(tmp_path, tmp_path / "bugs.py") as agent:
        port = agent.port_of("bugs")
        answer = call(port, "GET", "/bug")
        assert answer.status == 500
        assert answer.json["error"] == "internal error"
        assert b"Traceback" not in answer.body
        until(lambda: f"(id {answer.json['id']})" in agent.tail(), 10, "the id in the log")
        assert "KeyError: 'nothing'" in agent.tail()
        until(lambda: "bugs.py:11" in agent.function("bugs")["last_error"], 10, "the error in the status file")
        assert call(port, "GET", "/pid").status == 200
        until(lambda: not agent.function("bugs")["last_error"], 10, "the error to go when a request went well")
        assert call(port, "GET", "/exit").status == 500
        before = call(port, "GET", "/pid").body
        with pytest.raises((EOFError, ConnectionResetError)):
            call(port, "GET", "/crash")
        assert call(port, "GET", "/pid").body != before


def two_free_ports() -> int:
    """The first of two ports in a row that nobody has."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port + 1)):
                return port


def test_several_apps_and_other_functions(tmp_path: Path) -> None:
    """Two apps have two ports in a row; a file with an app and a function with a trigger runs both."""
    (tmp_path / "both.py").write_text(
        "from edge_agent import every\n@every(0.1)\ndef tank():\n    return 1\n"
        "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'both']\n"
    )
    port = two_free_ports()
    with Agent(tmp_path, HELLO, tmp_path / "both.py", port=port) as agent:
        assert call(agent.port_of("hello_flask"), "GET", "/").body == b"Hello, World!"
        assert call(agent.port_of("both"), "GET", "/").body == b"both"
        assert (agent.port_of("hello_flask"), agent.port_of("both")) == (port, port + 1)
        until(lambda: agent.function("tank")["rows"] > 3, 10, "rows of the other function")


def test_a_busy_port(tmp_path: Path) -> None:
    """The agent ends with one sentence that names the port and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with Agent(tmp_path, HELLO, port=port) as agent:
            assert agent.wait(20) == 1
        assert f"cannot serve HTTP at 127.0.0.1 port {port}" in agent.tail()
        assert "http_port" in agent.tail()
        assert "Traceback" not in agent.tail()


@pytest.mark.parametrize("module", ["flask", "waitress"])
def test_a_missing_library(tmp_path: Path, module: str) -> None:
    """Without Flask the file's own ImportError is told with its line; without waitress, what to install."""
    hidden = f"import sys; sys.modules[{module!r}] = None\n"
    text = HELLO.read_text() if module == "flask" else "app = lambda environ, start_response: []\n"
    (tmp_path / "shop.py").write_text(hidden + text)
    with Agent(tmp_path, tmp_path / "shop.py") as agent:
        assert agent.wait(20) == 1
    if module == "flask":
        assert "shop.py:4" in agent.tail()
        assert "flask" in agent.tail()
    else:
        assert "pip install 'edgewater[http]'" in agent.tail()
