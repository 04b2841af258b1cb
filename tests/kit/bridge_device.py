"""A scripted device for the bridge's tests: a list as spool, the watermark protocol, and nothing else.

**Delivery**: it trims on watermarks only and keeps every batch it ever accepted for the checker. **Bounds**: at most
WINDOW batches unacknowledged; ends with its `with` block.
"""

from __future__ import annotations

import secrets
import threading
import time
import urllib.parse
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract.errors import DecodeError
from edge_agent.contract.names import new_epoch
from edge_agent.contract.topics import ack_topic, batch_topic, hello_topic
from edge_agent.contract.watermarks import HeldEpoch, decode_watermarks, encode, make_hello
from edge_agent.contract.wire import encode_batch

WINDOW = 200
STALL_S = 0.5


class ScriptedDevice:
    """One device with one epoch. `accept` adds batches; a thread sends them until the watermark covers them."""

    def __init__(self, url: str, name: str, body_bytes: int = 100, window: int = WINDOW) -> None:
        parts = urllib.parse.urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 1883)
        self.name = name
        self.epoch = new_epoch(time.time_ns() // 1000, secrets.randbits(32), 0)
        self.first_seq = 1
        self.accepted = 0
        self.trimmed = 0
        self.latencies_s: list[float] = []
        self.watermark_messages = 0
        self.maker = True
        self._body = bytes(body_bytes)
        self._window = window
        self._sent = 0
        self._sent_at: dict[int, float] = {}
        self._nonce = b""
        self._welcome = False
        self._changed = threading.Condition()
        self._ended = False
        client = paho.Client(CallbackAPIVersion.VERSION2, f"{name}-{secrets.token_hex(3)}", protocol=paho.MQTTv311)
        client.reconnect_delay_set(1, 1)
        client.max_inflight_messages_set(window * 2)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        self._client = client
        self._thread = threading.Thread(target=self._send, name=name, daemon=True)

    def message(self, seq: int) -> bytes:
        """The batch with this seq; its rows say which it is."""
        return encode_batch(
            seq.to_bytes(8, "little") + self._body, device=self.name, epoch=self.epoch, seq=seq, rows=seq % 1000 + 1,
            stream="readings", compress=False,
        )  # fmt: skip

    def accept(self, count: int) -> None:
        """As many more batches in the spool."""
        with self._changed:
            self.accepted += count
            self._changed.notify()

    @property
    def drained(self) -> bool:
        """Whether everything accepted is covered by a watermark."""
        return self.trimmed >= self.accepted

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, code: Any, properties: Any) -> None:
        client.subscribe(ack_topic(self.name), 1)
        with self._changed:
            self._welcome = False
            self._nonce = secrets.token_bytes(8)
        self._hello()

    def _hello(self) -> None:
        held = HeldEpoch(self.epoch, max(self.first_seq, self.trimmed + 1), self.maker)
        self._client.publish(hello_topic(self.name), encode(make_hello(self._nonce, (held,))), qos=1)

    def _on_message(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        try:
            answer = decode_watermarks(bytes(message.payload))
        except DecodeError:
            return
        with self._changed:
            if answer.nonce != self._nonce:
                return
            self.watermark_messages += 1
            watermark = dict(answer.watermarks).get(self.epoch)
            if watermark is None:
                return
            now = time.monotonic()
            for seq in range(self.trimmed + 1, watermark + 1):
                if seq in self._sent_at:
                    self.latencies_s.append(now - self._sent_at.pop(seq))
            self.trimmed = max(self.trimmed, watermark)
            if not self._welcome:
                self._welcome, self._sent = True, self.trimmed
            self._changed.notify()

    def _send(self) -> None:
        progress_at, last = time.monotonic(), -1
        while not self._ended:
            with self._changed:
                ready = self._welcome and self._sent < min(self.accepted, self.trimmed + self._window)
                if not ready:
                    self._changed.wait(0.05)
                if self.trimmed != last or self.drained:
                    last, progress_at = self.trimmed, time.monotonic()
                stalled = time.monotonic() - progress_at > STALL_S
                if stalled:
                    self._welcome, progress_at = False, time.monotonic()
                upto = min(self.accepted, self.trimmed + self._window) if self._welcome else self._sent
                todo = range(max(self._sent, self.first_seq - 1) + 1, upto + 1)
                self._sent = max(self._sent, upto)
                for seq in todo:
                    self._sent_at.setdefault(seq, time.monotonic())
            if stalled and self._client.is_connected():
                self._hello()
            for seq in todo:
                self._client.publish(batch_topic(self.name), self.message(seq), qos=1)

    def __enter__(self) -> Self:
        self._client.connect_async(*self._address, keepalive=30)
        self._client.loop_start()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join(5)
        self._client.disconnect()
        self._client.loop_stop()
