"""What a test needs beyond Python: skip with the reason, or fail where everything is required.

`EDGEWATER_REQUIRE` says how strict to be:

- unset: what is missing is skipped, with the command that installs it;
- `embedded` (`make test`): real services are skipped even where they are installed, so the run stays short;
- `all` (`make test-all`, .ci/run): what is missing fails the test; only parts in MAY_SKIP are skipped.

**Delivery** and **Bounds**: nothing is kept; what was found is remembered for the life of the process.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.kafka.jars import missing_parts

__all__ = ["MAY_SKIP", "allowed_skip", "requires", "strictness"]

MAY_SKIP = frozenset({"fish", "tc-netem", "zsh"})
"""Parts that a machine may lack even where all is required: containers often forbid traffic control, and the completion
of the shells that are there is tried in each of them."""
_REASON = "needs {part}: {missing}"


def _mosquitto() -> str:
    return "" if mosquitto_binary() else "mosquitto is missing (apt-get install mosquitto)"


def mosquitto_binary() -> str | None:
    """Path of the mosquitto program; Debian puts it in /usr/sbin, which is not in everybody's PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


def _kafka() -> str:
    return "; ".join(f"missing is {part}" for part in missing_parts())


def _traffic_control() -> str:
    if shutil.which("tc") is None:
        return "tc is missing (apt-get install iproute2)"
    if os.geteuid() != 0:
        return "tc needs root"
    return "" if Path("/sys/module/sch_netem").exists() else "the kernel has no netem (modprobe sch_netem)"


_CHECKS: dict[str, Callable[[], str]] = {"mosquitto": _mosquitto, "kafka": _kafka, "tc-netem": _traffic_control}


@functools.cache
def _missing(part: str) -> str:
    return _CHECKS[part]()


def strictness() -> str:
    """`EDGEWATER_REQUIRE`: empty, `embedded` or `all`."""
    return os.environ.get("EDGEWATER_REQUIRE", "")


def requires(part: str) -> None:
    """Go on when this machine has `part` (mosquitto, kafka or tc-netem); else skip, or fail when all is required."""
    missing = _missing(part)
    if strictness() == "embedded":
        pytest.skip(_REASON.format(part=part, missing=missing or "not part of `make test`; `make test-all` runs it"))
    if not missing:
        return
    reason = _REASON.format(part=part, missing=missing)
    if strictness() == "all" and part not in MAY_SKIP:
        pytest.fail(f"EDGEWATER_REQUIRE=all, and this test {reason}", pytrace=False)
    pytest.skip(reason)


def allowed_skip(reason: str) -> bool:
    """Whether a skip with this reason is allowed where everything is required."""
    return any(_REASON.format(part=part, missing="") in reason for part in MAY_SKIP)
