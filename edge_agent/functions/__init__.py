"""Functions: user code on a device, each in a process of its own.

`api.py` is what a function file imports, `loader.py` runs the file, `work.py` calls one function, `rows.py`,
`table_rows.py` and `cell.py` make batches of what it returns; the test kit `edge_agent/testing.py` uses those too.
`child.py` is the process that runs one function, `supervisor.py` and `process.py` the agent's side of it, `mailbox.py`
what waits for it, `frames.py` what the two say to each other, `host.py` the function that comes with Edgewater.

**Delivery**: a function's process holds rows for a moment only; what the spool has accepted is promised, nothing else.
**Bounds**: at most two batches of a function wait for the spool; then the function waits.
"""
