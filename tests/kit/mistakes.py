"""Command lines that fail, as a person types them, and what the one message has to say.

    mistake(tmp_path, "agent", "run", "--devcie", "x").says(2, "--devcie", "did you mean --device?")

**Delivery**: nothing is kept. **Bounds**: a command that does not end within 60 s is killed and fails the test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .processes import ROOT

__all__ = ["Failed", "environment_for", "mistake"]

_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Failed:
    """How the command ended."""

    command: Sequence[str]
    status: int
    out: str
    err: str

    def says(self, status: int, *words: str) -> None:
        """Assert: this exit status, one message, with these words, no traceback, no escape code."""
        said = [line for line in self.err.splitlines() if line.startswith("edgewater")]
        shown = f"{' '.join(self.command)}\nended with {self.status}\n{self.err}"
        assert self.status == status, shown
        assert len(said) == 1, shown
        assert "Traceback" not in self.err + self.out, shown
        assert "\x1b" not in self.err + self.out, shown
        for word in words:
            assert word in self.err, f"{word!r} is not in:\n{shown}"


def environment_for(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command that is started in another directory."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **(extra or {})}


def mistake(
    folder: Path,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    before: str = "",
    code: str = "",
    debug: bool = True,
) -> Failed:
    """Run `edgewater` with `arguments` in `folder`. `before` is shell text that is run first, for instance a ulimit;
    `code` is Python that is run in the process before the command. With `debug` the same is run with --debug, too, and
    has to show a traceback."""
    command = [sys.executable, "-m", "edge_agent.cli"]
    if code:
        command = [sys.executable, "-c", f"{code}\nimport sys\nfrom edge_agent.cli import main\nsys.exit(main())"]
    words = [str(argument) for argument in arguments]
    found = _run(folder, [*command, *words], environment, before)
    if debug:
        with_debug = _run(folder, [*command, *words, "--debug"], environment, before)
        assert "Traceback" in with_debug.err, with_debug
        assert with_debug.status == found.status, with_debug
    return found


def _run(folder: Path, command: list[str], environment: Mapping[str, str] | None, before: str) -> Failed:
    whole = ["bash", "-c", f'{before}\nexec "$@"', "bash", *command] if before else command
    done = subprocess.run(
        whole, cwd=folder, env=environment_for(environment), capture_output=True, text=True, check=False,
        timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Failed(command, done.returncode, done.stdout, done.stderr)
