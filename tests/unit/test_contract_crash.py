"""Crash points: a process kills itself at the n-th pass, and nowhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
from edge_agent.contract.crash import crash_point
for number in (1, 2, 3):
    print(number, flush=True)
    crash_point("other")
    crash_point("here")
"""


def _run(point: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "EDGEWATER_CRASH_POINT": point}
    return subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_the_process_dies_at_the_named_pass() -> None:
    """SIGKILL at the second pass of the named point; a point without a number means the first."""
    second, first = _run("here:2"), _run("here")
    assert (second.returncode, second.stdout) == (-signal.SIGKILL, "1\n2\n")
    assert (first.returncode, first.stdout) == (-signal.SIGKILL, "1\n")


def test_without_a_point_or_with_another_nothing_happens() -> None:
    """The run ends by itself."""
    assert _run("").returncode == 0
    assert _run("elsewhere:1").returncode == 0


def test_a_malformed_point_says_how_to_write_it() -> None:
    """A typing error in a test must not pass for `no crash`."""
    found = _run("here:x")
    assert found.returncode == 1
    assert "write name or name:n" in found.stderr
