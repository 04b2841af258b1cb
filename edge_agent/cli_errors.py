"""What a person is told of an error that reaches the command: one message with the place and the next step.

**Delivery**: pure, but for the user's name in a message about rights. **Bounds**: control characters are escaped, so
that what devices and files send cannot steer a terminal; a message has at most 20 lines of 2000 characters.
"""

from __future__ import annotations

import errno
import getpass
import os
from contextlib import suppress

from edge_agent.contract.errors import EdgewaterError, redacted

__all__ = ["EXIT_FAILED", "EXIT_FAULT", "explained", "printable"]

EXIT_FAILED = 1
EXIT_FAULT = 70
"""A fault of Edgewater itself: EX_SOFTWARE of sysexits.h."""

_LINES_MAX = 20
_LINE_CHARACTERS_MAX = 2000

_OURS = ("edge_agent", "stream_jobs", "lake", "deploy")
_EXTRAS = {
    "amqtt": "embedded", "transitions": "embedded", "passlib": "embedded",
    "pyarrow": "lake", "deltalake": "lake", "duckdb": "lake",
    "kafka": "stream", "aiokafka": "stream", "faust": "stream", "mode": "stream", "crc32c": "stream",
    "waitress": "http",
}  # fmt: skip
"""Top-level module -> the extra that installs it."""

_STEPS = {
    errno.ENOSPC: "no space is left on its disk; free some, or give a directory on another disk",
    errno.EDQUOT: "the user's quota is used up; free some space, or give a directory on another disk",
    errno.EFBIG: "the largest file that is allowed is reached; raise the limit (ulimit -f), or give another disk",
    errno.EROFS: "its disk can only be read; give a directory on another one",
    errno.ENOENT: "it does not exist; check the path",
    errno.ENOTDIR: "a part of the path is a file; check the path",
    errno.EISDIR: "it is a directory; give a file",
    errno.EEXIST: "it exists already; give another one",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one",
    errno.EMFILE: "this process may open no more files; raise the limit (ulimit -n)",
    errno.ENFILE: "this machine can open no more files; end what has them open",
    errno.EADDRINUSE: "another process listens there; end that one, or give another --port (0: any free one)",
    errno.EADDRNOTAVAIL: "this machine has no such address; give another --host",
    errno.ECONNREFUSED: "nothing listens there; start it, or check host and port",
    errno.EIO: "the disk fails; check it",
}
"""What an error of the system means, and the next step."""


def explained(error: BaseException) -> tuple[str, int] | None:
    """The message and the exit status for an error that is no fault of the program; None for all others."""
    if isinstance(error, EdgewaterError):
        return str(error) or type(error).__name__, EXIT_FAILED
    if isinstance(error, ModuleNotFoundError):
        text = _missing_package(error)
    elif isinstance(error, OSError):
        text = _of_the_system(error)
    elif isinstance(error, MemoryError):
        text = "there is not enough memory; free some, or lower the limits in bytes (`edgewater settings` lists them)"
    elif type(error).__module__ == "sqlite3":
        text = f"a database cannot be used: {error}; check the disk, its space and the owner of the directory"
    else:
        text = None
    return None if text is None else (text, EXIT_FAILED)


def _missing_package(error: ModuleNotFoundError) -> str | None:
    """What to install, when `error` is about a package that is not ours."""
    top = (error.name or "").partition(".")[0]
    if not top or top in _OURS:
        return None
    extra = _EXTRAS.get(top, "all")
    return f"this command needs the package {top}, which is not installed: pip install 'edgewater[{extra}]'"


def _of_the_system(error: OSError) -> str | None:
    """None when neither the number nor a path says what it is about."""
    step = _STEPS.get(error.errno or 0)
    if error.errno in (errno.EACCES, errno.EPERM):
        user = str(os.getuid())
        with suppress(OSError, KeyError):
            user = getpass.getuser()
        step = f"user {user} may not do that; check its owner and rights"
    names = [os.fsdecode(name) if isinstance(name, (str, bytes, os.PathLike)) else str(name)
             for name in (error.filename, error.filename2) if name is not None]  # fmt: skip
    reason = error.strerror or str(error)
    if step is None and not names:
        return None
    step = step or f"{reason}; check the path, its owner and the disk"
    return f"{' and '.join(names)}: {step}" if names else f"{reason}: {step}"


def printable(text: str) -> str:
    """`text` without control characters and passwords, and no longer than a screen."""
    shown = []
    for line in text.splitlines():
        safe = " ".join(redacted(word) if "://" in word else word for word in line.split(" "))
        shown.append("".join(c if c.isprintable() else repr(c)[1:-1] for c in safe)[:_LINE_CHARACTERS_MAX])
    if len(shown) > _LINES_MAX:
        shown = [*shown[:_LINES_MAX], f"... {len(shown) - _LINES_MAX} lines more"]
    return "\n".join(shown)
