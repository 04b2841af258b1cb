"""HTTP over a plain socket, byte by byte: what a test needs to be rude.

    with HttpCaller(port) as caller:
        answer = caller.request("POST", "/add", {"a": 1, "b": 2})

**Delivery**: none. **Bounds**: each answer within 10 s and 16 MiB.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

__all__ = ["Answer", "HttpCaller", "call"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        assert self.headers.get("content-type", "").startswith("application/json"), (self.headers, self.body)
        return json.loads(self.body)


class HttpCaller:
    """One connection."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self._socket.sendall(data)

    def request(
        self, method: str, path: str, document: object = None, body: bytes | None = None, **more: str
    ) -> Answer:
        """One request; `document` is sent as JSON, `more` are headers with _ for -."""
        headers = {"Host": "127.0.0.1", **{name.replace("_", "-"): value for name, value in more.items()}}
        if document is not None:
            body = json.dumps(document).encode()
        if body is not None:
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items() if value)]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""))
        return self.answer(head_only=method == "HEAD")

    def _receive(self) -> None:
        data = self._socket.recv(65_536)
        if not data:
            raise EOFError(f"the server closed the connection after {self._buffer!r}")
        self._buffer += data

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._receive()
        found, self._buffer = self._buffer.split(end, 1)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def answer(self, *, head_only: bool = False) -> Answer:
        """The next answer; EOFError when the server closes before it is whole."""
        first, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if head_only or status < 200 or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self._until(b"\r\n"), 16):
                body += self._exactly(size)
                self._exactly(2)
            self._exactly(2)
            return Answer(status, headers, body)
        return Answer(status, headers, self._exactly(int(headers["content-length"])))

    def closed(self) -> bool:
        """Wait for the server to close; True, or TimeoutError when it does not."""
        try:
            while self._socket.recv(65_536):
                pass
        except ConnectionResetError:
            pass
        return True


def call(port: int, method: str, path: str, document: object = None, body: bytes | None = None, **more: str) -> Answer:
    """One request on a connection of its own."""
    with HttpCaller(port) as caller:
        return caller.request(method, path, document, body, **more)
