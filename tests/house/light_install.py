"""The device's promise, measured: the wheel without extras, in an environment of its own.

    python -m tests.house.light_install         (or: make light-install)

1. Builds the wheel; installs it with its two locked dependencies into a clean environment.
2. `edgewater --help` and `edgewater agent --help` run there.
3. A fresh interpreter imports the agent; no cloud library is there, and none is asked for.
4. `edgewater agent run` with the built-in `host` function sends rows and trims its spool, while its memory is read; the
   embedded broker and an answering bridge run in the developer's environment.

Prints what is installed in MB and the agent's PSS, and ends with status 1 above INSTALLED_MB_MAX or PSS_MB_MAX.

**Delivery**: works in a temporary folder and leaves nothing behind. **Bounds**: each step has a deadline.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.kit.processes import ROOT, Product
from tests.kit.services import EmbeddedMqtt
from tests.kit.wait import until
from tests.kit.watermark_responder import WatermarkResponder

INSTALLED_MB_MAX = 10.0
PSS_MB_MAX = 30.0
_RUN_S = 5.0
_DISTRIBUTIONS = ("edgewater", "paho-mqtt", "msgspec")
_SIZES = f"""
import importlib.metadata as metadata, json, pathlib
sizes = {{}}
for name in {_DISTRIBUTIONS!r}:
    found = metadata.distribution(name)
    files = {{pathlib.Path(found.locate_file(one)).resolve() for one in found.files}}
    sizes[name] = sum(one.stat().st_size for one in files if one.is_file())
others = sorted({{one.metadata["Name"].lower() for one in metadata.distributions()}} - set(sizes))
print(json.dumps({{"sizes": sizes, "others": others}}))
"""
_LOADED = "import edge_agent.agent, edge_agent.cli, json, sys; print(json.dumps(sorted(sys.modules)))"
_CLOUD = {"aiokafka", "amqtt", "deltalake", "duckdb", "faust", "kafka", "lake", "deploy", "pyarrow", "stream_jobs"}


class LightInstallError(Exception):
    """A step failed; its text says which and how."""


def run(*command: str | Path, timeout_s: float = 300.0) -> str:
    """Run a command in the repository's root with a bare environment; its standard output. Fails loudly."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    if result.returncode != 0:
        line = " ".join(str(part) for part in command)
        raise LightInstallError(f"{line} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout


def locked(names: set[str]) -> str:
    """The blocks of the lock, with their hashes, of these distributions."""
    text = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    blocks = re.findall(r"^[a-z0-9][^\n]*==(?:.|\n)*?(?=^\S|\Z)", text, re.MULTILINE)
    return "".join(block for block in blocks if block.split("==")[0] in names)


def install(folder: Path) -> Path:
    """Build the wheel and install it into a new environment in `folder`; the environment's `bin`."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    run(sys.executable, "-m", "venv", folder / "venv")
    binaries = folder / "venv" / "bin"
    (folder / "device.txt").write_text(locked({"paho-mqtt", "msgspec"}), "utf-8")
    run(binaries / "python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", folder / "device.txt")
    # No --no-deps here: pip then proves that the wheel asks for nothing that is not there already.
    run(binaries / "python", "-m", "pip", "install", "--quiet", "--no-index", wheel)
    return binaries


def installed_mb(binaries: Path) -> float:
    """Size of the wheel and its dependencies as installed, compiled files included; fails when more came along."""
    found = json.loads(run(binaries / "python", "-c", _SIZES, timeout_s=60))
    unexpected = set(found["others"]) - {"pip", "setuptools", "wheel"}
    if unexpected:
        raise LightInstallError(f"the base install brings along {sorted(unexpected)}")
    for name, size in found["sizes"].items():
        print(f"  {name:<12} {size / 1e6:6.2f} MB")
    return sum(found["sizes"].values()) / 1e6


def pss_mb(pid: int) -> tuple[float, float]:
    """A process's proportional share of memory, and what is its own (private), in MB of 10^6 bytes."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE))
    own = int(fields["Private_Clean"]) + int(fields["Private_Dirty"])
    return int(fields["Pss"]) * 1024 / 1e6, own * 1024 / 1e6


def descendants(pid: int) -> Iterator[int]:
    """Process ids of all children and their children."""
    for name in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(name)
        yield from descendants(int(name))


def agent_memory_mb(binaries: Path, folder: Path) -> float:
    """Run the agent with `host` for some seconds against a broker; its PSS in MB. Fails when no rows got through."""
    run_dir = folder / "run"
    with EmbeddedMqtt(run_dir) as broker, WatermarkResponder(broker.port, keep=False):
        command = [
            binaries / "edgewater", "agent", "run", "--device", "light", "--mqtt-urls", broker.url,
            "--dir", folder / "agent", "--run-dir", run_dir, "--drain-timeout-s", "10",
        ]  # fmt: skip
        # Of the developer's environment nothing may be found: neither its packages nor the working copy.
        agent = Product(run_dir, "agent-light", command, environment={"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"})
        with agent:
            agent.ready(30)
            started = time.monotonic()
            until(lambda: (agent.status() or {}).get("rows_durable", 0) > 0, 30, "durable rows")
            until(lambda: time.monotonic() - started > _RUN_S, _RUN_S + 5, "the run's seconds")
            share, own = pss_mb(agent.pid)
            status = agent.status() or {}
            print(
                f"  agent        {share:6.2f} MB PSS, {own:.2f} MB its own, {status.get('rows_durable')} rows through"
            )
            for pid in descendants(agent.pid):
                child_share, child_own = pss_mb(pid)
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                print(f"  {name:<12} {child_share:6.2f} MB PSS, {child_own:.2f} MB its own")
    return share


def main() -> int:
    """All steps; 0 when both figures are within their limits."""
    try:
        with tempfile.TemporaryDirectory(prefix="edgewater-light-") as name:
            folder = Path(name)
            binaries = install(folder)
            print("installed without extras:")
            size = installed_mb(binaries)
            run(binaries / "edgewater", "--help", timeout_s=30)
            run(binaries / "edgewater", "agent", "--help", timeout_s=30)
            loaded = set(json.loads(run(binaries / "python", "-c", _LOADED, timeout_s=30)))
            if loaded & _CLOUD:
                raise LightInstallError(f"importing the agent loads {sorted(loaded & _CLOUD)}")
            print("running:")
            share = agent_memory_mb(binaries, folder)
    except (LightInstallError, AssertionError, subprocess.TimeoutExpired) as error:
        print(f"light install: {error}", file=sys.stderr)
        return 1
    print(f"light install: {size:.1f} MB installed (limit {INSTALLED_MB_MAX:.0f}), agent's PSS {share:.1f} MB"
          f" (limit {PSS_MB_MAX:.0f})")  # fmt: skip
    return 0 if size <= INSTALLED_MB_MAX and share <= PSS_MB_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
