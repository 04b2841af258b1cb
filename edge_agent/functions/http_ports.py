"""The agent's listening sockets, one for each WSGI app: they stay open whatever becomes of the app's process.

The first app has port `http_port`, the next ones the following ports, in the order of the files on the command line;
which file will turn out to have an app is guessed from its text (`may_have_app`), so that an app keeps its port
whichever file loads first.

**Delivery**: a connection that waits in a backlog survives the app's process, not the agent. **Bounds**: one socket an
app with a backlog of BACKLOG_MAX; while an app cannot be loaded its callers wait.
"""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.contract.errors import SettingsError, StopError, quoted

__all__ = ["BACKLOG_MAX", "HttpPorts", "HttpSettings", "listening_socket", "may_have_app", "url_of"]

LOOPBACK = ("127.", "localhost", "::1", "ip6-localhost")
BACKLOG_MAX = 512
_PORT_MAX = 65_535
_NAMES_APP = re.compile(
    rb"(?m)^(?:app|application)\b|^def (?:app|application)\b|^from\b.*\bimport\b.*\b(?:app|application)\b"
)

log = logging.getLogger("edgewater.functions.http")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Where apps listen, and how large a request's body may be."""

    host: str = "127.0.0.1"
    port: int = 8080
    body_bytes_max: int = 1 << 20


def may_have_app(path: str) -> bool:
    """Whether the text of a function file gives the name app or application to something."""
    try:
        return _NAMES_APP.search(Path(path).read_bytes()) is not None
    except OSError:
        return False


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens at `host`:`port` (0: any free one); StopError names both when that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StopError(f"http_host {quoted(host)} is no address of this machine: {error}") from None
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(BACKLOG_MAX)
    except OSError as error:
        found.close()
        raise StopError(
            f"cannot serve HTTP at {host} port {port}: {error.strerror or error}; end what uses it, or set http_port "
            "to another port or to 0 for any free one"
        ) from None
    return found


def url_of(listening: socket.socket) -> str:
    """`http://host:port` of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class HttpPorts:
    """Opens a socket when an app is first there, and keeps it until `close`."""

    def __init__(self, settings: HttpSettings, paths: Sequence[str]) -> None:
        """`paths`: the function files in order."""
        self.settings = settings
        self._sockets: dict[str, socket.socket] = {}
        self._expected = [path for path in paths if may_have_app(path)]

    def open(self, name: str, path: str) -> socket.socket:
        """The listening socket of function `name` in file `path`. StopError when its port cannot be had."""
        found = self._sockets.get(name)
        if found is None:
            found = self._sockets[name] = listening_socket(self.settings.host, self._port(path))
            log.info("%s serves %s", url_of(found), name)
            if not self.settings.host.startswith(LOOPBACK):
                log.warning(
                    "%s can be reached from other machines (http_host %s), and asks nobody who they are: put a proxy "
                    "that does in front, or set http_host to 127.0.0.1", url_of(found), self.settings.host,
                )  # fmt: skip
        return found

    def _port(self, path: str) -> int:
        if not self.settings.port:
            return 0
        if path not in self._expected:
            self._expected.append(path)
        port = self.settings.port + self._expected.index(path)
        if port > _PORT_MAX:
            raise SettingsError(f"http_port {self.settings.port} leaves no port for the app of {path}; lower it")
        return port

    def url(self, name: str) -> str:
        """Where function `name` is served; empty when it is not."""
        return url_of(self._sockets[name]) if name in self._sockets else ""

    def close(self) -> None:
        """Close all."""
        for each in self._sockets.values():
            each.close()
        self._sockets.clear()
