"""Every fixed limit of the product in one place, with the relations that must hold between them.

Units are last in each name. What a person may change is a setting (`settings.py`); what both sides of
the network must agree on is here.

**Delivery**: a value over a limit is refused before anything is stored. **Bounds**: this module is them.
"""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

SHARDS = 256
"""Number of shards: fixed for the life of a deployment, since the hash of a device is taken modulo this."""

DEVICE_ID_CHARACTERS_MAX = 128
STREAM_NAME_CHARACTERS_MAX = 64
FUNCTION_NAME_CHARACTERS_MAX = 64
COLUMN_NAME_CHARACTERS_MAX = 128
FUNCTION_VERSION_BYTES = 8
TRACE_BYTES = 24
"""W3C trace id (16 bytes) and span id (8 bytes)."""

HEADER_BYTES_MAX = 512
BATCH_BYTES_MAX = 512 * KIB
"""A whole wire message, header included, as it is sent."""
BODY_RAW_BYTES_MAX = 4 * MIB
"""A body after decompression."""
BATCH_ROWS_MAX = 65_536
BATCH_COLUMNS_MAX = 256
DICTIONARY_ENTRIES_MAX = 65_536
STRING_BYTES_MAX = 64 * KIB
SKIP_SPAN_MAX = 65_536
"""Seqs that one skip record can list with their row counts; a longer range is several records."""

LOG_RECORD_BYTES_MAX = 1_000_000
"""Apache Kafka's default `max.message.bytes` is 1,048,588; stay below it with room for the record's frame."""
CHECKPOINT_BYTES_MAX = 16 * MIB

HELLO_EPOCHS_MAX = 64
UNACKED_BYTES_MAX_DEFAULT = 4 * MIB
FUNCTION_FRAME_BYTES_MAX = BODY_RAW_BYTES_MAX + 64 * KIB

EPOCH_FORGET_AFTER_S = 30 * 24 * 3600

assert HEADER_BYTES_MAX > 64 + DEVICE_ID_CHARACTERS_MAX + STREAM_NAME_CHARACTERS_MAX + FUNCTION_NAME_CHARACTERS_MAX
assert BATCH_BYTES_MAX + HEADER_BYTES_MAX < LOG_RECORD_BYTES_MAX < 1_048_588
assert BATCH_BYTES_MAX < BODY_RAW_BYTES_MAX
assert UNACKED_BYTES_MAX_DEFAULT >= 2 * BATCH_BYTES_MAX
assert DICTIONARY_ENTRIES_MAX <= BATCH_ROWS_MAX
assert SKIP_SPAN_MAX * 5 < BODY_RAW_BYTES_MAX
