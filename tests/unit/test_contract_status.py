"""Status files: whole or not there, bounded, and no reason to end."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edge_agent.contract.errors import LimitError
from edge_agent.contract.status import STATUS_BYTES_MAX, StatusFile, read_status


def test_what_is_written_is_read_with_who_wrote_it(tmp_path: Path) -> None:
    """Name, process and times are added."""
    StatusFile(tmp_path / "run", "bridge").write(state="running")
    found = read_status(tmp_path / "run", "bridge")
    assert found is not None
    assert (found["name"], found["state"]) == ("bridge", "running")
    assert found["started_at"] <= found["at"]
    assert read_status(tmp_path / "run", "worker") is None


def test_a_status_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """With the limit."""
    with pytest.raises(LimitError, match=str(STATUS_BYTES_MAX)):
        StatusFile(tmp_path, "x").write(text="x" * STATUS_BYTES_MAX)


def test_a_full_disk_leaves_the_old_file_and_ends_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, until writing works again."""
    status = StatusFile(tmp_path, "x")
    status.write(number=1)

    def full(_path: Path, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        status.write(number=2)
        status.write(number=3)
    assert (read_status(tmp_path, "x") or {})["number"] == 1
    assert caplog.text.count("No space left on device") == 1
    status.write(number=4)
    assert (read_status(tmp_path, "x") or {})["number"] == 4
