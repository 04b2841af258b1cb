"""Serves a WSGI app in its function's process with waitress, on a listening socket that the agent owns.

The only module that imports waitress, and only when there is an app to serve (extra `edgewater[http]`).

**Delivery**: a process that is killed loses the requests under way; new connections wait in the socket's backlog, which
stays with the agent, and are served by the next process. On Stop the requests under way are finished (STOP_S at most).
**Bounds**: CONNECTIONS_MAX connections (further ones wait in the backlog of BACKLOG_MAX), THREADS requests at once, a
head of HEAD_BYTES_MAX, a body of `body_bytes_max`, REQUEST_S to send a request, IDLE_S without a byte in either
direction. When all threads have been busy with the same requests for STUCK_S, the process ends and is started again.
Every refusal is JSON.
"""

from __future__ import annotations

import inspect
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.contract.errors import RejectError, quoted

from .http_errors import App, Counts, JsonErrors, Tell, json_answer
from .http_ports import BACKLOG_MAX

__all__ = ["Service", "check_app", "own_files", "require_waitress"]

CONNECTIONS_MAX = 100
THREADS = 4
HEAD_BYTES_MAX = 32 * 1024
IDLE_S = 30.0
REQUEST_S = 60.0
STUCK_S = 60.0
STOP_S = 1.5
_UPKEEP_S = 2
_OUTPUT_BYTES_MAX = 4 * 1024 * 1024

log = logging.getLogger("edgewater.functions.http")


def require_waitress() -> None:
    """RejectError that says what to install when waitress is missing."""
    try:
        import waitress.server  # noqa: F401 - whether it is there
    except ImportError:
        raise RejectError("serving HTTP needs waitress; pip install 'edgewater[http]'") from None


def check_app(app: object, where: str) -> App:
    """`app` when it can be called as a WSGI app; RejectError otherwise (an ASGI app, a class, another signature)."""
    if not callable(app) or inspect.isclass(app):
        raise RejectError(f"{where}: app is {quoted(app)}, which cannot be called as a WSGI app")
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__):
        raise RejectError(f"{where}: app is an ASGI app; only WSGI apps are served (Flask, Bottle, Django's wsgi)")
    try:
        inspect.signature(app).bind({}, None)
    except TypeError:
        raise RejectError(f"{where}: app does not take (environ, start_response) and so is no WSGI app") from None
    except ValueError:
        pass  # written in C, and says nothing of its arguments
    return app


def own_files(path: str) -> Callable[[str], bool]:
    """Tells the files of the app at `path`: those in its folder and below that are no installed package's."""
    folder = str(Path(path).resolve().parent) + "/"

    def own(file: str) -> bool:
        return file == path or (file.startswith(folder) and "/site-packages/" not in file)

    return own


class Service:
    """One app being served, by waitress' threads; `start`, then ask for `failure` and `counts` now and then."""

    def __init__(self, app: App, listening: socket.socket, *, path: str, body_bytes_max: int, tell: Tell) -> None:
        """RejectError when waitress is missing."""
        self.counts = Counts()
        guarded = JsonErrors(app, own=own_files(path), counts=self.counts, tell=tell)
        self._server = _server(guarded, listening, self.counts, body_bytes_max)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._ended = False
        self._stopping = False

    def start(self) -> None:
        """Begin to accept connections."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._server.run()
        except OSError:
            if not self._stopping:
                log.exception("the HTTP server ended")
        self._ended = True

    def failure(self) -> str:
        """Why this process should end and be started again; empty while all is well."""
        if self._ended and not self._stopping:
            return "the HTTP server ended"
        began = list(self.counts.running.values())
        if len(began) >= THREADS and time.monotonic() - max(began) > STUCK_S:
            return f"all {THREADS} requests under way take longer than {STUCK_S:g} s"
        return ""

    def stop(self) -> None:
        """Accept no more, and wait for the requests under way, STOP_S at most."""
        self._stopping = True
        self._server.accepting = False
        end_s = time.monotonic() + STOP_S
        while time.monotonic() < end_s and not self._server.idle:
            time.sleep(0.01)


def _server(app: App, listening: socket.socket, counts: Counts, body_bytes_max: int) -> Any:
    require_waitress()
    from waitress.adjustments import Adjustments
    from waitress.channel import HTTPChannel
    from waitress.server import TcpWSGIServer
    from waitress.task import ErrorTask, ThreadedTaskDispatcher

    class JsonErrorTask(ErrorTask):  # type: ignore[misc]  # waitress has no annotations
        """Waitress' own refusals (malformed, too large ...), as JSON."""

        def execute(self) -> None:
            error = self.request.error
            counts.answered(error.code)
            self.status, headers, body = json_answer(error.code, _refusal(error, body_bytes_max))
            self.response_headers.extend(headers)
            self.set_close_on_finish()
            self.content_length = len(body)
            self.write(body)

    class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no annotations
        """A connection that knows since when its caller has been sending one request."""

        error_task_class = JsonErrorTask
        request_began_s = 0.0

        def received(self, data: bytes) -> bool:
            if self.request is None:
                self.request_began_s = time.monotonic()
            taken: bool = super().received(data)
            return taken

        def write_soon(self, data: Any) -> int:
            if not self.total_outbufs_len:
                # The caller's time to take the answer begins now, however long the app took to make it.
                self.last_activity = time.time()
            written: int = super().write_soon(data)
            return written

    class Server(TcpWSGIServer):  # type: ignore[misc]  # waitress has no annotations
        """Ends connections that are slow in either direction, also while an answer waits for its reader."""

        channel_class = Channel

        def maintenance(self, now: float) -> None:
            for channel in list(self.active_channels.values()):
                idle = channel.last_activity < now - IDLE_S and (not channel.requests or channel.total_outbufs_len)
                slow = channel.request is not None and channel.request_began_s < time.monotonic() - REQUEST_S
                if idle or slow:
                    # At once, not by will_close: that waits until the socket takes bytes, which this one may never do.
                    channel.handle_close()

        @property
        def idle(self) -> bool:
            """Whether nothing is under way and every answer is sent."""
            return not any(one.requests or one.total_outbufs_len for one in list(self.active_channels.values()))

    # One line for each request that waits for a thread would fill a device's log.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    adjustments = Adjustments(
        sockets=[listening], threads=THREADS, ident="edgewater", backlog=BACKLOG_MAX, connection_limit=CONNECTIONS_MAX,
        cleanup_interval=_UPKEEP_S, channel_timeout=int(IDLE_S), max_request_header_size=HEAD_BYTES_MAX,
        # Waitress refuses what is as large as its limit. Nothing is written to files: flash wears out.
        max_request_body_size=body_bytes_max + 1, inbuf_overflow=body_bytes_max + 1,
        outbuf_overflow=2 * _OUTPUT_BYTES_MAX, outbuf_high_watermark=_OUTPUT_BYTES_MAX, log_socket_errors=False,
        asyncore_use_poll=True, server_name=listening.getsockname()[0],
    )  # fmt: skip
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(THREADS)
    place = (listening.family, listening.type, listening.proto, listening.getsockname())
    return Server(app, {}, True, listening, dispatcher=dispatcher, adj=adjustments, sockinfo=place, bind_socket=False)


def _refusal(error: Any, body_bytes_max: int) -> str:
    if error.code == 413:
        return f"the body exceeds http_body_bytes_max of {body_bytes_max} bytes"
    if error.code == 431:
        return f"the request's head exceeds {HEAD_BYTES_MAX} bytes"
    return f"{error.reason}: {error.body}"
