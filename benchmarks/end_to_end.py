"""End to end on the embedded default: one agent with batches of 1000 -> rows that a query sees.

    python benchmarks/end_to_end.py [--seconds 60] [--runs 3] [--rate 500000] [--freshness-rate 100000]

For each run, one after the other in the same process tree: Edgewater at `rate`; at `freshness-rate`, for the
freshness of the last 30 s; and as much as it takes. Beside the last, as the alternative, as much as the same readings
take without any promise: the same MQTT broker and paho, straight into Parquet files, with no spool, log, fold,
transaction or sync. Prints medians, CPU seconds per million readings and peak memory of each process, and the ratio.

**Delivery**: exits 1 when the lake does not hold exactly what the spool accepted. **Bounds**: loopback only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lake
from benchmarks.measure import descendants, usage
from deploy.stack import Stack
from edge_agent.contract.status import read_status

FUNCTION = Path(__file__).with_name("bulk_function.py")
DEVICE = "bench"
UNBOUNDED_RATE = 3_000_000
"""More than any part can do on two cores."""


def _processes(stack: Stack) -> dict[str, list[int]]:
    """Process ids by part; the agent's functions and the worker's children count with them."""
    found = {}
    for name, service in stack.supervisor.services.items():
        assert service.process is not None
        found[name] = [service.process.pid, *descendants(service.process.pid)]
    return found


def _landed_rows(directory: Path) -> int:
    return int(lake.open(directory).snapshot().query("SELECT count(*) FROM readings").arrow().column(0)[0].as_py())


def edgewater_run(rate: int, seconds: float) -> dict[str, Any]:
    """One measurement: start the stack, warm up 5 s, then measure `seconds` from lake to lake."""
    os.environ.update(BULK_RATE=str(rate), BULK_ROWS="1000")
    with tempfile.TemporaryDirectory(prefix="edgewater-bench-") as folder, Stack(Path(folder)) as stack:
        stack.start()
        agent = stack.start_agent(DEVICE, [FUNCTION], drain_timeout_s=120)
        time.sleep(5)
        before = {name: sum(usage(pid).cpu_s for pid in pids) for name, pids in _processes(stack).items()}
        rows_before, began_at = _landed_rows(stack.lake), time.monotonic()
        freshness = []
        while time.monotonic() < began_at + seconds:
            time.sleep(1)
            stack.supervisor.check()
            freshness.append((read_status(stack.supervisor.run_dir, "worker") or {}).get("freshness") or {})
        rows_after, elapsed_s = _landed_rows(stack.lake), time.monotonic() - began_at
        rows = rows_after - rows_before
        parts = {}
        for name, pids in _processes(stack).items():
            found = [usage(pid) for pid in pids]
            parts[name] = {
                "cpu_s_per_million": (sum(u.cpu_s for u in found) - before[name]) / (rows / 1e6),
                "peak_mb": sum(u.peak_mb for u in found),
            }
        status = stack.supervisor.end(agent)
        accepted = int((read_status(stack.supervisor.run_dir, agent) or {})["rows_accepted"])
        deadline = time.monotonic() + 60
        while (landed := _landed_rows(stack.lake)) < accepted and time.monotonic() < deadline:
            time.sleep(0.25)
        # The worker reports over the last 30 s, so the last report is free of the start when the run is long enough.
        last = freshness[-1] if freshness else {}
        return {
            "rate": rows / elapsed_s,
            "rows": rows,
            "exact": status == 0 and landed == accepted,
            "freshness_p50_s": last.get("p50_s"),
            "freshness_p99_s": last.get("p99_s"),
            "parts": parts,
            "restarts": {n: s.restarts for n, s in stack.supervisor.services.items() if s.restarts},
        }


def bare_run(rate: int, seconds: float) -> dict[str, Any]:
    """The alternative: the same readings by paho over the same broker straight into Parquet, with no promise."""
    import subprocess

    from deploy.supervisor import Service, Supervisor, edgewater_command

    with (
        tempfile.TemporaryDirectory(prefix="edgewater-bare-") as folder,
        Supervisor(Path(folder) / "run") as supervisor,
    ):
        run = supervisor.run_dir
        command = edgewater_command("mqtt", "run", "--host", "127.0.0.1", "--port", "0", "--run-dir", run)
        supervisor.start(Service("mqtt", command))
        port = supervisor.wait_ready("mqtt")["port"]
        script = Path(__file__).with_name("bare_pipeline.py")
        arguments = [sys.executable, str(script), str(port), str(rate), str(seconds), folder]
        reader = subprocess.Popen([*arguments, "read"], stdout=subprocess.PIPE, text=True)
        subprocess.run([*arguments, "send"], check=True, timeout=seconds + 60)
        out, _ = reader.communicate(timeout=60)
        found: dict[str, Any] = json.loads(out)
        return found


def _median(runs: list[dict[str, Any]], key: str) -> float:
    values = [run[key] for run in runs if run[key] is not None]
    return statistics.median(values) if values else float("nan")


def main() -> int:
    """Run, print, and say by the exit status whether every run was exact."""
    parser = argparse.ArgumentParser(description="end-to-end throughput and freshness on the embedded default")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rate", type=int, default=500_000)
    parser.add_argument("--freshness-rate", type=int, default=100_000)
    arguments = parser.parse_args()
    fast, steady, most, bare = [], [], [], []
    for number in range(arguments.runs):
        fast.append(edgewater_run(arguments.rate, arguments.seconds))
        steady.append(edgewater_run(arguments.freshness_rate, 40.0))
        most.append(edgewater_run(UNBOUNDED_RATE, 20.0))
        bare.append(bare_run(10 * UNBOUNDED_RATE, 20.0))
        print(
            f"run {number + 1}: offered {arguments.rate:,}/s, landed {fast[-1]['rate']:,.0f}/s; at "
            f"{steady[-1]['rate']:,.0f}/s freshness p50 {steady[-1]['freshness_p50_s']} s, p99 "
            f"{steady[-1]['freshness_p99_s']} s; at most {most[-1]['rate']:,.0f}/s, without promises "
            f"{bare[-1]['rate']:,.0f}/s; exact: {[r['exact'] for r in (fast[-1], steady[-1], most[-1])]}, "
            f"restarts {fast[-1]['restarts']}",
            flush=True,
        )
    alternative = _median(bare, "rate")
    print(f"\nmedians of {arguments.runs}:")
    print(f"  offered {arguments.rate:>9,}/s, landed     {_median(fast, 'rate'):>12,.0f} readings/s")
    print(f"  as much as it takes           {_median(most, 'rate'):>12,.0f} readings/s")
    print(
        f"  paho to Parquet, no promise   {alternative:>12,.0f} readings/s   "
        f"ratio {_median(most, 'rate') / alternative:.2f}"
    )
    print(
        f"  freshness at {_median(steady, 'rate'):,.0f}/s: p50 {_median(steady, 'freshness_p50_s'):.2f} s, "
        f"p99 {_median(steady, 'freshness_p99_s'):.2f} s"
    )
    print(f"\n  {'process':<14}{'CPU-s per million':>20}{'peak MB':>10}")
    for name in fast[0]["parts"]:
        cpu = statistics.median(run["parts"][name]["cpu_s_per_million"] for run in fast)
        peak = max(run["parts"][name]["peak_mb"] for run in fast)
        print(f"  {name:<14}{cpu:>20.2f}{peak:>10.0f}")
    exact = all(run["exact"] for run in (*fast, *steady, *most))
    print(f"\nevery row accepted landed, none twice, in each run: {exact}")
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
