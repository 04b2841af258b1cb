"""The process of a WSGI app: waits for its listening socket, serves it, and reports, until the agent says Stop.

**Delivery**: see `wsgi.py`. **Bounds**: what goes wrong in the app is told to the agent once a second at most.
"""

from __future__ import annotations

import os
import socket
import threading
import time

from .frames import TEXT_CHARACTERS_MAX, Channel, Failed, Listen, Report, Stop
from .wsgi import Service, check_app, require_waitress

__all__ = ["HttpRunner"]

_INTERVAL_S = 1.0


class HttpRunner:
    """Serves `app` of the file `path`."""

    def __init__(self, channel: Channel, path: str, app: object) -> None:
        """RejectError when `app` is no WSGI app, or waitress is missing."""
        require_waitress()
        self._app = check_app(app, path)
        self._path = path
        self._channel = channel
        self._service: Service | None = None
        self._lock = threading.Lock()
        self._told: Failed | None = None

    def _tell(self, text: str, place: str) -> None:
        # From waitress' threads; the main thread alone speaks to the agent.
        with self._lock:
            self._told = Failed(False, text[:TEXT_CHARACTERS_MAX], place)

    def run(self) -> None:
        """Until Stop. EOFError or OSError when the agent is gone; SystemExit when the app hangs for good."""
        report_at_s = time.monotonic() + _INTERVAL_S
        while True:
            message = self._channel.receive(report_at_s - time.monotonic())
            if isinstance(message, Listen):
                self._listen(message)
            elif isinstance(message, Stop):
                break
            if time.monotonic() >= report_at_s:
                report_at_s = time.monotonic() + _INTERVAL_S
                self._report()
        if self._service is not None:
            self._service.stop()
        self._report()

    def _listen(self, message: Listen) -> None:
        listening = socket.socket(fileno=self._channel.descriptors.pop(0))
        os.set_inheritable(listening.fileno(), False)
        self._service = Service(
            self._app, listening, path=self._path, body_bytes_max=message.body_bytes_max, tell=self._tell
        )
        self._service.start()

    def _report(self) -> None:
        if self._service is None:
            return
        with self._lock:
            told, self._told = self._told, None
        if told is not None:
            self._channel.send(told)
        counts = self._service.counts
        self._channel.send(Report(counts.requests, counts.errors_5xx, 0, counts.failing, counts.errors_4xx))
        if why := self._service.failure():
            self._channel.send(Failed(False, why, self._path))
            raise SystemExit(1)
