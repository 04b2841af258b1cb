"""`edgewater agent replay`: a CSV, JSON lines or Parquet file as readings of a device, each row exactly once.

    file -> source (rows with positions) -> reader (time, values) -> lanes (a spool and a sender a device) -> MQTT

**Delivery**: the position in the file is in the spool's transaction with the rows up to it; see `position.py`.
**Bounds**: see each module.
"""
