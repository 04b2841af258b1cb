"""Why a server cannot listen, for a person: the address, the system's reason, and which option to change.

**Delivery**: pure. **Bounds**: one line.
"""

from __future__ import annotations

import errno
import os

from .errors import StopError

__all__ = ["cannot_listen"]

_STEPS = {
    errno.EADDRINUSE: "another process listens there; end that one, or give another --port (0: any free one)",
    errno.EADDRNOTAVAIL: "this machine has no such address; give another --host",
    errno.EACCES: "ports below 1024 need rights; give another --port (0: any free one)",
}


def cannot_listen(host: str, port: int, error: BaseException) -> StopError:
    """The error to raise for what listening at `host:port` raised; libraries wrap the system's error in their own."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    number = found.errno if isinstance(found, OSError) and found.errno is not None else 0
    # A name that cannot be resolved has numbers of its own, below zero.
    reason = os.strerror(number) if number > 0 else str(found or error)
    step = _STEPS.get(number, "give another --host or --port")
    return StopError(f"cannot listen on {host}:{port}: {reason}; {step}")
