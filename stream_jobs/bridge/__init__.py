"""The bridge: takes devices' batches from MQTT, appends them to the log, and tells devices what is durable.

`partition.py`, `answers.py` and `checkpoints.py` decide and do no I/O; `restore.py` reads the log; `service.py` is
the process; `mqtt.py` is the only module that imports paho. docs/formats/watermark-protocol.md has the protocol.
"""

from __future__ import annotations
