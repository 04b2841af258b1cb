"""`edgewater demo` as a newcomer runs it: exit status, the proof it prints, Ctrl-C at any moment, twice in a row."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.kit.processes import edgewater
from tests.kit.wait import until


def _processes_of(directory: Path) -> list[str]:
    """Command lines of live processes that name the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(directory) in command:
                found.append(command)
    return found


def _demo(directory: Path, seconds: str = "5") -> list[str]:
    return edgewater("demo", "--dir", directory, "--seconds", seconds)


@pytest.mark.timeout(120)
def test_the_demo_proves_itself_twice_on_one_directory(tmp_path: Path) -> None:
    """Each run ends with 0 and the sentence that says so; the printed query works on the printed lake."""
    for _ in range(2):
        done = subprocess.run(_demo(tmp_path / "d"), capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "each of them is in the lake exactly once" in done.stdout
        assert f"The lake is in {tmp_path / 'd' / 'lake'}" in done.stdout
        assert "\x1b" not in done.stdout
        assert _processes_of(tmp_path) == []
    query = edgewater("lake", "query", "--dir", tmp_path / "d" / "lake", "SELECT count(*) > 0 AS some FROM readings_1m")
    answer = subprocess.run(query, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "true" in answer.stdout.lower()


@pytest.mark.long
@pytest.mark.timeout(120)
def test_ctrl_c_at_any_moment_leaves_no_process_behind(tmp_path: Path, seed: int) -> None:
    """Interrupted at seeded moments from the first status file on, the demo ends with 130 and nothing of it lives."""
    generator = random.Random(seed)
    for number, status in enumerate(["mqtt", "bridge", generator.choice(["log", "worker"]), "agent-"]):
        directory = tmp_path / f"d{number}"
        process = subprocess.Popen(_demo(directory, "60"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            until(lambda d=directory, s=status: list((d / "run").glob(f"{s}*.json")), 40, f"status of {status}")
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=40)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 130, f"seed {seed}: {process.returncode} {error}"
        assert "Traceback" not in error
        assert _processes_of(directory) == [], f"seed {seed}: interrupted at {status}"


@pytest.mark.long
@pytest.mark.timeout(60)
def test_a_killed_demo_takes_its_processes_with_it(tmp_path: Path) -> None:
    """kill -9 of the demo itself: the kernel tells its children, and they end."""
    process = subprocess.Popen(_demo(tmp_path / "d", "60"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: list((tmp_path / "d" / "run").glob("agent-*.json")), 40, "the agent's status")
    finally:
        process.kill()
        process.wait(10)
    until(lambda: not _processes_of(tmp_path), 40, "the end of the demo's children")
