"""The alternative of end_to_end.py: paho to paho to Parquet, without a single promise. It starts two of these.

**Delivery**: none: what a kill interrupts is lost. **Bounds**: `seconds`.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from array import array
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt


def _connect(port: int) -> mqtt.Client:
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
    client.max_inflight_messages_set(200)
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client


def _send(port: int, rate: int, seconds: float) -> None:
    client = _connect(port)
    values = array("d", (n % 97 / 7 for n in range(1000)))
    codes = bytes(n % 8 for n in range(1000))
    end = time.monotonic() + seconds
    due = time.monotonic()
    infos: list[mqtt.MQTTMessageInfo] = []
    while time.monotonic() < end:
        now_us = time.time_ns() // 1000
        ts = array("q", range(now_us, now_us + 1000))
        infos.append(client.publish("bare", msgspec.msgpack.encode([ts.tobytes(), codes, values.tobytes()]), qos=1))
        if len(infos) >= 200:
            infos.pop(0).wait_for_publish(30)
        due += 1000 / rate
        time.sleep(max(0.0, due - time.monotonic()))
    for info in infos:
        info.wait_for_publish(30)
    client.publish("bare/end", b"", qos=1).wait_for_publish(30)
    client.loop_stop()


def _read(port: int, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = pa.array([f"sensor_{n}" for n in range(8)])
    waiting: list[bytes] = []
    lock, ended = threading.Lock(), threading.Event()

    def received(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        if message.topic == "bare/end":
            ended.set()
            return
        with lock:
            waiting.append(message.payload)

    client = _connect(port)
    client.on_message = received
    client.subscribe([("bare", 1), ("bare/end", 1)])
    rows, first_at, number = 0, 0.0, 0
    while not (ended.is_set() and not waiting):
        time.sleep(0.2)
        with lock:
            batch, waiting[:] = list(waiting), []
        if not batch:
            continue
        first_at = first_at or time.monotonic()
        parts = [msgspec.msgpack.decode(payload) for payload in batch]
        ts, codes, values = (b"".join(part[i] for part in parts) for i in range(3))
        count = len(codes)
        table = pa.table(
            {
                "ts": pa.Array.from_buffers(pa.timestamp("us", "UTC"), count, [None, pa.py_buffer(ts)]),
                "name": pa.DictionaryArray.from_arrays(
                    pa.Array.from_buffers(pa.uint8(), count, [None, pa.py_buffer(codes)]), names
                ),
                "value": pa.Array.from_buffers(pa.float64(), count, [None, pa.py_buffer(values)]),
            }
        )
        pq.write_table(table, folder / f"{number}.parquet", compression="zstd", compression_level=1)
        number += 1
        rows += count
    print(json.dumps({"rate": rows / (time.monotonic() - first_at), "rows": rows}))
    client.loop_stop()


if __name__ == "__main__":
    _port, _rate, _seconds, _folder, _role = sys.argv[1:]
    if _role == "send":
        _send(int(_port), int(_rate), float(_seconds))
    else:
        _read(int(_port), Path(_folder))
