"""Functions: user code on a device, each in a process of its own.

`api.py` is what a function file imports, `child.py` the process that runs one function, `supervisor.py` the agent's
side of it, `frames.py` what the two say to each other, `host.py` the function that comes with Edgewater.

**Delivery**: a function's process holds rows for a moment only; what the spool has accepted is promised, nothing else.
**Bounds**: at most two batches of a function wait for the spool; then the function waits.
"""
