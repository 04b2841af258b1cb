"""`edgewater worker run`: its options and how its log reads."""

from __future__ import annotations

import argparse
import logging

import pytest

from edge_agent.contract.errors import SettingsError
from edge_agent.contract.settings import flags_from, load
from stream_jobs.cli import add_worker_commands
from stream_jobs.worker.command import _OneLine
from stream_jobs.worker.settings import WorkerSettings


def test_options_are_the_settings() -> None:
    """Every setting is an option; numbers out of bounds are named with the bound."""
    parser = argparse.ArgumentParser()
    add_worker_commands(parser)
    arguments = parser.parse_args(
        ["run", "--bootstrap-servers", "h:1", "--lake", "l", "--run-dir", "r", "--session-timeout-s", "2"]
    )
    settings = load(WorkerSettings, "worker", flags=flags_from(arguments, WorkerSettings), environment={})
    assert (settings.bootstrap_servers, settings.lake, settings.session_timeout_s) == ("h:1", "l", 2.0)
    with pytest.raises(SettingsError, match="commit-interval-s"):
        load(WorkerSettings, "worker", flags={"commit_interval_s": "0"}, environment={})


def record(name: str, error: Exception | None = None) -> logging.LogRecord:
    """A record as a library logs it."""
    info = (type(error), error, None) if error else None
    return logging.LogRecord(name, logging.ERROR, "", 0, "Commit\nOffsets %s", ("x",), info)


def test_libraries_log_one_line_and_not_every_attempt() -> None:
    """Tracebacks and tables of libraries become one line, a second one soon after is left out; ours pass untouched."""
    one_line = _OneLine()
    first = record("aiokafka.consumer", OSError("refused"))
    assert one_line.filter(first)
    assert first.getMessage() == "Commit Offsets x (OSError: refused)"
    assert first.exc_info is None
    assert not one_line.filter(record("aiokafka.consumer"))
    assert one_line.filter(record("aiokafka.other"))
    ours = record("edgewater.worker")
    assert one_line.filter(ours)
    assert ours.getMessage() == "Commit\nOffsets x"
