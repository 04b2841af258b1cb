"""Foreign devices: one-reading JSON messages of many devices through the mapping process into the log, one run.

    python benchmarks/mapping.py                       # Mosquitto where installed, else the embedded broker
    python benchmarks/mapping.py --broker embedded --messages 20000 --devices 100

Printed: messages a second from the first publish until all are durable in the embedded log and acknowledged; CPU
microseconds a message of the process, the broker and the log; the process's largest memory; and the rate of decoding
alone in this process, with the ratio.

**Delivery**: fails when fewer rows become durable than were published. **Bounds**: `--window` publishes in flight.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import usage
from benchmarks.mqtt_broker import Client, packet, text
from stream_jobs.mapping.declared import load_mappings
from stream_jobs.mapping.decode import Decoder
from tests.kit.mosquitto import Mosquitto
from tests.kit.processes import Product, edgewater
from tests.kit.required import mosquitto_binary
from tests.kit.services import EmbeddedLog, EmbeddedMqtt
from tests.kit.wait import until

CONFIG = '[[mappings]]\nname = "bench"\ntopic = "plant/+/state"\ndevice = "{1}"\ntime = "at"\n'
PAYLOAD = b'{"at":1790000000000,"temperature":21.5}'


def publish(port: int, messages: int, devices: int, window: int) -> None:
    """Publish with QoS 1, `window` at once, and wait for all acknowledgements."""
    client, room, left = Client(port, "bench-pub"), threading.Semaphore(window), threading.Event()

    def acknowledged() -> None:
        for _ in range(messages):
            client.read()
            room.release()
        left.set()

    threading.Thread(target=acknowledged, daemon=True).start()
    topics = [text(f"plant/device-{number}/state") for number in range(devices)]
    for number in range(messages):
        room.acquire()
        client.socket.sendall(packet(0x32, topics[number % devices] + struct.pack("!H", number % 65535 + 1) + PAYLOAD))
    left.wait(120)


def decoding_rate(config: Path, messages: int, devices: int) -> float:
    """Messages a second of decoding alone."""
    decoder = Decoder(load_mappings(config)[0], 65536)
    topics = [f"plant/device-{number}/state" for number in range(devices)]
    start = time.perf_counter()
    for number in range(messages):
        decoder.decode(topics[number % devices], PAYLOAD, 1)
    return messages / (time.perf_counter() - start)


def main() -> int:
    """Parse the command line, start everything, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--broker", choices=["embedded", "mosquitto"])
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--window", type=int, default=500)
    parser.add_argument("--broker-in-flight-max", type=int, default=10_000, help="Mosquitto's max_inflight_messages")
    arguments = parser.parse_args()
    kind = arguments.broker or ("mosquitto" if mosquitto_binary() else "embedded")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "edgewater.toml"
        config.write_text(CONFIG)
        run_dir = folder / "run"
        broker: EmbeddedMqtt | Mosquitto
        if kind == "embedded":
            broker = EmbeddedMqtt(run_dir)
        else:
            broker = Mosquitto(
                folder / "mosquitto", in_flight_max=arguments.broker_in_flight_max, queued_messages_max=1_000_000
            )
        with broker, EmbeddedLog(folder / "log", run_dir) as log:
            command = edgewater(
                "mapping", "run", "--config", config, "--mqtt-url", broker.url,
                "--bootstrap-servers", log.bootstrap_servers, "--run-dir", run_dir,
            )  # fmt: skip
            with Product(run_dir, "mapping", command, end_timeout_s=60) as process:
                until(lambda: (process.status() or {}).get("ready"), 40, "mapping ready")
                pids = {"process": process.pid, "broker": broker.pid, "log": log.pid}
                before = {who: usage(pid).cpu_s for who, pid in pids.items()}
                start = time.monotonic()
                publish(broker.port, arguments.messages, arguments.devices, arguments.window)
                published_s = time.monotonic() - start

                def finished() -> bool:
                    found = process.status() or {}
                    return found["durable_rows"] >= arguments.messages and not found["mappings"][0]["unacknowledged"]

                until(finished, 120, "all rows durable", poll_s=0.002)
                took_s = time.monotonic() - start
                cpu = {who: usage(pid).cpu_s - before[who] for who, pid in pids.items()}
                found = process.status() or {}
                peak_mb = usage(process.pid).peak_mb
        rate = arguments.messages / took_s
        alone = decoding_rate(config, arguments.messages, arguments.devices)
        each = "  ".join(f"{who} {seconds / arguments.messages * 1e6:.0f}" for who, seconds in cpu.items())
        print(f"{kind} broker, {arguments.messages} messages of {arguments.devices} devices")
        published = arguments.messages / published_s
        print(f"messages/s until durable and acknowledged: {rate:.0f} (published at {published:.0f}/s)")
        print(
            f"rows a batch: {arguments.messages / found['durable_batches']:.1f}; dead letters {found['dead_letters']}"
        )
        print(f"CPU us a message: {each}; process peak {peak_mb:.0f} MB")
        print(f"decoding alone: {alone:.0f} messages/s, ratio {rate / alone:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
