"""How a process tells others on the same machine how it is: one small JSON file, replaced atomically.

A process writes `<run_dir>/<name>.json` when it is ready and then about twice a second. Whoever reads it
(the demo's display, `edgewater status`, tests) sees a whole file or none.

**Delivery**: a status is a hint; nothing that must survive is kept here, so it is not synced, and a disk that is full
does not end who writes it: the old file stays, and tells by its time that it is old.
**Bounds**: at most STATUS_BYTES_MAX; a larger one is refused.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from .errors import LimitError

__all__ = ["StatusFile", "read_status"]

_log = logging.getLogger("edgewater.status")

STATUS_BYTES_MAX = 256 * 1024


class StatusFile:
    """Writes one process's status. `name` is the process's role, for instance `bridge` or `agent-pi4`."""

    def __init__(self, run_dir: Path | str | None, name: str) -> None:
        self.path = None if run_dir is None else Path(run_dir) / f"{name}.json"
        self._name = name
        self._started_at = time.time()
        self._failing = False
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **fields: Any) -> None:
        """Replace the file: pid, name, two times and `fields` (JSON values). Without a run directory: nothing."""
        if self.path is None:
            return
        document = {"name": self._name, "pid": os.getpid(), "started_at": self._started_at, "at": time.time(), **fields}
        data = json.dumps(document, separators=(",", ":")).encode()
        if len(data) > STATUS_BYTES_MAX:
            raise LimitError("status_bytes", len(data), STATUS_BYTES_MAX, "report fewer fields")
        temporary = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, self.path)
        except OSError as error:
            if not self._failing:
                _log.warning("cannot write the status file %s: %s", self.path, error.strerror)
            self._failing = True
        else:
            self._failing = False


def read_status(run_dir: Path | str, name: str) -> dict[str, Any] | None:
    """The last status of `name`, or None when there is none (yet)."""
    try:
        found: dict[str, Any] = json.loads((Path(run_dir) / f"{name}.json").read_bytes())
    except FileNotFoundError:
        return None
    return found
