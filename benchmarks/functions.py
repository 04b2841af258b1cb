"""What functions cost on a device: memory, start, calls and HTTP, each beside what one would use instead.

    python benchmarks/functions.py [--rounds 5] [--seconds 2]

1. Memory of 1, 10 and 20 function processes, started afresh and forked by the warm parent (PSS, and private of one).
2. Milliseconds from the request for a process to its function's first word (Loaded), likewise.
3. Calls a second of one function that returns a mapping, with the CPU it takes.
4. Requests a second of examples/hello_flask.py: by the agent, by waitress alone, by Flask's own development server;
   GET / on 1 and on 16 connections that stay open; with the processor time that the serving process takes a request,
   which says more than the rate where other things run on the same processors.

Medians of the rounds; the alternatives take turns, so that a slow minute is everybody's.

**Delivery**: none of its own. **Bounds**: loopback only; client and server share this machine's processors.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import descendants, usage
from edge_agent.contract.clock import SystemClock
from edge_agent.functions import frames
from edge_agent.functions.process import ROOT, Start, start_process
from edge_agent.functions.supervisor import Source, Supervisor, Token
from edge_agent.functions.warm import WarmParent

_TANK = "from edge_agent import every\n@every({interval})\ndef tank():\n    return {{'level': 1.0, 'flow': 2.0}}\n"
_HELLO = ROOT / "examples" / "hello_flask.py"
_REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def memory_mb(pid: int) -> tuple[float, float]:
    """(PSS, private) of a process in MB of 10^6 bytes."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
    return int(fields["Pss"]) * 1024 / 1e6, (int(fields["Private_Clean"]) + int(fields["Private_Dirty"])) * 1024 / 1e6


def supervised(folder: Path, start: Start, count: int, interval_s: float) -> Supervisor:
    """So many functions, running."""
    paths = []
    for number in range(count):
        paths.append(folder / f"tank_{number}.py")
        paths[-1].write_text(_TANK.replace("tank", f"tank_{number}").format(interval=interval_s))

    def submit(token: Token, _function: str, _version: bytes, _batch: frames.Batch) -> None:
        supervisor.answer(token, "")

    supervisor = Supervisor(
        [Source(str(path)) for path in paths], submit, SystemClock(), batch_rows=1000, flush_interval_s=0.2, start=start
    )
    while not all(function.state == "running" for function in supervisor.functions):
        supervisor.poll(0.1)
    return supervisor


def poll_for(supervisor: Supervisor, seconds: float) -> None:
    """Serve the functions for some time."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        supervisor.poll(0.1)


def memory_table(folder: Path, seconds: float) -> None:
    """PSS of all function processes, the warm parent included, and private memory of one."""
    print(
        f"{'function processes':<20}{'afresh: PSS MB':>16}{'its own':>9}{'warm: PSS MB':>15}{'its own':>9}{'ratio':>8}"
    )
    for count in (1, 10, 20):
        cells = []
        for kind in ("afresh", "warm"):
            warm = WarmParent()
            supervisor = supervised(folder, start_process if kind == "afresh" else warm.start, count, 0.5)
            poll_for(supervisor, seconds)
            pids = [function.process.pid for function in supervisor.functions if function.process is not None]
            found = [memory_mb(pid) for pid in pids]
            total = sum(share for share, _ in found) + (memory_mb(warm.pid)[0] if warm.pid else 0.0)
            cells.append((total, statistics.median(own for _, own in found)))
            supervisor.close()
            warm.close()
        (fresh, fresh_own), (warmed, warmed_own) = cells
        print(f"{count:<11}{fresh:>16.1f}{fresh_own:>9.1f}{warmed:>15.1f}{warmed_own:>9.1f}{fresh / warmed:>8.1f}")


def start_ms(start: Start, path: Path) -> float:
    """From the request to Loaded."""
    began_s = time.perf_counter()
    process, connection = start()
    connection.setblocking(True)
    connection.sendall(frames.encode(frames.Load(False, str(path), "", 1000, 0.2)))
    connection.recv(65_536)
    took_s = time.perf_counter() - began_s
    connection.close()
    process.kill_group()
    process.wait()
    return took_s * 1000


def start_table(folder: Path, rounds: int) -> None:
    """A function that imports nothing of its own, and the Flask example."""
    tank = folder / "tank.py"
    tank.write_text(_TANK.format(interval=100))
    warm = WarmParent()
    process, connection = warm.start()
    print(f"\n{'start to ready, ms':<20}{'afresh':>10}{'warm':>10}{'ratio':>8}")
    for name, path in (("plain", tank), ("Flask", _HELLO)):
        times: dict[str, list[float]] = {"afresh": [], "warm": []}
        for _ in range(2 * rounds):
            times["afresh"].append(start_ms(start_process, path))
            times["warm"].append(start_ms(warm.start, path))
        fresh, warmed = (statistics.median(times[kind]) for kind in ("afresh", "warm"))
        print(f"{name:<20}{fresh:>10.1f}{warmed:>10.1f}{fresh / warmed:>8.1f}")
    connection.close()
    process.wait()
    warm.close()


def calls_table(folder: Path, seconds: float) -> None:
    """One function called as often as the smallest interval allows."""
    warm = WarmParent()
    supervisor = supervised(folder, warm.start, 1, 0.001)
    (function,) = supervisor.functions
    assert function.process is not None
    before, began_s = usage(function.process.pid).cpu_s, time.monotonic()
    poll_for(supervisor, max(2.5, seconds))
    took_s, cpu_s = time.monotonic() - began_s, usage(function.process.pid).cpu_s - before
    rate = function.rows / 2 / took_s
    print(f"\ncalled each ms: {rate:,.0f} calls/s of two rows, {100 * cpu_s / took_s:.0f} % of a core")
    supervisor.close()
    warm.close()


# -- HTTP ------------------------------------------------------------------------------------------------------


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextlib.contextmanager
def process(*command: str | Path) -> Iterator[int]:
    """A server's process."""
    # In a session of its own, as the agent starts its functions: Linux shares processor time among sessions.
    found = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield found.pid
    finally:
        found.terminate()
        found.wait()


def connected(port: int) -> socket.socket:
    """A connection, once the server listens."""
    end_s = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 20)
        except ConnectionRefusedError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.02)


def requests_per_s(port: int, connections: int, seconds: float) -> tuple[float, float]:
    """(requests a second, milliseconds below which 99 % of the answers came); a closed connection is opened again."""
    end_s = time.monotonic() + seconds
    times: list[float] = []

    def load() -> None:
        connection = connected(port)
        mine = []
        while (now_s := time.perf_counter()) and time.monotonic() < end_s:
            try:
                connection.sendall(_REQUEST)
                data = b""
                while not data.endswith(b"Hello, World!"):
                    part = connection.recv(65_536)
                    if not part:
                        raise ConnectionResetError
                    data += part
                mine.append(time.perf_counter() - now_s)
                if b"\nconnection: close" in data.lower():
                    raise ConnectionResetError
            except (ConnectionResetError, BrokenPipeError):
                connection.close()
                connection = connected(port)
        connection.close()
        times.extend(mine)

    threads = [threading.Thread(target=load) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    if not times:
        return 0.0, 0.0
    return len(times) / seconds, 1000 * times[int(0.99 * (len(times) - 1))]


def http_table(folder: Path, rounds: int, seconds: float) -> None:
    """The three servers, in turns."""
    entry = "import sys; from edge_agent.cli import main; sys.exit(main())"
    ports = {name: free_port() for name in ("agent", "waitress", "flask")}
    example = f"import sys; sys.path.insert(0, {str(_HELLO.parent)!r}); from hello_flask import app; "
    pids = {}
    with contextlib.ExitStack() as stack:
        agent = stack.enter_context(process(
            sys.executable, "-c", entry, "agent", "run", _HELLO, "--device", "bench", "--dir", folder / "spool",
            "--run-dir", folder / "run", "--http-port", str(ports["agent"]), "--mqtt", f"mqtt://127.0.0.1:{free_port()}",
        ))  # fmt: skip
        pids["waitress"] = stack.enter_context(process(
            sys.executable, "-c", f"{example}import waitress; waitress.serve(app, port={ports['waitress']})"
        ))  # fmt: skip
        pids["flask"] = stack.enter_context(process(sys.executable, "-c", f"{example}app.run(port={ports['flask']})"))
        for port in ports.values():
            requests_per_s(port, 1, 0.1)
        (pids["agent"],) = (pid for pid in descendants(agent) if len(os.listdir(f"/proc/{pid}/task")) > 1)
        head = "".join(f"{name:>24}" for name in ports)
        print(f"\n{'GET /: req/s, p99 ms, CPU us':<30}{head}{'agent/waitress: req/s, CPU':>28}")
        for connections in (1, 16):
            found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ports}
            for _ in range(rounds):
                for name, port in ports.items():
                    before_s = usage(pids[name]).cpu_s
                    rate, late_ms = requests_per_s(port, connections, seconds)
                    found[name].append((rate, late_ms, 1e6 * (usage(pids[name]).cpu_s - before_s) / (rate * seconds)))
            medians = {
                name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()
            }
            cells = "".join(f"{f'{rate:,.0f} {late:.1f} {cpu:.0f}':>24}" for rate, late, cpu in medians.values())
            ratios = [ours / theirs for ours, theirs in zip(medians["agent"], medians["waitress"], strict=True)]
            print(f"{f'{connections} connections':<30}{cells}{f'{ratios[0]:.2f} {ratios[2]:.2f}':>28}")
        share, own = memory_mb(pids["agent"])
        print(f"the app's process: PSS {share:.1f} MB, its own {own:.1f} MB")


def main() -> int:
    """All tables."""
    parser = argparse.ArgumentParser(description="what functions cost on a device")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgewater-bench-") as name:
        folder = Path(name)
        tables: list[Callable[[], None]] = [
            lambda: memory_table(folder, arguments.seconds),
            lambda: start_table(folder, arguments.rounds),
            lambda: calls_table(folder, arguments.seconds),
            lambda: http_table(folder, arguments.rounds, arguments.seconds),
        ]
        for table in tables:
            table()
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
