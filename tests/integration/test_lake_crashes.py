"""kill -9 at every named step of prepare, decide, apply, publish, checkpoint, cleaning: each row is there once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import lake
from edge_agent.contract.errors import StopError
from tests.kit.lake_writer import GROWS_AT, ROWS, STATE_BYTES, fill
from tests.kit.processes import ROOT

pytestmark = pytest.mark.long

TRANSACTIONS = 8

POINTS = [
    "lake.create.before_link",
    "lake.create.after_link",
    "lake.create.after_sync",
    "lake.prepare.before_write",
    "lake.prepare.after_write",
    "lake.prepare.after_write:2",
    "lake.prepare.after_sync:2",
    "lake.decide.before_link",
    "lake.decide.before_link:2",
    "lake.decide.after_link",
    "lake.decide.after_link:3",
    "lake.decide.after_sync:2",
    "lake.lease.before_link",
    "lake.lease.after_link",
    "lake.lease.after_sync",
    "lake.apply.before_commit",
    "lake.apply.before_commit:4",
    "lake.apply.after_commit",  # one table has the transaction, the other has not
    "lake.apply.after_commit:2",
    "lake.apply.after_commit:5",
    "lake.apply.before_columns",
    "lake.apply.after_columns",  # the table has the column, and no transaction that has values for it
    "lake.publish.before_link",
    "lake.publish.before_link:2",
    "lake.publish.after_link:2",
    "lake.publish.after_sync:2",
    "lake.checkpoint.before_link",
    "lake.checkpoint.after_link",
    "lake.checkpoint.after_sync:2",
    "lake.clean.before_unlink",
    "lake.clean.before_unlink:3",
    "lake.delta_checkpoint.before_sync",
    "lake.delta_checkpoint.before_sync:2",
]


def _whole(here: lake.Lake) -> int:
    """How many transactions a reader sees, each of them whole: raw rows and aggregates of one snapshot agree."""
    (row,) = here.snapshot().query(
        "SELECT count(*) AS rows, count(DISTINCT (seq, row)) AS identities, count(DISTINCT seq) AS transactions, "
        "(SELECT coalesce(sum(count), 0)::BIGINT FROM readings_1m) AS counted FROM readings"
    ).arrow().to_pylist()  # fmt: skip
    assert row["rows"] == row["identities"] == row["counted"] == row["transactions"] * ROWS, row
    if any(column.name == "unit" for column in here.snapshot().columns("readings")):
        (wrong,) = here.snapshot().query(
            f"SELECT count(*) AS rows FROM readings WHERE (unit IS NOT NULL) <> (seq >= {GROWS_AT})"
        ).arrow().to_pylist()  # fmt: skip
        assert wrong["rows"] == 0
    return int(row["transactions"])


def _killed(directory: Path, point: str) -> None:
    command = [sys.executable, "-m", "tests.kit.lake_writer", str(directory), str(TRANSACTIONS)]
    environment = os.environ | {"EDGEWATER_CRASH_POINT": point}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False)
    assert result.returncode == -signal.SIGKILL, f"{point} was not passed: {result.stderr.decode()[-2000:]}"


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at(point: str, tmp_path: Path) -> None:
    """Readers see whole transactions right after the kill; another process goes on, and each row is there once."""
    directory = tmp_path / "lake"
    _killed(directory, point)
    decided = 0
    try:
        here = lake.open(directory)
    except StopError:
        assert point == "lake.create.before_link"
    else:
        seen = _whole(here)
        decided = here.chain("readings", 0).offset
        assert seen in (decided, decided - 1)
        here.apply()
        assert _whole(here) == decided
        here.close()
    fill(str(directory), TRANSACTIONS)
    with lake.open(directory) as here:
        assert _whole(here) == TRANSACTIONS
        head = here.chain("readings", 0)
        assert (head.offset, head.state) == (TRANSACTIONS, bytes([TRANSACTIONS - 1]) * STATE_BYTES)
        for table in ("readings", "readings_1m"):
            assert len(here.snapshot().files(table)) == TRANSACTIONS


def test_kills_in_a_row(tmp_path: Path) -> None:
    """The same lake, killed at one step after the other, each time by a new process that first rolls forward."""
    directory = tmp_path / "lake"
    for point in (
        "lake.decide.after_link",
        "lake.apply.after_commit",
        "lake.publish.before_link",
        "lake.apply.after_commit:2",
    ):
        _killed(directory, point)
        _whole(lake.open(directory))
    fill(str(directory), TRANSACTIONS)
    assert _whole(lake.open(directory)) == TRANSACTIONS


def test_two_processes_on_one_lake(tmp_path: Path) -> None:
    """Two workers that believe in the same partition: one is fenced, nothing is doubled, the other finishes."""
    directory = tmp_path / "lake"
    lake.open(directory, create=True).close()
    command = [sys.executable, "-m", "tests.kit.lake_writer", str(directory), "20"]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)
    ]
    reader = lake.open(directory)
    most = 0
    while any(process.poll() is None for process in processes):
        seen = _whole(reader)
        assert seen >= most
        most = seen
    errors = [process.communicate()[1].decode() for process in processes]
    assert all(
        process.returncode == 0 or "FencedError" in error for process, error in zip(processes, errors, strict=True)
    )
    fill(str(directory), 20)
    assert _whole(lake.open(directory)) == 20
