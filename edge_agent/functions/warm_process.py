"""The warm parent's process: has imported what function processes need, and forks one for each request.

It is started afresh (`warm.py`), so it holds nothing of the agent - no key, no thread - and runs no user code itself.
What was imported is frozen (gc.freeze) before the first fork: otherwise the first collection in each child would copy
it.

    agent -> here   b"F" with a socket (SCM_RIGHTS): fork a process that serves it    -> answer: its id, or -errno
                    b"R" and a process id: reap it, waiting for its end               -> answer: its wait status

Children are not reaped before the agent asks, so that a process id stays theirs until then.

**Delivery**: ends with the agent, and its children with it (PR_SET_PDEATHSIG in both). **Bounds**: one request at a
time; the agent says how many processes there are.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import struct

from .child import die_with, main
from .rehearsal import rehearse

__all__ = ["ANSWER", "FORK", "REAP", "REAP_REQUEST", "run"]

FORK, REAP = b"F", b"R"
REAP_REQUEST = struct.Struct("<ci")
ANSWER = struct.Struct("<i")
_PRELOADED = ("datetime", "json")
"""What functions commonly import, beside what `child.py` does. Not logging, threading and random: what these do after
each fork makes half a megabyte of pages the child's own (measured)."""


def run(descriptor: int, agent_pid: int) -> None:
    """Answer the agent at socket `descriptor` until it closes it; returns in each child, after its function ended."""
    die_with(agent_pid)
    for name in _PRELOADED:
        importlib.import_module(name)
    rehearse()
    warm_pid = os.getpid()
    control = socket.socket(fileno=descriptor)
    gc.collect()
    gc.freeze()
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, REAP_REQUEST.size, 1)
        if request == FORK:
            (theirs,) = descriptors
            pid = _forked()
            if pid == 0:
                control.close()
                os.set_inheritable(theirs, False)
                os.setsid()
                main(theirs, warm_pid)
                return
            os.close(theirs)
            control.send(ANSWER.pack(pid))
        elif len(request) == REAP_REQUEST.size:
            _, pid = REAP_REQUEST.unpack(request)
            control.send(ANSWER.pack(_reaped(pid)))
        else:
            return


def _forked() -> int:
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or 1)


def _reaped(pid: int) -> int:
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0
