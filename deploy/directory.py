"""The directory of a stack: one stack at a time, its ports kept, nothing of an earlier start in the way.

    DIR/up.lock  DIR/ports.json  DIR/log  DIR/lake  DIR/run  DIR/agent/<device>

**Delivery**: the lock goes with the process, however it ends. Ports are replaced atomically, and kept because devices
elsewhere know them; the directory is whole without them. **Bounds**: LEFTOVER_TIMEOUT_S for processes of a stack that
was killed to end, as they do by themselves.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.contract.errors import StopError, quoted
from edge_agent.contract.status import read_status

from .processes import is_alive

__all__ = ["DIRECTORY_DEFAULT", "DirectoryLock", "any_free_ports", "choose_port", "forget_earlier", "port_taken"]

DIRECTORY_DEFAULT = Path("edgewater-data")
LEFTOVER_TIMEOUT_S = 30.0
_FRESH_S = 60.0
_PORT_MAX = 65_535
_TRIES = 50


class DirectoryLock:
    """Holds `directory` for this process, with its ports; StopError when another has it."""

    def __init__(self, directory: Path) -> None:
        self._ports_path = directory / "ports.json"
        path = directory / "up.lock"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StopError(f"cannot use the directory {directory}: {error.strerror}; choose another --dir") from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 20).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise StopError(
                f"the directory {directory} is in use by process {holder or '(unknown)'}, which runs a stack there; "
                f"end it first (kill {holder or 'PID'}, or Ctrl-C where it runs), or choose another --dir; "
                f"see how it is: edgewater status --dir {directory}"
            ) from None
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        """Let go."""
        os.close(self._descriptor)

    def ports(self) -> dict[str, int]:
        """The ports of the last start, by what listens there; StopError when the file is not what we wrote."""
        try:
            found = json.loads(self._ports_path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StopError(f"{self._ports_path} cannot be read ({error}); remove it to choose ports anew") from None
        if not isinstance(found, dict) or not all(
            isinstance(port, int) and not isinstance(port, bool) and 0 < port <= _PORT_MAX for port in found.values()
        ):
            raise StopError(f"{self._ports_path} holds {quoted(found)}, not ports; remove it to choose them anew")
        return found

    def keep_ports(self, ports: dict[str, int]) -> None:
        """Remember the ports for the next start."""
        temporary = self._ports_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(ports, indent=2) + "\n", "utf-8")
        os.replace(temporary, self._ports_path)


def choose_port(
    what: str, *, wanted: int | None, kept: int | None, usual: int, taken: Callable[[int], str]
) -> int | None:
    """The port for `what`: the one wanted (0: any), else the one kept, else the usual one; None: any free one.

    `taken` says why a port cannot be had, with an empty text when it can. StopError when the one wanted, or the one
    that devices know from before, cannot be had.
    """
    if wanted is not None:
        if wanted and (why := taken(wanted)):
            raise StopError(f"port {wanted} for {what} cannot be had: {why}; choose another --{what}-port (0: any)")
        return wanted or None
    if kept is not None:
        if why := taken(kept):
            raise StopError(
                f"port {kept} for {what}, kept from the last start (ports.json) since others know it, cannot be had: "
                f"{why}; end what listens there, or choose another --{what}-port (0: any)"
            )
        return kept
    return None if taken(usual) else usual


def port_taken(host: str, port: int) -> str:
    """Why one cannot listen at `host`:`port`; empty when one can."""
    try:
        with socket.create_server((host, port), family=_family(host), backlog=1):
            return ""
    except OSError as error:
        # The library adds the address to the text, which our messages have already.
        return (error.strerror or str(error)).partition(" (while")[0]


def any_free_ports(host: str, count: int) -> int:
    """The first of `count` ports in a row that nobody listens at now; the last tried when there are none."""
    first = 0
    for _ in range(_TRIES):
        with socket.create_server((host, 0), family=_family(host), backlog=1) as server:
            first = int(server.getsockname()[1])
        if first + count <= _PORT_MAX and not any(port_taken(host, first + i) for i in range(count)):
            break
    return first


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def forget_earlier(run_dir: Path, told: Callable[[str], None]) -> None:
    """Wait until processes of an earlier start have ended, then remove their status files.

    They get SIGTERM when the process above them is killed. StopError when one stays.
    """
    deadline_s = time.monotonic() + LEFTOVER_TIMEOUT_S
    for path in sorted(run_dir.glob("*.json")):
        asked = False
        while (found := _written(run_dir, path.stem)) is not None and is_alive(*found):
            if found[1] < time.time() - _FRESH_S:
                break  # its number is another process' by now
            if not asked:
                asked = True
                told(f"waiting for {path.stem} (process {found[0]}) of an earlier start to end")
            if time.monotonic() > deadline_s:
                raise StopError(
                    f"{path.stem} (process {found[0]}) of an earlier start in {run_dir.parent} still runs; "
                    f"end it (kill {found[0]}) and try again"
                )
            time.sleep(0.1)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _written(run_dir: Path, name: str) -> tuple[int, float] | None:
    """(pid, time) of a status file."""
    try:
        found = read_status(run_dir, name) or {}
        return int(found["pid"]), float(found["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
