"""The supervisor with children of a line each: readiness, restarts, what ends it, the order of the end."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import supervisor as supervisor_module
from deploy.supervisor import RAPID_ENDS_MAX, Service, Supervisor
from edge_agent.contract.errors import StopError
from tests.kit.wait import until

_READY = (
    "import sys, time; from edge_agent.contract.status import StatusFile; print('hello', flush=True); "
    "StatusFile({run!r}, {name!r}).write(state='running'); {then}"
)
_STAY = "time.sleep(60)"


class World:
    """A supervisor, and what it told."""

    def __init__(self, directory: Path) -> None:
        self.told: list[str] = []
        self.run_dir = directory / "run"
        self.supervisor = Supervisor(self.run_dir, self.told.append)

    def service(self, name: str, then: str = _STAY, **fields: object) -> Service:
        code = _READY.format(run=str(self.run_dir), name=name, then=then)
        return Service(name, [sys.executable, "-c", code], **fields)  # type: ignore[arg-type]

    def check_until(self, words: str) -> None:
        until(lambda: (self.supervisor.check(), any(words in text for text in self.told))[1], 20, words)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Back-off is short; every child is ended."""
    monkeypatch.setattr(supervisor_module, "_BACKOFF_FIRST_S", 0.01)
    monkeypatch.setattr(supervisor_module, "_BACKOFF_MAX_S", 0.02)
    found = World(tmp_path)
    with found.supervisor:
        yield found


def test_a_killed_child_is_started_again_and_both_are_told(world: World) -> None:
    """How it ended, and that its next process is ready."""
    world.supervisor.start(world.service("part"))
    first = world.supervisor.wait_ready("part")["pid"]
    os.kill(first, signal.SIGKILL)
    world.check_until("part runs again")
    assert world.told[0].startswith("part was ended by SIGKILL; starting again in")
    assert "start 2" in world.told[1]
    assert world.supervisor.wait_ready("part")["pid"] != first
    assert world.supervisor.services["part"].restarts == 1


def test_one_that_is_a_persons_is_tried_once_and_its_own_words_are_shown(world: World) -> None:
    """Only what this very process wrote, not what is in its log from before."""
    world.supervisor.log_path("job").write_text("an old line\n")
    world.supervisor.start(
        Service("job", [sys.executable, "-c", "import sys; sys.exit('job.py:7: no')"], first_tries=1)
    )
    with pytest.raises(StopError, match=r"job ended with exit status 1; its log, .*job\.log, ends:\njob\.py:7: no$"):
        world.supervisor.wait_ready("job", 20)


def test_the_message_of_a_command_is_the_reason(world: World) -> None:
    """What it said to a person last, without the rest of its log."""
    code = "import sys; print('INFO begins', file=sys.stderr); sys.exit('edgewater: job.py:7: mend the file')"
    world.supervisor.start(Service("job", [sys.executable, "-c", code], first_tries=1))
    with pytest.raises(StopError, match=r"^job ended with exit status 1: job\.py:7: mend the file$"):
        world.supervisor.wait_ready("job", 20)


def test_a_command_line_that_is_not_understood_is_not_tried_again(world: World) -> None:
    """Exit status 2."""
    world.supervisor.start(Service("part", [sys.executable, "-c", "import sys; sys.exit(2)"]))
    with pytest.raises(StopError, match="exit status 2"):
        world.supervisor.wait_ready("part", 20)
    assert world.told == []


def test_one_that_is_ready_and_dies_over_and_over_ends_it(world: World) -> None:
    """Being ready for a moment does not make it well."""
    world.supervisor.start(world.service("part", "sys.exit(3)"))
    with pytest.raises(StopError, match=f"exit status 3 {RAPID_ENDS_MAX} times in a row"):
        until(lambda: world.supervisor.check() and False, 60, "the end of it")
    assert "hello" in world.supervisor.tail("part")


def test_groups_are_ended_together_in_the_reverse_order(world: World, tmp_path: Path) -> None:
    """Two that need a second each, of one group, need little more than one second."""
    ends = tmp_path / "ends"
    then = (
        "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit("
        f"open({str(ends)!r}, 'a').write({{name!r}}) and 0)); time.sleep(60)"
    )
    for name, group in (("a", ""), ("b", "pair"), ("c", "pair")):
        world.supervisor.start(world.service(name, then.format(name=name), group=group))
    for name in "abc":
        world.supervisor.wait_ready(name, 20)
    world.supervisor.end_all()
    assert ends.read_text() in ("bca", "cba")
    assert all(service.process is None for service in world.supervisor.services.values())


def test_a_second_interrupt_kills_what_is_left(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one that does not end is waited for."""
    world.supervisor.start(world.service("deaf", "import signal; signal.signal(15, signal.SIG_IGN); time.sleep(60)"))
    pid = world.supervisor.wait_ready("deaf", 20)["pid"]
    process = world.supervisor.services["deaf"].process
    assert process is not None
    wait = process.wait

    def interrupted(timeout: float | None = None) -> int:
        monkeypatch.setattr(process, "wait", wait)
        raise KeyboardInterrupt

    def ignored() -> int:
        line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigIgn"))
        return int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1)

    # The child must ignore the signal before it comes.
    until(ignored, 10, "the child to be deaf")
    monkeypatch.setattr(process, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.supervisor.end_all()
    assert process.returncode == -signal.SIGKILL


def test_a_long_log_is_put_aside_and_its_writer_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One older file is kept."""
    monkeypatch.setattr(supervisor_module, "LOG_BYTES_MAX", 100)
    world.supervisor.start(world.service("part", "[print('x' * 99, flush=True) for _ in range(2)]; " + _STAY))
    world.supervisor.wait_ready("part", 20)
    path = world.supervisor.log_path("part")
    until(lambda: path.stat().st_size > 200, 10, "the log")
    world.supervisor._logs_at_s = 0.0
    world.supervisor.check()
    assert path.stat().st_size == 0
    assert path.with_suffix(".log.old").stat().st_size > 200


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """Under a file, for instance."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StopError, match="cannot make the directory"):
        Supervisor(tmp_path / "file" / "run")
