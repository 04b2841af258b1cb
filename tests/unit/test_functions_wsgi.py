"""Serving a WSGI app over real sockets: the protocol, its limits, and what a rude caller gets."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract.errors import RejectError
from edge_agent.functions import wsgi
from edge_agent.functions.http_ports import listening_socket
from edge_agent.functions.wsgi import Service, check_app, own_files
from tests.kit.http import HttpCaller, call
from tests.kit.processes import ROOT
from tests.kit.wait import until

BODY_BYTES_MAX = 4096


@contextlib.contextmanager
def served(app: Any, path: str = __file__) -> Iterator[tuple[Service, int]]:
    """The app at a free port."""
    listening = listening_socket("127.0.0.1", 0)
    service = Service(app, listening, path=path, body_bytes_max=BODY_BYTES_MAX, tell=lambda _text, _place: None)
    service.start()
    try:
        yield service, listening.getsockname()[1]
    finally:
        service.stop()
        service._server.close()
        service._thread.join(5)
        service._server.task_dispatcher.shutdown(timeout=2)


@pytest.fixture
def hello() -> Iterator[int]:
    """The port at which examples/hello_flask.py is served."""
    path = ROOT / "examples" / "hello_flask.py"
    spec = importlib.util.spec_from_file_location("hello_flask", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with served(module.app, str(path)) as (_, port):
        yield port


def echo(environ: Any, start_response: Any) -> list[bytes]:
    """Answers the body it gets."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return [body]


class TestTheExample:
    def test_hello(self, hello: int) -> None:
        """GET / and POST /add answer as the file says."""
        assert call(hello, "GET", "/").body == b"Hello, World!"
        assert call(hello, "POST", "/add", {"a": 1, "b": 2}).json == {"result": 3}

    @pytest.mark.parametrize(
        ("body", "status", "text"),
        [
            (b"{", 400, "the body is not JSON: Expecting property name"),
            (b"", 400, "the body is not JSON|failed to decode|browser"),
            (b"\xff\xfe\xff", 400, "the body is not JSON"),
            (b"{}", 400, "missing key 'a'"),
            (b'{"a": 1}', 400, "missing key 'b'"),
            (b'{"a": "x", "b": 2}', 400, "wrong type: can only concatenate str"),
            (b'{"a": null, "b": 2}', 400, "wrong type: unsupported operand"),
            (b'{"a": {}, "b": []}', 400, "wrong type"),
            (b"[1, 2]", 400, "wrong type: list indices"),
            (b"null", 400, "wrong type: 'NoneType'"),
            (b"3", 400, "wrong type: 'int'"),
            (b'"text"', 400, "wrong type: string indices"),
            (b"[" * 2000 + b"]" * 2000, 400, "nested too deeply|list indices"),
        ],
    )
    def test_a_callers_mistake(self, hello: int, body: bytes, status: int, text: str) -> None:
        """Bad JSON, missing keys and wrong types are answered with 4xx and a sentence in JSON."""
        answer = call(hello, "POST", "/add", body=body)
        assert answer.status == status, answer
        assert any(part in answer.json["error"] for part in text.split("|")), answer.json
        assert b"Traceback" not in answer.body

    def test_other_errors_of_flasks_are_json_too(self, hello: int) -> None:
        """Unknown paths, methods that are not allowed and bodies of another type: Flask's pages become JSON."""
        assert "not found" in call(hello, "GET", "/nothing").json["error"]
        answer = call(hello, "GET", "/add")
        assert (answer.status, set(answer.headers["allow"].split(", "))) == (405, {"OPTIONS", "POST"})
        assert "not allowed" in answer.json["error"]
        answer = call(hello, "POST", "/add", body=b"a=1", Content_Type="text/plain")
        assert (answer.status, list(answer.json)) == (415, ["error"])

    def test_a_browser_gets_flasks_pages(self, hello: int) -> None:
        """Who names text/html in Accept gets the page that Flask made."""
        answer = call(hello, "GET", "/nothing", Accept="text/html,application/xhtml+xml,*/*;q=0.8")
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.status == 404

    def test_head_and_options(self, hello: int) -> None:
        """HEAD answers without a body, also for errors, and the connection stays usable; OPTIONS names the methods."""
        with HttpCaller(hello) as caller:
            assert caller.request("HEAD", "/").headers["content-length"] == "13"
            assert caller.request("HEAD", "/nothing").status == 404
            assert "POST" in caller.request("OPTIONS", "/add").headers["allow"]
            assert caller.request("GET", "/").body == b"Hello, World!"


class TestProtocol:
    def test_keep_alive_and_pipelining(self, hello: int) -> None:
        """Requests sent before the first answer came are answered in order on one connection."""
        one = b"POST /add HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        bodies = [json.dumps({"a": number, "b": number}).encode() for number in range(20)]
        with HttpCaller(hello) as caller:
            caller.send(b"".join(one % (len(body), body) for body in bodies))
            assert [caller.answer().json["result"] for _ in bodies] == [2 * number for number in range(20)]

    def test_chunked_bodies(self) -> None:
        """A chunked body arrives whole; garbage in its framing is a 400."""
        head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        with served(echo) as (_, port):
            with HttpCaller(port) as caller:
                caller.send(head + b"4\r\nedge\r\n5\r\nwater\r\n0\r\n\r\n")
                assert caller.answer().body == b"edgewater"
                assert caller.request("GET", "/").status == 200
            with HttpCaller(port) as caller:
                caller.send(head + b"zz\r\nedge\r\n")
                assert caller.answer().status == 400

    def test_expect_continue(self) -> None:
        """A caller who asks first (curl, from 1 MB) is told to go on."""
        with served(echo) as (_, port), HttpCaller(port) as caller:
            caller.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            assert caller.answer().status == 100
            caller.send(b"edge")
            assert caller.answer().body == b"edge"

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"nonsense\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\nHost: x\r\nbad header\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET / HTTP/1.1\nHost: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 1e9\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"get / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ],
    )
    def test_malformed_requests(self, request_bytes: bytes) -> None:
        """What is no HTTP is answered with an error in JSON and closed; the next caller is served."""
        with served(echo) as (service, port):
            with HttpCaller(port) as caller:
                caller.send(request_bytes)
                answer = caller.answer()
                assert answer.status in (400, 501)
                assert list(answer.json) == ["error"]
                assert caller.closed()
            assert call(port, "GET", "/").status == 200
            assert (service.counts.errors_4xx + service.counts.errors_5xx, service.counts.requests) == (1, 2)

    def test_nothing_and_half_a_request(self) -> None:
        """Callers who connect and leave, at any place of a request, leave nothing behind."""
        whole = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n01234"
        with served(echo) as (service, port):
            for size in range(0, len(whole), 7):
                with HttpCaller(port) as caller:
                    caller.send(whole[:size])
            until(lambda: not service._server.active_channels, what="all connections closed")
            assert call(port, "GET", "/").status == 200


class TestLimits:
    def test_a_body_of_the_limit_and_one_more(self) -> None:
        """A body of http_body_bytes_max is taken; one byte more is a 413 in JSON that says so."""
        with served(echo) as (service, port):
            assert len(call(port, "POST", "/", body=bytes(BODY_BYTES_MAX)).body) == BODY_BYTES_MAX
            answer = call(port, "POST", "/", body=bytes(BODY_BYTES_MAX + 1))
            assert answer.status == 413
            assert answer.json == {"error": "the body exceeds http_body_bytes_max of 4096 bytes"}
            assert service.counts.errors_4xx == 1

    def test_a_chunked_body_over_the_limit(self) -> None:
        """A body without a declared size is cut off at the limit."""
        with served(echo) as (_, port), HttpCaller(port) as caller:
            caller.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n" + bytes(0x2000))
            assert caller.answer().status == 413

    def test_a_head_over_the_limit(self) -> None:
        """A head that never ends is a 431."""
        with served(echo) as (_, port):
            answer = call(port, "GET", "/", X_Long="x" * wsgi.HEAD_BYTES_MAX)
            assert answer.status == 431
            assert "head exceeds" in answer.json["error"]

    def test_slow_callers_are_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who needs longer than REQUEST_S for one request is cut off, also when a byte comes now and then."""
        monkeypatch.setattr(wsgi, "REQUEST_S", 0.5)
        with served(echo) as (_, port), HttpCaller(port) as caller:
            caller.send(b"GET / HTTP/1.1\r\n")
            with contextlib.suppress(OSError):
                until(lambda: caller.send(b"X: y\r\n"), 5, poll_s=0.05)
            assert caller.closed()

    def test_idle_callers_are_cut_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A connection without a byte for IDLE_S is closed."""
        monkeypatch.setattr(wsgi, "IDLE_S", 0.2)
        with served(echo) as (_, port), HttpCaller(port) as caller:
            assert caller.request("GET", "/").status == 200
            assert caller.closed()

    def test_a_caller_who_does_not_read_blocks_no_thread_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An answer nobody takes is given up after IDLE_S, and its thread serves others."""
        monkeypatch.setattr(wsgi, "IDLE_S", 0.3)
        monkeypatch.setattr(wsgi, "THREADS", 1)

        def endless(environ: Any, start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [])
            if environ["PATH_INFO"] == "/":
                return iter([b"short"])
            return iter(bytes(65_536) for _ in range(2000))

        with served(endless) as (_, port), HttpCaller(port) as rude:
            rude.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            assert call(port, "GET", "/").body == b"short"

    def test_connections_beyond_the_limit_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Further callers wait in the backlog, and are served when others leave; nobody is refused."""
        monkeypatch.setattr(wsgi, "CONNECTIONS_MAX", 10)
        with served(echo) as (_, port):
            callers = [HttpCaller(port) for _ in range(30)]
            for caller in callers:
                assert caller.request("GET", "/").status == 200
                caller.__exit__(None, None, None)

    def test_requests_that_never_end_are_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """When every thread hangs in the app, the service says that its process should be started again."""
        monkeypatch.setattr(wsgi, "STUCK_S", 0.2)
        go_on = threading.Event()

        def hanging(_environ: Any, start_response: Any) -> list[bytes]:
            go_on.wait(10)
            start_response("200 OK", [])
            return [b""]

        with served(hanging) as (service, port):
            callers = [HttpCaller(port) for _ in range(wsgi.THREADS)]
            for caller in callers:
                assert service.failure() == ""
                caller.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until(lambda: "take longer" in service.failure())
            go_on.set()
            assert [caller.answer().status for caller in callers] == [200] * wsgi.THREADS
            for caller in callers:
                caller.__exit__(None, None, None)
            assert service.failure() == ""

    def test_stop_finishes_what_is_under_way(self) -> None:
        """A request that the app works on is answered before `stop` returns."""
        entered, go_on = threading.Event(), threading.Event()

        def slow(_environ: Any, start_response: Any) -> list[bytes]:
            entered.set()
            go_on.wait(10)
            start_response("200 OK", [])
            return [b"done"]

        with served(slow) as (service, port), HttpCaller(port) as caller:
            caller.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert entered.wait(5)
            stopping = threading.Thread(target=service.stop)
            stopping.start()
            go_on.set()
            stopping.join(5)
            assert caller.answer().body == b"done"


class TestWhatIsAnApp:
    def test_apps(self) -> None:
        """Functions of two arguments and objects that can be called with them are apps."""
        assert check_app(echo, "x.py") is echo

        class App:
            def __call__(self, environ: Any, start_response: Any) -> list[bytes]:
                return echo(environ, start_response)

        app = App()
        assert check_app(app, "x.py") is app

    @pytest.mark.parametrize("app", [3, None, "app", dict, lambda: None, lambda one: one])
    def test_other_things(self, app: object) -> None:
        """Everything else is refused with the file's name."""
        with pytest.raises(RejectError, match=r"x\.py"):
            check_app(app, "x.py")

    def test_asgi_apps_are_told_apart(self) -> None:
        """FastAPI and the like are named for what they are."""

        class Asgi:
            async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
                """Nothing."""

        with pytest.raises(RejectError, match="ASGI"):
            check_app(Asgi(), "x.py")

    def test_own_files(self, tmp_path: Path) -> None:
        """The app's files are those beside it, without packages installed there."""
        own: Callable[[str], bool] = own_files(str(tmp_path / "app.py"))
        assert own(str(tmp_path / "app.py"))
        assert own(str(tmp_path / "parts" / "view.py"))
        assert not own(str(tmp_path / ".venv/lib/python3.11/site-packages/flask/app.py"))
        assert not own(json.__file__)

    def test_missing_waitress(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install."""
        monkeypatch.setitem(sys.modules, "waitress.server", None)
        with listening_socket("127.0.0.1", 0) as listening, pytest.raises(RejectError, match=r"edgewater\[http\]"):
            Service(echo, listening, path="x.py", body_bytes_max=1, tell=lambda _text, _place: None)
