"""Pass-through of an MQTT broker: one publisher, one subscriber, QoS 1 both ways, and where the broker's CPU goes.

    python benchmarks/mqtt_broker.py                      # the embedded broker, 8 and 17 KB, 3 runs of 4 s
    python benchmarks/mqtt_broker.py --broker mosquitto
    python benchmarks/mqtt_broker.py --port 1883 --pid 4711 --sizes 200

Clients speak MQTT 3.1.1 over plain sockets, so that their own cost stays small. Printed are medians of the runs:
messages a second that arrived, the broker's CPU microseconds for each, its largest memory, and the round trip at
concurrency 1.

**Delivery**: fails when fewer messages arrive than were sent. **Bounds**: at most `--window` messages in flight.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.kit.mosquitto import Mosquitto
from tests.kit.services import EmbeddedMqtt

TOPIC = "edgewater/batch/17/bench"


def remaining_length(length: int) -> bytes:
    """MQTT's variable length: seven bits a byte."""
    encoded = bytearray()
    while True:
        encoded.append((length & 0x7F) | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            return bytes(encoded)


def text(value: str) -> bytes:
    """An MQTT string."""
    return struct.pack("!H", len(value)) + value.encode()


def packet(first: int, body: bytes) -> bytes:
    """Fixed header and body."""
    return bytes([first]) + remaining_length(len(body)) + body


class Client:
    """A connected MQTT 3.1.1 client with a buffered reader."""

    def __init__(self, port: int, name: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = self.socket.makefile("rb", 1 << 18)
        self.socket.sendall(packet(0x10, text("MQTT") + bytes([4, 2]) + struct.pack("!H", 60) + text(name)))
        self.read()

    def read(self) -> tuple[int, bytes]:
        """First byte and body of the next packet."""
        first = self.reader.read(1)
        if not first:
            raise ConnectionError("the broker closed the connection")
        length, shift = 0, 0
        while True:
            byte = self.reader.read(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return first[0], self.reader.read(length)

    def subscribe(self, topic_filter: str) -> None:
        """Subscribe with QoS 1."""
        self.socket.sendall(packet(0x82, b"\x00\x01" + text(topic_filter) + b"\x01"))
        self.read()

    def receive(self) -> None:
        """Read one PUBLISH and acknowledge it."""
        _, body = self.read()
        at = 2 + struct.unpack_from("!H", body)[0]
        self.socket.sendall(b"\x40\x02" + body[at : at + 2])


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """Largest resident set of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


def throughput(port: int, pid: int, size: int, seconds: float, window: int) -> tuple[float, float]:
    """Messages a second that arrived, and the broker's CPU microseconds for each."""
    subscriber, publisher = Client(port, "bench-sub"), Client(port, "bench-pub")
    subscriber.subscribe("edgewater/batch/17/+")
    received = 0

    def drain() -> None:
        nonlocal received
        try:
            while True:
                subscriber.receive()
                received += 1
        except (OSError, ValueError):
            return

    threading.Thread(target=drain, daemon=True).start()
    payload, room, sent = os.urandom(size), threading.Semaphore(window), 0

    def acknowledged() -> None:
        try:
            while True:
                publisher.read()
                room.release()
        except (OSError, ValueError):
            return

    threading.Thread(target=acknowledged, daemon=True).start()
    start, cpu = time.monotonic(), cpu_s(pid)
    while time.monotonic() - start < seconds:
        room.acquire()
        sent += 1
        publisher.socket.sendall(packet(0x32, text(TOPIC) + struct.pack("!H", sent % 65535 + 1) + payload))
    while received < sent and time.monotonic() - start < seconds + 10:
        time.sleep(0.001)
    elapsed, cpu = time.monotonic() - start, cpu_s(pid) - cpu
    if received < sent:
        raise SystemExit(f"{sent} messages were sent and {received} arrived")
    for client in (subscriber, publisher):
        client.socket.shutdown(socket.SHUT_RDWR)
    return received / elapsed, cpu / received * 1e6


def round_trip_ms(port: int, count: int = 300) -> float:
    """Median milliseconds from publishing 200 bytes to receiving them, one at a time."""
    client = Client(port, "bench-echo")
    client.subscribe("edgewater/ack/bench-echo")
    times = []
    for number in range(count):
        start = time.perf_counter()
        message = text("edgewater/ack/bench-echo") + struct.pack("!H", number + 1) + bytes(200)
        client.socket.sendall(packet(0x32, message))
        kinds = {client.read()[0] >> 4 for _ in range(2)}
        times.append((time.perf_counter() - start) * 1000)
        assert kinds == {3, 4}, kinds
        client.socket.sendall(b"\x40\x02" + struct.pack("!H", number + 1))
    client.socket.close()
    return statistics.median(times)


def main() -> int:
    """Parse the command line, start the broker when none is named, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=["embedded", "mosquitto"], default="embedded")
    parser.add_argument("--port", type=int, help="a broker that runs already (with --pid)")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8_000, 17_000])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--window", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server: EmbeddedMqtt | Mosquitto | None = None
        if arguments.port is None:
            embedded = arguments.broker == "embedded"
            server = EmbeddedMqtt(Path(folder)) if embedded else Mosquitto(Path(folder))
            server.start()
        port, pid = (server.port, server.pid) if server else (arguments.port, arguments.pid)
        try:
            print("bytes   messages/s   MB/s   broker CPU us/message   peak MB")
            for size in arguments.sizes:
                runs = [throughput(port, pid, size, arguments.seconds, arguments.window) for _ in range(arguments.runs)]
                rate, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
                print(f"{size:5}   {rate:10.0f}   {rate * size / 1e6:4.0f}   {cpu:21.0f}   {peak_mb(pid):7.0f}")
            print(f"round trip at concurrency 1: {round_trip_ms(port):.2f} ms")
        finally:
            if server is not None:
                server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
