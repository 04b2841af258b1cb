"""The least a device needs to see of a bridge: folds what arrives by MQTT in memory, and answers with watermarks.

In a test it is a `with` block around a broker's port; `python -m tests.kit.watermark_responder PORT` is a process.

**Delivery**: everything is lost with it; a new one on the same port starts from nothing, as a log that was wiped would.
**Bounds**: `keep` decides whether messages are kept (tests of some thousands) or only counted (load).
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge_agent.contract import limits, reports, topics, watermarks
from edge_agent.contract.fold import Outcome, PartitionFold
from edge_agent.contract.wire import Kind, decode_header

__all__ = ["WatermarkResponder"]

FLUSH_INTERVAL_S = 0.02


class WatermarkResponder:
    """A bridge with one partition, whose log is a list. `answering` False: it takes messages and says nothing."""

    def __init__(self, port: int, *, keep: bool = True) -> None:
        self.accepted: list[bytes] = []
        self.closed: list[tuple[str, int]] = []
        self.hellos = 0
        self.reports: list[reports.Report] = []
        self.messages = 0
        self.rows = 0
        self.answering = True
        self.fold = PartitionFold(0, [0] * limits.SHARDS)
        self._keep = keep
        self._port = port
        self._nonces: dict[str, bytes] = {}
        self._changed: set[str] = set()
        self._marks: dict[str, dict[int, int]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="responder")
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._flusher = threading.Thread(target=self._flush, daemon=True)
        self._subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: self._subscribed.set()

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        self._flusher.start()
        assert self._subscribed.wait(10), "the broker takes no subscription"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._flusher.join()
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: paho.Client, *_: Any) -> None:
        client.subscribe([(found, 1) for found in topics.shard_filters()])

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        kind, device = topics.device_of(message.topic)
        payload = bytes(message.payload)
        if kind == "report":
            self.reports.append(reports.decode_report(payload))
            return
        with self._lock:
            self._changed.add(device)
            if kind == "hello":
                hello = watermarks.decode_hello(payload)
                self.hellos += 1
                self._nonces[device] = hello.nonce
                for held in hello.epochs:
                    self._marks.setdefault(device, {})[held.epoch] = self.fold.watermark(device, held.epoch)
                return
            header, _ = decode_header(payload)
            self.messages += 1
            verdict = self.fold.apply(self.messages, time.time_ns() // 1_000_000, header)
            if header.kind is Kind.CLOSE:
                self.closed.append((device, header.epoch))
                return
            if verdict.outcome is Outcome.ACCEPTED:
                self.rows += header.rows
                if self._keep:
                    self.accepted.append(payload)
            self._marks.setdefault(device, {})[header.epoch] = self.fold.watermark(device, header.epoch)

    def _flush(self) -> None:
        while not self._ended.wait(FLUSH_INTERVAL_S):
            with self._lock:
                changed, self._changed = self._changed, set()
                answers = [
                    (
                        device,
                        watermarks.make_watermarks(self._nonces[device], tuple(self._marks.get(device, {}).items()), 0),
                    )
                    for device in changed
                    if device in self._nonces and self.answering
                ]
            for device, answer in answers:
                self._client.publish(topics.ack_topic(device), watermarks.encode(answer), qos=1)


if __name__ == "__main__":
    with WatermarkResponder(int(sys.argv[1]), keep=False) as responder:
        while True:
            time.sleep(1)
            print(responder.messages, responder.rows, flush=True)
