"""Everything that must pass before a change is taken: each suite timed, a table of minutes at the end.

    python -m tests.kit.suites                 (or: make test-all)
    python -m tests.kit.suites lint faults     only these

Suites run one after the other, since they share two cores; a failing one does not stop the rest, so that one run
shows all there is to mend. The status is 0 only when every suite passed and all together took less than BUDGET_MINUTES.

**Delivery**: nothing is kept but the output. **Bounds**: each suite ends after its own limit in minutes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from .processes import ROOT

BUDGET_MINUTES = 40.0
_PYTEST = (sys.executable, "-m", "pytest", "--color=no")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A name, a command line, and the minutes after which it is ended and counts as failed."""

    name: str
    command: tuple[str, ...]
    minutes_max: float


SUITES = (
    Suite(name="lint", command=("make", "--no-print-directory", "lint"), minutes_max=2),
    Suite(name="types", command=("make", "--no-print-directory", "types"), minutes_max=5),
    Suite(name="imports", command=("make", "--no-print-directory", "imports"), minutes_max=2),
    Suite(
        name="unit, property, golden, house",
        command=(*_PYTEST, "-n", "2", "tests/unit", "tests/property", "tests/golden", "tests/house"),
        minutes_max=8,
    ),
    Suite(
        name="integration, embedded",
        command=(*_PYTEST, "tests/integration", "-m", "not real"),
        minutes_max=25,
    ),
    Suite(name="integration, real services", command=(*_PYTEST, "tests/integration", "-m", "real"), minutes_max=15),
    Suite(name="conformance of the log", command=(*_PYTEST, "tests/conformance"), minutes_max=10),
    Suite(name="faults", command=(*_PYTEST, "-s", "tests/faults"), minutes_max=25),
    Suite(name="build", command=("make", "--no-print-directory", "build"), minutes_max=3),
    Suite(name="light install", command=("make", "--no-print-directory", "light-install"), minutes_max=5),
)


def run(suite: Suite) -> tuple[bool, float]:
    """Run one suite with its output passed through; whether it passed, and its minutes."""
    print(f"\n===== {suite.name}: {' '.join(suite.command)}", flush=True)
    start = time.monotonic()
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    process = subprocess.Popen(
        suite.command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        status = process.wait(suite.minutes_max * 60)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        # First politely: pytest then ends the servers that its fixtures have started.
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if isinstance(error, KeyboardInterrupt):
            raise
        print(f"===== {suite.name}: ended after {suite.minutes_max} minutes", flush=True)
        status = 1
    return status == 0, (time.monotonic() - start) / 60


def main(names: list[str]) -> int:
    """Run the named suites (by a part of their name), or all."""
    chosen = [suite for suite in SUITES if not names or any(name in suite.name for name in names)]
    results = [(suite, *run(suite)) for suite in chosen]
    total = sum(minutes for _, _, minutes in results)
    print(f"\n{'suite':<32} {'minutes':>7}")
    for suite, passed, minutes in results:
        print(f"{suite.name:<32} {minutes:7.2f}{'' if passed else '   FAILED'}")
    over = total > BUDGET_MINUTES
    print(f"{'total':<32} {total:7.2f}{f'   over the budget of {BUDGET_MINUTES:.0f} minutes' if over else ''}")
    return 0 if results and all(passed for _, passed, _ in results) and not over else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
