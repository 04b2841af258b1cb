"""Documentation pages, run as a reader would: files written, commands typed, servers left running until the page ends.

A page's fenced blocks, in order:

    ```python title=boiler.py     written to that file (any language with a title)
    ```python                     run as a script
    ```sh                         lines that begin with `$ ` are run by bash; others are sample output, not compared
    ```sh background              each command runs until the page ends; the next block waits for its start
    anything else                 for the eye only

A command must end with status 0, or with N where it ends in `# exits N`. `<!-- until: TEXT -->` before a block repeats
its last command until its output holds TEXT: what takes a moment on its way takes a moment here too. Well-known ports
in the page are replaced by free ones, so that pages run beside each other and beside a real broker.

**Delivery**: everything a page started is ended by its process group. **Bounds**: COMMAND_TIMEOUT_S a command,
UNTIL_TIMEOUT_S for a repeated one, START_TIMEOUT_S for a server's start.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .wait import until

__all__ = ["Block", "blocks_of", "run_page"]

COMMAND_TIMEOUT_S = 60.0
UNTIL_TIMEOUT_S = 30.0
START_TIMEOUT_S = 60.0
_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")
_UNTIL = re.compile(r"^<!-- until: (.*) -->$")
_EXITS = re.compile(r"\s+# exits (\d+)$")
_TITLE = re.compile(r"title=(\S+)")
_STARTED = "Ctrl-C ends"
"""The last line of `edgewater up` when everything runs."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: the words behind its fence, its text, its first line in the page, and the text to wait for."""

    info: str
    text: str
    line: int
    until: str = ""

    @property
    def title(self) -> str:
        """The file that the block is, or nothing."""
        match = _TITLE.search(self.info)
        return match[1] if match else ""

    @property
    def words(self) -> list[str]:
        """The words behind the fence."""
        return self.info.split()

    def commands(self) -> list[tuple[str, int]]:
        """(command, exit status expected) of a block of commands; a line that ends in a backslash goes on."""
        found: list[tuple[str, int]] = []
        lines = iter(self.text.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                continue
            command = line[2:]
            while command.endswith("\\"):
                command += "\n" + next(lines)
            match = _EXITS.search(command)
            found.append((_EXITS.sub("", command), int(match[1]) if match else 0))
        return found


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page's text, in order."""
    found: list[Block] = []
    lines = page.splitlines()
    wanted = ""
    number = 0
    while number < len(lines):
        if match := _UNTIL.match(lines[number].strip()):
            wanted = match[1]
        elif fence := _FENCE.match(lines[number]):
            end = number + 1
            while end < len(lines) and lines[end].strip() != "```":
                end += 1
            indent = len(fence["indent"])
            text = "".join(f"{line[indent:]}\n" for line in lines[number + 1 : end])
            found.append(Block(fence["info"].strip(), text, number + 2, wanted))
            wanted, number = "", end
        number += 1
    return found


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class _Page:
    """One run of one page."""

    def __init__(self, name: str, directory: Path) -> None:
        self._name = name
        self._directory = directory
        self._ports = {"1883": free_port(), "8080": free_port()}
        self._background: list[subprocess.Popen[bytes]] = []

    def _environment(self) -> Mapping[str, str]:
        home = self._directory / ".home"
        home.mkdir(exist_ok=True)
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGEWATER_", "PYTEST_"))}
        return {
            **kept,
            "PATH": path,
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "PYTHONUNBUFFERED": "1",
            "EDGEWATER_AGENT__HTTP_PORT": str(self._ports["8080"]),
        }

    def _substituted(self, text: str) -> str:
        for port, free in self._ports.items():
            text = re.sub(rf"(127\.0\.0\.1|localhost):{port}\b", rf"\1:{free}", text)
        options = f"--mqtt-port {self._ports['1883']} --http-port {self._ports['8080']}"
        return re.sub(r"\bedgewater up\b(?! --help)", f"edgewater up {options}", text)

    def run(self, block: Block) -> None:
        """Do what the block says. AssertionError with the place in the page when it does not go as written."""
        if block.title:
            file = self._directory / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(self._substituted(block.text), "utf-8")
        elif block.words == ["python"]:
            self._until(block, f"{shlex.quote(sys.executable)} - <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK", 0)
        elif block.words[:1] == ["sh"]:
            commands = block.commands()
            assert commands, f"{self._name}:{block.line}: a block of commands without a line that begins with `$ `"
            if "background" in block.words:
                for command, _ in commands:
                    self._start(block, command)
                return
            for number, (command, status) in enumerate(commands):
                last = number == len(commands) - 1
                self._until(block if last else Block(block.info, block.text, block.line), command, status)

    def _until(self, block: Block, command: str, status: int) -> None:
        if not block.until:
            self._command(block, command, status)
            return
        until(
            lambda: block.until in self._command(block, command, status),
            UNTIL_TIMEOUT_S,
            f"{block.until!r} in the output of {self._name}:{block.line}: {command}",
        )

    def _command(self, block: Block, command: str, status: int) -> str:
        done = subprocess.run(
            ["bash", "-c", self._substituted(command)],
            cwd=self._directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        shown = f"{self._name}:{block.line}: {command}\n{done.stdout[-4000:]}\n{self._logs()}"
        assert done.returncode == status, f"status {done.returncode} instead of {status}: {shown}"
        assert "Traceback (most recent call last)" not in done.stdout or status == 0, shown
        return done.stdout

    def _start(self, block: Block, command: str) -> None:
        log = self._directory / f".background-{len(self._background)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._substituted(command)}"],
                cwd=self._directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._background.append(process)

        def started() -> bool:
            text = log.read_text("utf-8", "replace")
            assert process.poll() is None, (
                f"{self._name}:{block.line}: {command} ended with {process.returncode}:\n{text[-4000:]}"
            )
            return _STARTED in text or "edgewater up" not in command

        until(started, START_TIMEOUT_S, f"the start of {self._name}:{block.line}: {command}")

    def _logs(self) -> str:
        logs = sorted(self._directory.glob(".background-*.log"))
        return "\n".join(f"{log.name}: {log.read_text('utf-8', 'replace')[-1500:]}" for log in logs)

    def end(self) -> None:
        """Ctrl-C for whatever still runs; what does not end within 20 s is killed."""
        for process in reversed(self._background):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def _page(name: str, directory: Path) -> Iterator[_Page]:
    page = _Page(name, directory)
    try:
        yield page
    finally:
        page.end()


def run_page(path: Path, directory: Path) -> int:
    """Run the page at `path` with `directory` as the reader's folder; the number of blocks that did something."""
    blocks = [block for block in blocks_of(path.read_text("utf-8")) if block.title or block.words[:1] != ["text"]]
    with _page(path.name, directory) as page:
        for block in blocks:
            page.run(block)
    return sum(bool(block.title or block.words[:1] in (["sh"], ["python"])) for block in blocks)
