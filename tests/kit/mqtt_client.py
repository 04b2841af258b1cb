"""An MQTT client for tests: paho with every wait bounded, and a bare socket for what a good client would never do.

**Delivery**: clients are closed with their `with` block. **Bounds**: each wait has a deadline of `timeout_s` seconds.
"""

from __future__ import annotations

import socket
import struct
import threading
from types import TracebackType
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from .wait import until

__all__ = ["MqttClient", "RawClient"]


class MqttClient:
    """A connected paho client (MQTT 3.1.1, clean session). What it receives is in `received`, oldest first."""

    def __init__(
        self, host: str, port: int, client_id: str, *, will: tuple[str, bytes] | None = None, timeout_s: float = 10.0
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.retained: list[bool] = []
        self.disconnects = 0
        self.timeout_s = timeout_s
        self._connected = threading.Event()
        self._subscribed: set[int | None] = set()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv311)
        self._client.max_inflight_messages_set(100)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_subscribe = self._on_subscribe
        self._client.on_socket_open = self._on_socket_open
        if will is not None:
            self._client.will_set(will[0], will[1], qos=1)
        self._client.connect(host, port, keepalive=60)
        self._client.loop_start()
        assert self._connected.wait(timeout_s), f"{client_id} was not connected within {timeout_s} s"

    def _on_socket_open(self, _client: Any, _data: Any, opened: Any) -> None:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if not reason.is_failure:
            self._connected.set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, _reason: Any, _properties: Any) -> None:
        self.disconnects += 1

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        self.retained.append(message.retain)
        self.received.append((message.topic, bytes(message.payload)))

    def _on_subscribe(self, _client: Any, _data: Any, message_id: int, _reasons: Any, _properties: Any) -> None:
        self._subscribed.add(message_id)

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Subscribe, and wait for the answer."""
        _, message_id = self._client.subscribe(topic_filter, qos)
        until(lambda: message_id in self._subscribed, self.timeout_s, f"SUBACK of {topic_filter}")

    def publish(self, topic: str, payload: bytes, qos: int = 1, *, retain: bool = False, wait: bool = True) -> Any:
        """Publish, and wait for the broker's acknowledgement unless told not to; the result can be waited for."""
        info = self._client.publish(topic, payload, qos, retain)
        if wait:
            info.wait_for_publish(self.timeout_s)
            assert info.is_published(), f"no acknowledgement of {topic} within {self.timeout_s} s"
        return info

    def wait_received(self, count: int) -> list[tuple[str, bytes]]:
        """Wait until `count` messages have arrived; returns all."""
        until(lambda: len(self.received) >= count, self.timeout_s, f"{count} messages ({len(self.received)} now)")
        return self.received

    def break_off(self) -> None:
        """Close the socket without a DISCONNECT and stay away, as a crashed client does."""
        self._client.on_disconnect = None
        opened = self._client.socket()
        assert opened is not None
        self._client.loop_stop()
        opened.close()

    def close(self) -> None:
        """DISCONNECT, and end the client's thread."""
        self._client.disconnect()
        self._client.loop_stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RawClient:
    """A socket that has sent CONNECT and read CONNACK; afterwards it does only what it is told."""

    def __init__(self, host: str, port: int, client_id: str, *, keep_alive_s: int = 0, timeout_s: float = 10.0) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.send(0x10, self.text("MQTT") + bytes([4, 2]) + struct.pack("!H", keep_alive_s) + self.text(client_id))
        try:
            assert self.socket.recv(4, socket.MSG_WAITALL) == b"\x20\x02\x00\x00", f"{client_id} was not accepted"
        except BaseException:
            self.socket.close()
            raise

    @staticmethod
    def text(value: str) -> bytes:
        """An MQTT string."""
        return struct.pack("!H", len(value.encode())) + value.encode()

    def send(self, first: int, body: bytes) -> None:
        """Send one packet."""
        length, encoded = len(body), bytearray()
        while True:
            encoded.append((length & 0x7F) | (0x80 if length > 0x7F else 0))
            length >>= 7
            if not length:
                break
        self.socket.sendall(bytes([first]) + encoded + body)

    def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """Subscribe and read the SUBACK; fails when it was refused."""
        self.send(0x82, b"\x00\x01" + self.text(topic_filter) + bytes([qos]))
        answer = self.socket.recv(5, socket.MSG_WAITALL)
        assert (answer[0], answer[4] & 0x80) == (0x90, 0), answer

    def closed(self) -> bool:
        """Read whatever comes until the other end closes (true) or the time is over (false)."""
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
