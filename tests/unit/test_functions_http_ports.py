"""The agent's listening sockets: which port each app gets, and what is said when it cannot be had."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_agent.contract.errors import SettingsError, StopError
from edge_agent.functions.http_ports import HttpPorts, HttpSettings, listening_socket, may_have_app, url_of
from tests.kit.mosquitto import free_port


class TestListening:
    def test_a_busy_port_is_named(self) -> None:
        """The error names host, port and setting."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(StopError, match=f"127.0.0.1 port {port}.*http_port"):
                listening_socket("127.0.0.1", port)

    @pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
    def test_hosts(self, host: str) -> None:
        """A host that is no address of this machine is an error that names it."""
        with pytest.raises(StopError, match=host):
            listening_socket(host, 0)

    def test_url(self) -> None:
        """Host and port; IPv6 addresses are written in brackets."""
        in_brackets = SimpleNamespace(getsockname=lambda: ("::1", 8080, 0, 0))  # not every machine has IPv6
        assert url_of(in_brackets) == "http://[::1]:8080"  # type: ignore[arg-type]  # all that it asks for
        with listening_socket("127.0.0.1", 0) as listening:
            assert url_of(listening) == f"http://127.0.0.1:{listening.getsockname()[1]}"


class TestPorts:
    def test_ports_follow_the_files_whichever_loads_first(self, tmp_path: Path) -> None:
        """The first file that may have an app has http_port, the next one the port after it; a socket is kept."""
        for name, text in (("one", "app = Flask(__name__)"), ("two", "x = 1"), ("three", "application = make()")):
            (tmp_path / f"{name}.py").write_text(text)
        paths = [str(tmp_path / f"{name}.py") for name in ("one", "two", "three")]
        port = free_port()
        ports = HttpPorts(HttpSettings(port=port), paths)
        try:
            third = ports.open("three", paths[2])
            assert ports.open("three", paths[2]) is third
            assert ports.url("three") == f"http://127.0.0.1:{port + 1}"
            ports.open("one", paths[0])
            assert ports.url("one") == f"http://127.0.0.1:{port}"
            ports.open("two", paths[1])
            assert ports.url("two") == f"http://127.0.0.1:{port + 2}"
            assert ports.url("none") == ""
        finally:
            ports.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

    def test_no_port_is_left(self) -> None:
        """Beyond 65535 there is none."""
        ports = HttpPorts(HttpSettings(port=65_535), [])
        ports._expected.append("first.py")
        with pytest.raises(SettingsError, match="65535"):
            ports.open("second", "second.py")

    def test_other_machines_are_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        """Beyond loopback the log says that nobody is asked who they are."""
        with caplog.at_level(logging.INFO):
            ports = HttpPorts(HttpSettings("127.0.0.1", 0), [])
            ports.open("app", "app.py")
            ports.close()
            assert "asks nobody" not in caplog.text
            assert "serves app" in caplog.text
            ports = HttpPorts(HttpSettings("0.0.0.0", 0), [])
            ports.open("app", "app.py")
            ports.close()
        assert "asks nobody" in caplog.text

    @pytest.mark.parametrize(
        ("text", "may"),
        [
            ("app = Flask(__name__)", True),
            ("application: Flask = make()", True),
            ("def app(environ, start_response):\n    pass", True),
            ("from web import app", True),
            ("apple = 1\n    app = 2", False),
            ("", False),
        ],
    )
    def test_which_files_may_have_an_app(self, tmp_path: Path, text: str, may: bool) -> None:
        """Those that give the name app or application to something in their first column."""
        (tmp_path / "file.py").write_text(text)
        assert may_have_app(str(tmp_path / "file.py")) is may
        assert not may_have_app(str(tmp_path / "nothing.py"))
