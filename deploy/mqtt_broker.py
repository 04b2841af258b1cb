"""The embedded MQTT broker: amqtt in a process of its own, with a delivery path that is bounded and keeps order.

    edgewater mqtt run --host 127.0.0.1 --port 0 --run-dir RUN

amqtt reads and answers CONNECT, SUBSCRIBE, PINGREQ and QoS 2, and keeps subscriptions, wills and retained messages.
Ours is what happens to a QoS 0 or 1 message (`mqtt_delivery.py`), and what amqtt 0.12.1 does not do or does wrong: a
second client with the same id takes over and the first is closed, keep-alive is enforced, sizes and queues have bounds,
closing a stalled connection does not hang, and a retained message goes only to those who subscribed to it.
docs/adr/0003-mqtt-broker.md says why this broker, and what it cannot do.

**Delivery**: QoS 1 while everybody is connected; a PUBACK means that the message has been given to each connected
subscriber's connection or queue. Nothing survives the end of the process, and every session is clean: a subscriber
that was away has missed what was published. Devices trim their spools on the bridge's watermark, never on PUBACK.
**Bounds**: connections, bytes of a packet, waiting bytes and messages of each subscriber, subscriptions, retained bytes
(`mqtt_settings.py`). Subscriptions are granted at most QoS 1. At a bound publishers wait, or the client is closed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any

from amqtt.adapters import BufferReader, StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.errors import AMQTTError, BrokerError, MQTTError, NoDataError
from amqtt.mqtt import packet_class
from amqtt.mqtt.packet import PUBACK, PUBLISH, SUBSCRIBE, UNSUBSCRIBE, MQTTFixedHeader
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler

from edge_agent.contract.errors import DecodeError, EdgewaterError, LimitError, RejectError
from edge_agent.contract.listening import cannot_listen
from edge_agent.contract.status import StatusFile

from .mqtt_delivery import Outbox, TopicCache, matches
from .mqtt_settings import MqttSettings

__all__ = ["EmbeddedBroker", "run"]

_log = logging.getLogger(__name__)
_CONNECT_TIMEOUT_S = 10.0
_CLOSE_FLUSH_S = 2.0
_KEEP_ALIVE_FACTOR = 1.5
_STATUS_INTERVAL_S = 0.5
_FILTERS_MAX = 50_000
_PENDING_REQUESTS_MAX = 16
_REFUSED = 0x80
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_HANDLERS = {
    5: "handle_pubrec",
    6: "handle_pubrel",
    7: "handle_pubcomp",
    8: "handle_subscribe",
    10: "handle_unsubscribe",
    12: "handle_pingreq",
    14: "handle_disconnect",
}
"""Control packets a connected client may send, beside PUBLISH and PUBACK, and the method of amqtt that answers."""


class _Reader(StreamReaderAdapter):
    """Reading side of a connection: amqtt reads CONNECT through it, ours the rest from `stream`."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        super().__init__(stream)
        self.stream = stream


class _Writer(StreamWriterAdapter):
    """Writing side of a connection whose `close` never waits for the other end."""

    is_closed: bool

    def waiting(self) -> int:
        return int(self._writer.transport.get_write_buffer_size())

    async def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        transport = self._writer.transport
        transport.close()
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(_CLOSE_FLUSH_S, transport.abort)

    def abort(self) -> None:
        """Close now; what was not sent is lost."""
        self.is_closed = True
        self._writer.transport.abort()


class _Connection(BrokerProtocolHandler):
    """One connected client: reads its packets in order, and owns the outbox of what it subscribed to."""

    def __init__(self, broker: EmbeddedBroker, stream: asyncio.StreamReader, writer: _Writer, qos2_max: int) -> None:
        super().__init__(broker.plugins_manager)
        self._broker = broker
        self._stream = stream
        self._loop_time = asyncio.get_running_loop().time
        self._ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._qos2_max = qos2_max
        self._pending_subscriptions: asyncio.Queue[Any] = asyncio.Queue(_PENDING_REQUESTS_MAX)
        self._pending_unsubscriptions: asyncio.Queue[Any] = asyncio.Queue(_PENDING_REQUESTS_MAX)
        self.outbox = Outbox(writer, broker.settings, self._loop_time)
        self.read_at = self._loop_time()

    def attach(self, session: Any, reader: Any, writer: Any) -> None:
        super().attach(session, reader, writer)
        # amqtt's timers only log; the broker's monitor enforces the keep-alive.
        self.keepalive_timeout = None
        session.delivered_message_queue = asyncio.Queue(self._qos2_max)

    @property
    def idle_too_long(self) -> bool:
        """Whether the client was silent for one and a half times its keep-alive (MQTT 3.1.1 section 3.1.2.10)."""
        keep_alive = self.session.keep_alive
        return bool(keep_alive) and self._loop_time() - self.read_at > keep_alive * _KEEP_ALIVE_FACTOR

    async def start(self) -> None:
        self._spawn(self._send_loop())
        await super().start()

    async def stop(self) -> None:
        self.outbox.close()
        self.end(None)
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        await super().stop()

    async def wait_disconnect(self) -> Any:
        return await asyncio.shield(self._ended)

    async def handle_disconnect(self, disconnect: Any) -> None:
        self.end(disconnect)

    def end(self, disconnect: Any) -> None:
        """Let amqtt's loop for this client finish; without a DISCONNECT packet the client's will is published."""
        if not self._ended.done():
            self._ended.set_result(disconnect)

    def cut(self, why: str) -> None:
        """Close the connection now, without waiting for the client to take what was sent."""
        _log.warning("closing %s: %s", self.session.client_id, why)
        self.outbox.close()
        self.end(None)
        self.writer.abort()

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.cut(f"{task.exception()}")

    async def _send_loop(self) -> None:
        try:
            await self.outbox.run()
        except OSError:
            self.end(None)

    async def _reader_loop(self) -> None:
        self._reader_ready.set()
        try:
            while await self._read_packet():
                pass
        except (asyncio.IncompleteReadError, OSError, asyncio.CancelledError):
            pass  # the connection is gone, or `stop` ends this task: what follows is the same
        except (EdgewaterError, AMQTTError, MQTTError, NoDataError, ValueError, IndexError) as error:
            self.cut(str(error))
        self.end(None)
        self._reader_stopped.set()
        await self.stop()

    async def _read_packet(self) -> bool:
        """Read and handle one control packet; False after DISCONNECT."""
        first, length = await self._stream.readexactly(2)
        if length & 0x80:
            length &= 0x7F
            for shift in (7, 14, 21):
                (byte,) = await self._stream.readexactly(1)
                length |= (byte & 0x7F) << shift
                if not byte & 0x80:
                    break
            else:
                raise DecodeError("the length of an MQTT packet has more than four bytes")
        if length > self._broker.settings.packet_bytes_max:
            raise LimitError(
                "MQTT packet bytes", length, self._broker.settings.packet_bytes_max, "send smaller batches or raise"
                " mqtt.packet_bytes_max"
            )  # fmt: skip
        body = await self._stream.readexactly(length) if length else b""
        self.read_at = self._loop_time()
        kind = first >> 4
        if kind == PUBLISH and first & 0x06 != 0x04:
            await self._take_publish(first, body)
        elif kind == PUBACK:
            self.outbox.acknowledged(int.from_bytes(body[:2], "big"))
        else:
            await self._take_other(first, body)
        return kind != 14

    async def _take_publish(self, first: int, body: bytes) -> None:
        """A PUBLISH of QoS 0 or 1: to every subscriber's outbox, then PUBACK."""
        topic_end = 2 + int.from_bytes(body[:2], "big")
        qos = first >> 1 & 0x03
        payload_at = topic_end + (2 if qos else 0)
        if qos == 3 or payload_at > len(body):
            raise DecodeError("a PUBLISH packet is shorter than its topic, or of QoS 3")
        topic = body[2:topic_end].decode("utf-8")
        if not topic or topic[0] == "$" or "+" in topic or "#" in topic or "\0" in topic:
            raise RejectError(f"{topic!r} cannot be published to; use a topic without wildcards and leading $")
        payload = memoryview(body)[payload_at:]
        await self._broker.deliver(topic, payload, qos)
        if first & 0x01:
            await self._broker.retain_message(self.session, topic, bytes(payload), qos)
        if qos and not self.writer.is_closed:
            self.writer.write(b"\x40\x02" + body[topic_end:payload_at])
            if self.writer.waiting() > 65536:
                await self.writer.drain()

    async def _take_other(self, first: int, body: bytes) -> None:
        """Everything amqtt answers itself; QoS 2 waits for its PUBREL in a task."""
        header = MQTTFixedHeader(first >> 4, first & 0x0F, len(body))
        if header.packet_type != PUBLISH and header.packet_type not in _HANDLERS:
            raise RejectError(f"a connected client cannot send an MQTT packet of type {header.packet_type}")
        packet = await packet_class(header).from_stream(BufferReader(body), fixed_header=header)
        if header.packet_type in (SUBSCRIBE, UNSUBSCRIBE) and not packet.payload.topics:
            raise DecodeError("a SUBSCRIBE or UNSUBSCRIBE packet is shorter than its filters")
        if header.packet_type != PUBLISH:
            await getattr(self, _HANDLERS[header.packet_type])(packet)
        elif len(self._tasks) > self._qos2_max:
            raise LimitError("QoS 2 messages under way", len(self._tasks), self._qos2_max, "use QoS 1")
        else:
            self._spawn(self.handle_publish(packet))


class EmbeddedBroker(Broker):
    """amqtt's broker with our connections."""

    def __init__(self, settings: MqttSettings) -> None:
        bind = f"{settings.host}:{settings.port}"
        super().__init__({"listeners": {"default": {"type": "tcp", "bind": bind}}, "plugins": {}})
        self.settings = settings
        self.connections = 0
        self.received = 0
        self.received_bytes = 0
        self.refused = 0
        self.cut_off = 0
        self._sent_before = 0
        self._retained_bytes = 0
        self._cache: TopicCache[Any] = TopicCache()

    @property
    def port(self) -> int:
        """The port that it listens on, once started."""
        return int(self._servers["default"].instance.sockets[0].getsockname()[1])

    def counters(self) -> dict[str, int]:
        """What the status file shows: totals since start, and what waits now."""
        outboxes = [handler.outbox for _, handler in self._sessions.values()]
        return {
            "connections": self.connections,
            "messages_received": self.received,
            "bytes_received": self.received_bytes,
            "messages_sent": self._sent_before + sum(outbox.sent for outbox in outboxes),
            "bytes_waiting": sum(outbox.bytes for outbox in outboxes),
            "connections_refused": self.refused,
            "subscribers_cut_off": self.cut_off,
        }

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        if self.connections >= self.settings.connections_max:
            self.refused += 1
            writer.transport.abort()
            return
        self.connections += 1
        writer.transport.set_write_buffer_limits(high=256 * 1024)
        try:
            await self._client_connected(listener_name, _Reader(reader), _Writer(writer))
        except (OSError, ValueError, IndexError) as error:
            _log.warning("closing a connection: %s", error)
        finally:
            self.connections -= 1
            writer.close()

    async def _initialize_client_session(self, reader: Any, writer: Any, *_: Any) -> tuple[_Connection, Any]:
        """CONNECT by amqtt; then a client of the same id goes, and no await comes before the new one is registered."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _, session = await BrokerProtocolHandler.init_from_connect(reader, writer, self.plugins_manager)
        except TimeoutError:
            raise MQTTError(f"no CONNECT within {_CONNECT_TIMEOUT_S} s") from None
        # Every session is clean: the answer says "no session present", which MQTT allows a server to say always.
        session.clean_session, session.parent = True, 0
        while session.client_id in self._sessions:
            await self._remove(session.client_id)
        return _Connection(self, reader.stream, writer, self.settings.in_flight_max), session

    async def _authenticate(self, *_: Any) -> bool:
        return True

    async def _remove(self, client_id: str) -> None:
        """Forget a session and end its connection."""
        session, handler = self._sessions.pop(client_id)
        self._sent_before += handler.outbox.sent
        await self._del_all_subscriptions(session)
        handler.end(None)
        await handler.stop()

    async def _handle_disconnect(self, client_session: Any, handler: Any, disconnect_waiter: Any) -> None:
        await super()._handle_disconnect(client_session, handler, disconnect_waiter)
        if self._sessions.get(client_session.client_id, (None, None))[1] is handler:
            await self._remove(client_session.client_id)

    async def _session_monitor(self) -> None:
        """Instead of amqtt's, which may remove a client that has just come back: enforce keep-alives."""
        while True:
            await asyncio.sleep(1)
            for _, handler in list(self._sessions.values()):
                if handler.session is not None and handler.idle_too_long:
                    handler.cut("silent for longer than its keep-alive")

    async def add_subscription(self, subscription: tuple[str, int], session: Any) -> int:
        topic_filter, qos = subscription
        if topic_filter not in self._subscriptions and len(self._subscriptions) >= _FILTERS_MAX:
            return _REFUSED
        self._del_subscription(topic_filter, session)
        self._cache.clear()
        return int(await super().add_subscription((topic_filter, min(qos, 1)), session))

    def _del_subscription(self, a_filter: str, session: Any) -> int:
        """amqtt compares client ids, and so would remove those of a client that has just come back."""
        entries = self._subscriptions.get(a_filter, [])
        kept = [entry for entry in entries if entry[0] is not session]
        removed = len(entries) - len(kept)
        if removed:
            self._cache.clear()
            entries[:] = kept
            if not kept:
                del self._subscriptions[a_filter]
        return removed

    async def _del_all_subscriptions(self, session: Any) -> None:
        for topic_filter in list(self._subscriptions):
            self._del_subscription(topic_filter, session)

    async def deliver(self, topic: str, payload: bytes | memoryview, qos: int) -> None:
        """Put a message into each subscriber's outbox, waiting for room where one is full."""
        self.received += 1
        self.received_bytes += len(payload)
        name = topic.encode()
        field = len(name).to_bytes(2, "big") + name
        for session, granted in self._cache.subscribers(topic, self._subscriptions):
            handler = self._get_handler(session)
            if handler is None or handler.session is not session:
                continue
            if handler.outbox.full and not await handler.outbox.space():
                self.cut_off += 1
                handler.cut(f"its queue was full and it took nothing for {self.settings.stall_timeout_s} s")
            handler.outbox.offer(field, payload, min(qos, granted))

    async def _broadcast_message(self, _session: Any, topic: Any, data: Any, force_qos: int | None = None) -> None:
        """amqtt's way in for wills and QoS 2."""
        if topic and data is not None:
            await self.deliver(topic, bytes(data), 1 if force_qos is None else force_qos)

    async def retain_message(self, _source: Any, topic_name: Any, data: Any, qos: int | None = None) -> None:
        before = self._retained_messages.get(topic_name)
        change = len(data or b"") - (len(before.data) if before else 0)
        if change > 0 and self._retained_bytes + change > self.settings.retained_bytes_max:
            _log.warning("not retaining %s: retained_bytes_max of %d is reached", topic_name, self._retained_bytes)
            return
        self._retained_bytes += change
        await super().retain_message(None, topic_name, data, qos)

    async def _publish_retained_messages_for_subscription(self, subscription: tuple[str, int], session: Any) -> None:
        """Never waits: amqtt calls this for every filter of every client, while it walks over them."""
        topic_filter, qos = subscription
        if all(one is not session for one, _ in self._subscriptions.get(topic_filter, ())):
            return
        outbox = self._get_handler(session).outbox
        for topic, message in self._retained_messages.items():
            if not outbox.full and matches(topic, topic_filter):
                field = len(topic.encode()).to_bytes(2, "big") + topic.encode()
                outbox.offer(field, bytes(message.data), min(qos, message.qos or 0), retain=True)


async def _serve(run_dir: Path | None, settings: MqttSettings) -> int:
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    broker = EmbeddedBroker(settings)
    try:
        await broker.start()
    except (AMQTTError, BrokerError, OSError) as error:
        raise cannot_listen(settings.host, settings.port, error) from error
    if settings.host not in _LOOPBACK:
        _log.warning("listening on %s: every machine that reaches it may publish and subscribe", settings.host)
    _log.info("MQTT broker at mqtt://%s:%d", settings.host, broker.port)
    status = StatusFile(run_dir, "mqtt")
    while not ending.is_set():
        status.write(host=settings.host, port=broker.port, **broker.counters())
        try:
            async with asyncio.timeout(_STATUS_INTERVAL_S):
                await ending.wait()
        except TimeoutError:
            continue
    await broker.shutdown()
    return 0


def run(run_dir: Path | None, settings: MqttSettings) -> int:
    """Serve in the foreground until SIGTERM or SIGINT; status 0. Raises StopError when the port cannot be had."""
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    return asyncio.run(_serve(run_dir, settings))
