"""Standard output whose errors say that they are its own: a full disk or a closed pipe is then told from any other.

**Delivery**: what was written is written as before. **Bounds**: one buffer of the standard size.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Any

__all__ = ["STANDARD_OUTPUT", "give_up_output", "name_output"]

STANDARD_OUTPUT = "standard output"


class _Named(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            raise


def name_output() -> None:
    """Exchange sys.stdout for one that names itself; does nothing where it is no ordinary one, as in tests."""
    old = sys.stdout
    if not isinstance(old, io.TextIOWrapper):
        return
    # With PYTHONUNBUFFERED there is no buffer between text and file.
    raw = getattr(old.buffer, "raw", old.buffer)
    if not isinstance(raw, io.FileIO) or isinstance(raw, _Named) or raw.fileno() != 1:
        return
    old.flush()
    named: Any = _Named(1, "w", closefd=False)
    sys.stdout = io.TextIOWrapper(
        named if raw is old.buffer else io.BufferedWriter(named),
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=old.line_buffering,
        write_through=old.write_through,
    )


def give_up_output() -> None:
    """Throw away what is still in the buffer: it can go nowhere, and the interpreter would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
