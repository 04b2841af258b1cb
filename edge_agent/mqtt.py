"""One MQTT connection of the agent; the only module here that imports paho.

A connection has a client and a thread of its own, and is not used again once it has ended: so nothing that an
earlier connection left in paho's queues is ever sent on a later one. MQTT 3.1.1 or 5, always a clean session: what
must not be lost is in the spool. Beside the device's own topic it listens at those that functions want (`subscribe`);
what comes there goes to `take`, not into the queue of events.

**Delivery**: QoS 1. A PUBACK only makes room in the queue here; it says nothing about the log. Messages for functions
are acknowledged when `take` has them: nobody keeps those that come while the agent is away.
**Bounds**: at most `queued_bytes_max` bytes and QUEUED_MESSAGES_MAX messages wait for their PUBACK (`has_room`); the
network thread runs neither SQLite nor functions, it hands over events, and waits where the taker's queue is full; for
functions it never waits.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.contract.errors import SettingsError, quoted

__all__ = [
    "Address",
    "Connected",
    "Connection",
    "Disconnected",
    "Event",
    "Received",
    "RoomAgain",
    "SubscriptionAnswered",
    "Take",
    "parse_url",
]

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 15
QUEUED_MESSAGES_MAX = 1024
_IN_FLIGHT_MAX = 100
_LOOP_S = 1.0
_PROTOCOLS = {"3.1.1": MQTTProtocolVersion.MQTTv311, "5": MQTTProtocolVersion.MQTTv5}


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker took the connection and the subscription."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection could not be made, or has ended; nothing follows."""

    connection: Connection
    reason: str


@dataclass(frozen=True, slots=True)
class Received:
    """A message on the device's own topic."""

    connection: Connection
    payload: bytes
    topic: str = ""


@dataclass(frozen=True, slots=True)
class RoomAgain:
    """The queue was full and has room now."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class SubscriptionAnswered:
    """The broker took the subscription that `Connection.subscribe` asked for, or `refused` says why not."""

    connection: Connection
    message_id: int
    refused: str


Event: TypeAlias = Connected | Disconnected | Received | RoomAgain | SubscriptionAnswered

Take: TypeAlias = Callable[[str, bytes], None]
"""(topic, payload) of a message for functions; called in the network thread, and must not wait."""


def _nobody(_topic: str, _payload: bytes) -> None:
    """Where no function listens."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is, and as whom to come."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None


def parse_url(url: str) -> Address:
    """`mqtt://[user:password@]host[:1883]` or `mqtts://...[:8883]`; SettingsError otherwise (without the password)."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or port == 0 or parts.path not in ("", "/"):
        shown = url.rpartition("@")[2]
        raise SettingsError(f"MQTT URL {quoted(shown)} is not mqtt://host:port or mqtts://host:port")
    tls = parts.scheme == "mqtts"
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Address(parts.hostname, port or (8883 if tls else 1883), tls, user, password)


def _no_delay(_client: paho.Client, _userdata: Any, sock: Any) -> None:
    # Without it Nagle and delayed acknowledgements make one QoS 1 exchange take 44 ms.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _threaded(_client: paho.Client, _userdata: Any, _sock: Any) -> None:
    # While this callback is set, paho leaves all writing to the thread that runs the loop.
    return None


class Connection:
    """One attempt and, if it succeeds, one connection; `deliver` is called in its thread for every event, and must not
    wait for a RoomAgain to be taken. All other methods belong to one thread, the one that publishes."""

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        topic: str,
        deliver: Callable[[Event], None],
        queued_bytes_max: int,
        take: Take = _nobody,
        version: str = "3.1.1",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`topic`, the device's own, is subscribed at once; what comes on others goes to `take`. `name` is the URL
        without user and password. `tls` is used for mqtts URLs (None: the system's authorities)."""
        self.url = url
        self.name = url.partition("://")[0] + "://" + url.partition("://")[2].rpartition("@")[2]
        self._address = parse_url(url)
        self._topic = topic
        self._deliver = deliver
        self._take = take
        self._own_message_id: int | None = None
        self._asked: dict[str, int | None] = {}
        self._queued_bytes_max = queued_bytes_max
        self._queued: dict[int, int] = {}
        self._queued_bytes = 0
        self._acknowledged: deque[int] = deque()
        self._full = False
        self._reason = "connection lost"
        self._client = self._make_client(client_id, version, tls)
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)

    def _make_client(self, client_id: str, version: str, tls: ssl.SSLContext | None) -> paho.Client:
        five = version == "5"
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if five else True,
            protocol=_PROTOCOLS[version],
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(_IN_FLIGHT_MAX)
        if self._address.tls:
            client.tls_set_context(tls or ssl.create_default_context())
        if self._address.user is not None:
            client.username_pw_set(self._address.user, self._address.password)
        client.on_socket_open = _no_delay
        client.on_socket_register_write = _threaded
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        return client

    def start(self) -> None:
        """Begin to connect; Connected or Disconnected will be delivered."""
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send DISCONNECT after what is queued already, and wait for the thread to end."""
        self._client.disconnect()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def has_room(self) -> bool:
        """Whether `publish` may be called. After False, RoomAgain will be delivered."""
        # Announced first: a PUBACK that comes between the two lines is then either seen here or delivered.
        self._full = True
        self._settle()
        self._full = self._queued_bytes >= self._queued_bytes_max or len(self._queued) >= QUEUED_MESSAGES_MAX
        return not self._full

    def _settle(self) -> None:
        while self._acknowledged:
            self._queued_bytes -= self._queued.pop(self._acknowledged.popleft(), 0)

    def publish(self, topic: str, payload: bytes) -> bool:
        """Queue one message, QoS 1, not retained; False when the connection has ended."""
        info = self._client.publish(topic, payload, qos=1)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return False
        self._queued[info.mid] = len(payload)
        self._queued_bytes += len(payload)
        return True

    def subscribe(self, topic_filter: str) -> None:
        """Ask for a topic filter, once; SubscriptionAnswered will be delivered. After the end nothing happens."""
        if topic_filter not in self._asked:
            _, self._asked[topic_filter] = self._client.subscribe(topic_filter, qos=1)

    def asked_as(self, message_id: int) -> str:
        """The topic filter of a subscription by its SubscriptionAnswered."""
        return next((name for name, number in self._asked.items() if number == message_id), "")

    # -- in the network thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._client.connect(self._address.host, self._address.port, keepalive=KEEPALIVE_S)
            while self._client.loop(_LOOP_S) == MQTTErrorCode.MQTT_ERR_SUCCESS:
                pass
        except (OSError, ValueError) as error:
            self._reason = str(error)
        with contextlib.suppress(OSError):
            self._client.disconnect()
        self._deliver(Disconnected(self, self._reason))

    def _on_connect(
        self, client: paho.Client, _userdata: Any, _flags: Any, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._reason = f"refused: {reason}"
            client.disconnect()
        else:
            _, self._own_message_id = client.subscribe(self._topic, qos=1)

    def _on_subscribe(
        self, client: paho.Client, _userdata: Any, mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        if mid != self._own_message_id:
            refused = next((str(reason) for reason in reasons if reason.is_failure), "")
            self._deliver(SubscriptionAnswered(self, mid, refused))
        elif any(reason.is_failure for reason in reasons):
            self._reason = f"subscription to {self._topic} refused: {reasons[0]}"
            client.disconnect()
        else:
            self._deliver(Connected(self))

    def _on_message(self, _client: paho.Client, _userdata: Any, message: paho.MQTTMessage) -> None:
        if message.topic == self._topic:
            self._deliver(Received(self, bytes(message.payload), message.topic))
        else:
            self._take(message.topic, bytes(message.payload))

    def _on_publish(self, _client: paho.Client, _userdata: Any, mid: int, _reason: Any, _properties: Any) -> None:
        # paho holds the lock that `publish` needs: nothing here may wait. The thread that publishes does the sums.
        self._acknowledged.append(mid)
        if self._full:
            self._deliver(RoomAgain(self))

    def _on_disconnect(
        self, _client: paho.Client, _userdata: Any, _flags: Any, reason: ReasonCode, _properties: Any
    ) -> None:
        if reason.is_failure and self._reason == "connection lost":
            self._reason = str(reason)
