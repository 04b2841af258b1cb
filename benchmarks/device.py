"""What the device pays: memory, CPU at 10 readings a second, bytes on the wire a reading, encoding speed.

    python benchmarks/device.py [--seconds 60]

The alternative beside the wire format is JSON, one object a reading, as most devices send it.

**Delivery**: none of its own. **Bounds**: loopback only; this machine is not an ARM board, and says nothing about one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import descendants, usage
from deploy.stack import Stack
from edge_agent.contract import columns, wire

_EPOCH = 911_234_005_414_707_205
_FUNCTION = '''
"""Ten readings a second."""
from edge_agent import every


@every(1.0)
def ten():
    """Ten readings at once."""
    return {f"sensor_{n}": n / 7 for n in range(10)}
'''


def _readings(count: int) -> tuple[array[int], list[str], array[float]]:
    generator = random.Random(1)
    walk = itertools.accumulate(round(generator.uniform(-1, 1), 3) for _ in range(count))
    ts = array("q", (1_790_000_000_000_000 + 200_000 * n for n in range(count)))
    return ts, [f"sensor_{n % 8}" for n in range(count)], array("d", (round(value, 3) for value in walk))


def _message(ts: array[int], names: list[str], values: array[float], compress: bool) -> bytes:
    body = wire.encode_columns(
        [columns.timestamps("ts", ts), columns.strings("name", names), columns.floats("value", values)]
    )
    return wire.encode_batch(
        body, device="dev-1", epoch=_EPOCH, seq=1, rows=len(ts), stream="readings", function="host", compress=compress
    )


def _json(ts: array[int], names: list[str], values: array[float]) -> bytes:
    rows = [{"ts": t, "name": n, "value": v} for t, n, v in zip(ts, names, values, strict=True)]
    return json.dumps(rows, separators=(",", ":")).encode()


def _rate(encode: Callable[[], bytes], rows: int) -> float:
    """Readings a second: the median of 5 rounds of at least 0.1 s."""
    found = []
    for _ in range(5):
        count, began_at = 0, time.perf_counter()
        while time.perf_counter() - began_at < 0.1:
            encode()
            count += 1
        found.append(count * rows / (time.perf_counter() - began_at))
    return statistics.median(found)


def wire_table() -> None:
    """Bytes and readings a second by batch size, beside JSON."""
    print(f"{'rows':>6}{'bytes a reading':>18}{'zlib':>8}{'JSON':>8}{'encoded/s':>14}{'JSON/s':>12}{'ratio':>8}")
    for rows in (1, 10, 100, 1000):
        sample = _readings(rows)
        plain, small, text = _message(*sample, False), _message(*sample, True), _json(*sample)
        ours, theirs = _rate(lambda s=sample: _message(*s, True), rows), _rate(lambda s=sample: _json(*s), rows)
        print(
            f"{rows:>6}{len(plain) / rows:>18.1f}{len(small) / rows:>8.1f}{len(text) / rows:>8.1f}"
            f"{ours:>14,.0f}{theirs:>12,.0f}{ours / theirs:>8.1f}"
        )


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def agent_at_rest(seconds: float) -> None:
    """PSS and CPU of the agent and of its function while it sends 10 readings a second."""
    with tempfile.TemporaryDirectory(prefix="edgewater-bench-") as folder, Stack(Path(folder)) as stack:
        stack.start()
        function = Path(folder) / "ten.py"
        function.write_text(_FUNCTION)
        name = stack.start_agent("bench", [function])
        process = stack.supervisor.services[name].process
        assert process is not None
        time.sleep(5)
        pids = {"agent": [process.pid], "its function": descendants(process.pid)}
        before = {part: sum(usage(pid).cpu_s for pid in found) for part, found in pids.items()}
        time.sleep(seconds)
        print(f"\nat 10 readings/s for {seconds:g} s, over MQTT on loopback:")
        for part, found in pids.items():
            cpu = (sum(usage(pid).cpu_s for pid in found) - before[part]) / seconds * 100
            print(f"  {part:<14} PSS {sum(map(_pss_mb, found)):5.1f} MB   CPU {cpu:.2f} % of a core")
        stack.supervisor.end(name)


def main() -> int:
    """Both tables."""
    parser = argparse.ArgumentParser(description="what the device pays")
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    wire_table()
    agent_at_rest(arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
