"""The process of an app, run in a thread: it takes its socket, serves, reports, and ends when it should."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent.contract.errors import RejectError
from edge_agent.functions import frames, wsgi
from edge_agent.functions.http_ports import listening_socket
from edge_agent.functions.http_runner import HttpRunner
from tests.kit.http import HttpCaller, call


def app(environ: Any, start_response: Any) -> list[bytes]:
    """Fails at /bug."""
    if environ["PATH_INFO"] == "/bug":
        raise RuntimeError("broken")
    start_response("200 OK", [])
    return [b"fine"]


class Running:
    """A runner in a thread, and the agent's end of its channel."""

    def __init__(self, application: Any) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(10)
        self.listening = listening_socket("127.0.0.1", 0)
        self.port = self.listening.getsockname()[1]
        self.status: object = None
        self._reader = frames.FrameReader()
        self._messages: list[frames.FromFunction] = []
        self._runner = HttpRunner(frames.Channel(self.theirs), __file__, application)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        socket.send_fds(self.ours, [frames.encode(frames.Listen(1000))], [self.listening.fileno()])

    def _run(self) -> None:
        try:
            self._runner.run()
        except SystemExit as error:
            self.status = error.code
        except EOFError:
            self.status = "the agent is gone"

    def message(self, kind: type[Any]) -> Any:
        """The next message of a kind."""
        while True:
            while self._messages:
                found = self._messages.pop(0)
                if isinstance(found, kind):
                    return found
            self._messages = [frames.decode_from_function(one) for one in self._reader.feed(self.ours.recv(65_536))]

    def report(self, calls: int) -> frames.Report:
        """The report that counts so many requests."""
        while True:
            found: frames.Report = self.message(frames.Report)
            if found.calls == calls:
                return found


@contextlib.contextmanager
def running(application: Any) -> Iterator[Running]:
    """Ended after the test."""
    found = Running(application)
    yield found
    found.ours.close()
    found.thread.join(10)
    found.theirs.close()
    found.listening.close()
    service = found._runner._service
    assert service is not None
    service.stop()
    service._server.close()
    service._thread.join(5)
    service._server.task_dispatcher.shutdown(timeout=2)


def test_it_serves_reports_and_stops() -> None:
    """Requests are counted by whose error they are, a bug is told with its place, Stop ends it."""
    with running(app) as found:
        assert call(found.port, "GET", "/").body == b"fine"
        assert call(found.port, "GET", "/bug").status == 500
        assert call(found.port, "POST", "/", body=bytes(1001)).status == 413
        failed = found.message(frames.Failed)
        assert "GET /bug: RuntimeError: broken" in failed.text
        assert failed.place.startswith(__file__)
        assert found.report(3) == frames.Report(3, 1, 0, True, 1)
        assert call(found.port, "GET", "/").body == b"fine"
        found.ours.sendall(frames.encode(frames.Stop()))
        found.thread.join(10)
        assert found.report(4) == frames.Report(4, 1, 0, False, 1)
        assert found.status is None


def test_it_ends_when_the_app_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With all threads stuck in the app the process says so and ends, to be started again."""
    monkeypatch.setattr(wsgi, "STUCK_S", 0.1)
    go_on = threading.Event()

    def hanging(_environ: Any, start_response: Any) -> list[bytes]:
        go_on.wait(20)
        start_response("200 OK", [])
        return []

    with running(hanging) as found, contextlib.ExitStack() as stack:
        for _ in range(wsgi.THREADS):
            stack.enter_context(HttpCaller(found.port)).send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert "take longer than 0.1 s" in found.message(frames.Failed).text
        found.thread.join(10)
        assert found.status == 1
        go_on.set()


def test_it_ends_with_the_agent() -> None:
    """A closed channel ends it."""
    with running(app) as found:
        assert call(found.port, "GET", "/").status == 200
        found.ours.shutdown(socket.SHUT_RDWR)
        found.thread.join(10)
        assert not found.thread.is_alive()


def test_what_is_no_app_is_refused_before_anything_is_served() -> None:
    """The error is one of loading."""
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(RejectError, match="WSGI"):
        HttpRunner(frames.Channel(theirs), "x.py", 3)
