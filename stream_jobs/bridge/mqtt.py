"""The bridge's MQTT connection, driven by the bridge's own loop: nothing is read from the socket unless asked for.

Works on MQTT 3.1.1, clean session, QoS 1. There is no network thread: `read` hands each message to the receiver
at once and stops when the receiver is full, so a slow log slows the broker down instead of filling memory.

**Delivery**: a message is acknowledged to the broker when it was handed over; what is lost here the device still
has, until it is told a watermark. **Bounds**: one packet of the broker's size in memory (limit it there),
PUBLISHES_MAX answers not yet acknowledged by the broker; connecting again waits 0.1 to 5 s.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import ssl
import struct
import urllib.parse
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.contract.errors import SettingsError, quoted, redacted

__all__ = ["Arrival", "MqttConnection", "PersistentConnection", "Receiver"]

_log = logging.getLogger(__name__)

PUBLISHES_MAX = 200
_KEEPALIVE_S = 60
_CONNECT_TIMEOUT_S = 3.0
_ANSWER_TIMEOUT_S = 10.0
_RETRY_S = (0.1, 5.0)
_FAILED = 0x80
_PUBACK = struct.Struct("!BBH")

Receiver = Callable[[str, bytes], bool]
"""Takes (topic, payload) and says whether there is room for more."""


class MqttConnection:
    """One connection with its subscriptions, made again whenever it breaks. `state` is for people."""

    def __init__(self, url: str, client_id: str, filters: list[str], receiver: Receiver) -> None:
        wrong = f"mqtt_url is {quoted(redacted(url))}; write mqtt(s)://[user:password@]host[:port]"
        try:
            parts = urllib.parse.urlsplit(url)
            port = parts.port
        except ValueError:
            # Its text would show a part of the URL, which may be one of the password.
            raise SettingsError(wrong) from None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname:
            raise SettingsError(wrong)
        self._host = parts.hostname
        self._port = port or (8883 if parts.scheme == "mqtts" else 1883)
        self._filters = filters
        self._receiver = receiver
        self._room = True
        self._received = 0
        self._retry_at_s = 0.0
        self._retry_s = _RETRY_S[0]
        self._answer_until_s = 0.0
        self._told = ""
        self.state = "disconnected"
        self.connects = 0
        client = self._made(client_id)
        if parts.scheme == "mqtts":
            client.tls_set_context(ssl.create_default_context())
        if parts.username:
            client.username_pw_set(urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or ""))
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(PUBLISHES_MAX)
        client.max_queued_messages_set(PUBLISHES_MAX)
        client.on_socket_open = self._on_socket_open
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        self._client = client

    @staticmethod
    def _made(client_id: str) -> paho.Client:
        return paho.Client(CallbackAPIVersion.VERSION2, f"{client_id}-{secrets.token_hex(4)}", protocol=paho.MQTTv311)

    # paho's callbacks, all called from within `read`, `write`, `tick` or `close`

    def _on_socket_open(self, _client: paho.Client, _userdata: Any, opened: Any) -> None:
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _on_connect(
        self, _client: paho.Client, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        if code.is_failure:
            self.state = f"refused: {code}"
            self._tell(f"refuses the connection: {code}; check user and password in mqtt_url")
            return
        self.state = "subscribing"
        self._client.subscribe([(name, 1) for name in self._filters])

    def _on_subscribe(
        self, _client: paho.Client, _userdata: Any, _mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        refused = [name for name, code in zip(self._filters, codes, strict=False) if code.value >= _FAILED]
        if refused:
            self._tell(f"refuses the subscription to {', '.join(refused[:5])}; allow it to this client")
            self.state = "subscription refused"
            self._client.disconnect()
            return
        self.state = "connected"
        self.connects += 1
        self._told = ""
        self._retry_s = _RETRY_S[0]
        _log.info("connected to MQTT broker %s:%d", self._host, self._port)

    def _on_disconnect(
        self, _client: paho.Client, _userdata: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        if self.state in ("connected", "subscribing"):
            _log.warning("MQTT connection to %s:%d is gone (%s)", self._host, self._port, code)
        if self.state != "paused":
            self.state = "disconnected"

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        self._received += 1
        self._room = self._receiver(message.topic, bytes(message.payload))

    # For the loop

    @property
    def connected(self) -> bool:
        """Whether the broker has confirmed the subscriptions."""
        return self.state == "connected"

    def fileno(self) -> int:
        """The socket to wait for, or -1."""
        found = self._client.socket()
        return -1 if found is None else found.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether something waits to be sent."""
        return self._client.want_write()

    def read(self, messages_max: int) -> int:
        """Hand over what has arrived, at most about `messages_max` and while the receiver has room."""
        before = self._received
        self._room = True
        while self._room and self._received - before < messages_max:
            seen = self._received
            if self._client.loop_read() != MQTTErrorCode.MQTT_ERR_SUCCESS or self._received == seen:
                break
        return self._received - before

    def write(self) -> None:
        """Send what waits, as far as the socket takes it."""
        self._client.loop_write()

    def tick(self, now_s: float) -> None:
        """Keep the connection alive; connect again when it is time to. Call about every second at least."""
        if self._client.socket() is not None:
            self._client.loop_misc()
            if self.state in ("connecting", "subscribing") and now_s > self._answer_until_s:
                self._tell("does not answer; check that it is an MQTT broker, and works")
                self._drop("disconnected")
        elif now_s >= self._retry_at_s:
            self._connect(now_s)

    def _connect(self, now_s: float) -> None:
        self._retry_at_s = now_s + self._retry_s
        self._retry_s = min(self._retry_s * 2, _RETRY_S[1])
        self.state = "connecting"
        self._answer_until_s = now_s + _ANSWER_TIMEOUT_S
        try:
            self._client.connect(self._host, self._port, keepalive=_KEEPALIVE_S)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            self._tell(f"cannot be reached: {reason}; check mqtt_url, and that the broker runs")
            self.state = "unreachable"

    def _tell(self, problem: str) -> None:
        """Say what is wrong with the broker once, not at each attempt, and again when it changes."""
        if problem != self._told:
            _log.warning("MQTT broker %s:%d %s; trying again", self._host, self._port, problem)
        self._told = problem

    def pause(self) -> None:
        """Disconnect, for as long as `tick` is not called: the broker keeps nothing for a clean session."""
        if self.state != "paused":
            self._drop("paused")

    def give_up(self) -> None:
        """The other side has ended the connection while nobody reads: forget it, with what was left to read."""
        if self.state in ("connected", "subscribing"):
            _log.warning("MQTT connection to %s:%d is gone while nothing was read", self._host, self._port)
        self._drop("disconnected")

    def publish(self, topic: str, payload: bytes) -> bool:
        """Send with QoS 1, not retained; False: not connected, or too many are unanswered."""
        if not self.connected:
            return False
        return self._client.publish(topic, payload, qos=1).rc == MQTTErrorCode.MQTT_ERR_SUCCESS

    def close(self) -> None:
        """Disconnect for good."""
        self._drop("closed")

    def _drop(self, state: str) -> None:
        self.state = state
        self._client.disconnect()
        self._client.loop_write()  # closes the socket once the packet is out
        left = cast("socket.socket | None", self._client.socket())
        if left is not None:  # the broker takes nothing: end the connection ourselves, paho notices when reading
            with contextlib.suppress(OSError):
                left.shutdown(socket.SHUT_RDWR)
            self._client.loop_read()
        self.state = state


class Arrival(NamedTuple):
    """One message of a persistent session. `packet_id` is 0 for QoS 0."""

    topic: str
    payload: bytes
    packet_id: int
    qos: int
    duplicate: bool
    retained: bool


class PersistentConnection(MqttConnection):
    """A session that the broker keeps while we are away: stable client id, and messages acknowledged by hand.

    Retained messages are passed on only where the broker kept no session: where it kept one, they were taken when they
    were published, or when the session began. `on_session` is told at each connection whether the broker kept it.
    """

    def __init__(
        self,
        url: str,
        client_id: str,
        filters: list[str],
        taker: Callable[[Arrival], bool],
        on_session: Callable[[bool], None],
    ) -> None:
        super().__init__(url, client_id, filters, lambda _topic, _payload: True)
        self._taker = taker
        self._on_session = on_session
        self._subscribed = False
        self._session_present = False
        self.subscription_refused = False

    @staticmethod
    def _made(client_id: str) -> paho.Client:
        return paho.Client(
            CallbackAPIVersion.VERSION2, client_id, clean_session=False, protocol=paho.MQTTv311, manual_ack=True
        )

    def _on_connect(self, client: paho.Client, userdata: Any, flags: Any, code: ReasonCode, properties: Any) -> None:
        if not code.is_failure:
            self._session_present = bool(flags.session_present)
            self._on_session(self._session_present)
            if self._session_present and self._subscribed:
                # A second SUBSCRIBE would bring every retained message again.
                self._stands()
                return
        super()._on_connect(client, userdata, flags, code, properties)

    def _on_subscribe(
        self, client: paho.Client, userdata: Any, mid: int, codes: list[ReasonCode], properties: Any
    ) -> None:
        super()._on_subscribe(client, userdata, mid, codes, properties)
        self._subscribed = self.connected
        self.subscription_refused = not self.connected

    def _stands(self) -> None:
        self.state = "connected"
        self.connects += 1
        self._retry_s = _RETRY_S[0]

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        self._received += 1
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = message._topic.decode("utf-8", "backslashreplace")  # noqa: SLF001 - the one way
        if message.retain and self._session_present:
            if message.qos:
                self.acknowledge([message.mid])
            return
        self._room = self._taker(
            Arrival(topic, bytes(message.payload), message.mid, message.qos, message.dup, message.retain)
        )

    def acknowledge(self, packet_ids: Sequence[int]) -> None:
        """Tell the broker that it need not keep these messages any longer (PUBACK, in this order)."""
        acknowledgements = b"".join(_PUBACK.pack(0x40, 2, packet_id) for packet_id in packet_ids)
        if acknowledgements:
            # `ack` would write each with a system call of its own, a quarter of what a message costs.
            self._client._packet_queue(0x40, acknowledgements, 0, 0)  # noqa: SLF001 - there is no public way
