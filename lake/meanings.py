"""What the columns of the known tables mean, for people who look at a schema.

**Delivery**: pure. **Bounds**: a text is one line.
"""

from __future__ import annotations

__all__ = ["meaning"]

_PROVENANCE = {
    "device": "the device that measured it",
    "epoch": "the opening of the device's spool in which it was accepted",
    "seq": "number of its batch in the epoch: 1, 2, 3 ...",
    "row": "its place in the batch, from 0",
    "function": "the function on the device that returned it",
    "function_version": "digest of that function's code",
    "received_at": "when the log took the batch, by the log's clock",
    "trace": "trace id and span id, where there is one",
}
_TABLES = {
    "readings": {
        "ts": "when it was measured, by the device's clock",
        "name": "what was measured",
        "value": "the value; null where the function returned none",
    },
    "readings_1m": {
        "minute": "beginning of the minute, by the device's clock",
        "device": "the device that measured",
        "name": "what was measured",
        "count": "how many values that are neither null nor NaN",
        "nan_count": "how many values that are NaN",
        "sum": "sum of the values",
        "min": "the lowest value",
        "max": "the highest value",
        "mean": "their mean",
        "m2": "sum of squared deviations from the mean: the variance is m2 / (count - 1)",
        "first": "the first value of the minute",
        "last": "the last value of the minute",
    },
    "dead_letters": {
        "payload": "what could not land, as it came",
        "reason": "why",
        "topic": "the log's or MQTT topic it was in, or its place on the device, as file.csv:17",
        "partition": "partition of the log",
        "offset": "offset in the partition",
        "device": "the device that sent it, where that can be told",
        "epoch": "the opening of the device's spool, where that can be told",
        "seq": "number of its batch in the epoch, where that can be told",
        "received_at": "when the log took it",
        "job": "the job that put it aside; null where none did",
    },
    "skipped": {
        "device": "the device whose rows will never come",
        "epoch": "the opening of the device's spool",
        "seq_first": "the first batch that will never come",
        "seq_last": "the last batch that will never come",
        "stream": "the stream of the rows; null where nobody knows",
        "rows": "how many rows; null where nobody knows",
        "reason": "dropped (a full spool's policy), damaged (on the device's disk) or lost",
        "received_at": "when the log took the device's word for it",
    },
}


def meaning(table: str, column: str, landed: bool = False) -> str:
    """What `column` of `table` means, empty where only its job knows; `landed`: its rows are as devices sent them."""
    known = _TABLES.get(table, {})
    if column in known:
        return known[column]
    if table == "readings_1m" and column.startswith(("first_", "last_")):
        end, _, part = column.partition("_")
        return f"{part} of the {end} value: what orders it"
    if landed and column == "ts":
        return "when it was, by the device's clock"
    return _PROVENANCE.get(column, "") if landed else ""
