"""Foreign devices: what they publish over MQTT (Zigbee2MQTT, Tasmota, plain numbers ...) becomes rows in the log.

`topics.py`, `declared.py`, `presets.py`, `decode.py`, `times.py`, `rows.py` and `collector.py` decide and do no I/O;
`log_side.py` appends; `service.py` is the process. docs/foreign-devices.md has it for users.
"""

from __future__ import annotations
