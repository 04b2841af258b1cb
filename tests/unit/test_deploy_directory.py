"""A stack's directory: one holder, ports kept, nothing of an earlier start in the way."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy import directory as directory_module
from deploy.directory import DirectoryLock, any_free_ports, choose_port, forget_earlier, port_taken
from deploy.processes import is_alive, memory_bytes
from edge_agent.contract.errors import StopError
from edge_agent.contract.status import StatusFile


def _free(_port: int) -> str:
    return ""


def test_a_second_holder_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    """And may have it when the first let go."""
    first = DirectoryLock(tmp_path / "d")
    with pytest.raises(StopError, match=f"in use by process {os.getpid()}"):
        DirectoryLock(tmp_path / "d")
    first.close()
    DirectoryLock(tmp_path / "d").close()


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    """The message names it."""
    (tmp_path / "f").write_text("")
    with pytest.raises(StopError, match=r"cannot use the directory .*/f"):
        DirectoryLock(tmp_path / "f")


def test_ports_are_kept(tmp_path: Path) -> None:
    """What is written is read."""
    lock = DirectoryLock(tmp_path)
    assert lock.ports() == {}
    lock.keep_ports({"mqtt": 1883, "log": 40_001})
    assert lock.ports() == {"mqtt": 1883, "log": 40_001}
    lock.close()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"mqtt": 0}', '{"mqtt": "1883"}', '{"mqtt": true}', '{"mqtt": 70000}']
)
def test_a_file_that_holds_no_ports_says_what_to_do(tmp_path: Path, text: str) -> None:
    """Remove it."""
    (tmp_path / "ports.json").write_text(text)
    lock = DirectoryLock(tmp_path)
    with pytest.raises(StopError, match="remove it"):
        lock.ports()
    lock.close()


def test_a_port_is_the_one_wanted_else_kept_else_usual_else_any() -> None:
    """0 means any on purpose."""
    assert choose_port("mqtt", wanted=5, kept=6, usual=7, taken=_free) == 5
    assert choose_port("mqtt", wanted=0, kept=6, usual=7, taken=_free) is None
    assert choose_port("mqtt", wanted=None, kept=6, usual=7, taken=_free) == 6
    assert choose_port("mqtt", wanted=None, kept=None, usual=7, taken=_free) == 7
    assert choose_port("mqtt", wanted=None, kept=None, usual=7, taken=lambda _: "in use") is None


def test_a_port_that_others_know_is_not_exchanged_silently() -> None:
    """Neither one asked for nor one kept."""
    for wanted, kept in ((5, None), (None, 5)):
        with pytest.raises(StopError, match=r"port 5 for mqtt.*in use; .*--mqtt-port"):
            choose_port("mqtt", wanted=wanted, kept=kept, usual=7, taken=lambda _: "in use")


def test_whether_a_port_is_taken_is_what_the_system_says() -> None:
    """A listener's is, an address of another machine cannot be listened at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert port_taken("127.0.0.1", port) == "Address already in use"
    assert port_taken("127.0.0.1", port) == ""
    assert "assign" in port_taken("192.0.2.1", 0)


def test_ports_in_a_row_are_free_at_once() -> None:
    """For several apps of one agent."""
    first = any_free_ports("127.0.0.1", 3)
    assert [port_taken("127.0.0.1", first + n) for n in range(3)] == ["", "", ""]


def test_earlier_parts_are_waited_for_and_their_files_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stays is an error with its number; files of the dead go at once."""
    StatusFile(tmp_path, "old").write()
    document = json.loads((tmp_path / "old.json").read_text())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        (tmp_path / "old.json").write_text(json.dumps({**document, "pid": child.pid}))
        (tmp_path / "dead.json").write_text(json.dumps({**document, "pid": 2**22 + 1}))
        (tmp_path / "odd.json").write_text("[]")
        told: list[str] = []
        monkeypatch.setattr(directory_module, "LEFTOVER_TIMEOUT_S", 0.3)
        with pytest.raises(StopError, match=f"old \\(process {child.pid}\\).*kill {child.pid}"):
            forget_earlier(tmp_path, told.append)
        assert len(told) == 1
        child.communicate(b"\n", timeout=20)
    forget_earlier(tmp_path, told.append)
    assert list(tmp_path.iterdir()) == []


def test_a_process_is_alive_only_as_the_one_that_wrote() -> None:
    """Another process with the number of a dead one is another process."""
    assert is_alive(os.getpid(), time.time())
    assert not is_alive(os.getpid(), time.time() - 10 * 365 * 86_400)
    assert not is_alive(2**22 + 1, time.time())
    assert (memory_bytes(os.getpid()) or 0) > 1_000_000
    assert memory_bytes(2**22 + 1) is None
