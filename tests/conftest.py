"""Fixtures for every test: servers, seeds, and the rule that where all is required nothing is skipped.

**Delivery**: see `tests.kit`. **Bounds**: each test has a timeout (pyproject.toml).
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.kit.mosquitto import Mosquitto
from tests.kit.required import allowed_skip, requires, strictness
from tests.kit.services import EmbeddedLog, EmbeddedMqtt, Kafka, Services, embedded_services, real_services

# No deadline: a shared machine pauses; no example database: a failure prints how to repeat itself instead.
settings.register_profile(
    "edgewater", deadline=None, database=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("edgewater")

# A shell starts background jobs with SIGINT ignored, and what a test starts would inherit that and not hear Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

_REAL_FIXTURES = frozenset({"mosquitto", "kafka", "kafka_session"})
_SEED = pytest.StashKey[int]()
_BAD_SKIPS = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start Mosquitto or Kafka as `real`, whether through a fixture or the `services` parameter."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        real = parameters.get("services") == "real" or parameters.get("any_log") == "kafka"
        if real or _REAL_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A failed test that used the `seed` fixture says how to repeat it; a skip is checked where all is required."""
    report = yield
    seed = item.stash.get(_SEED, None)
    if seed is not None and report.failed:
        report.sections.append(("seed", f"repeat with: EDGEWATER_SEED={seed} pytest {item.nodeid!r}"))
    if report.skipped and not hasattr(report, "wasxfail") and strictness() == "all":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not allowed_skip(reason):
            item.config.stash.setdefault(_BAD_SKIPS, []).append(f"{item.nodeid}: {reason}")
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With EDGEWATER_REQUIRE=all, a skip that is not on the short list fails the run."""
    if session.config.stash.get(_BAD_SKIPS, []) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the skips that made the run fail."""
    bad = config.stash.get(_BAD_SKIPS, [])
    if bad:
        terminalreporter.section("skipped although EDGEWATER_REQUIRE=all", red=True)
        for line in bad:
            terminalreporter.line(line)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A seed for this test: EDGEWATER_SEED, or a new one that a failure prints."""
    text = os.environ.get("EDGEWATER_SEED", "")
    value = int(text) if text else random.SystemRandom().randrange(2**32)
    request.node.stash[_SEED] = value
    return value


@pytest.fixture
def embedded_mqtt(tmp_path: Path) -> Iterator[EmbeddedMqtt]:
    """The embedded MQTT broker, fresh."""
    with EmbeddedMqtt(tmp_path / "run") as server:
        yield server


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A real Mosquitto, fresh."""
    requires("mosquitto")
    with Mosquitto(tmp_path / "mosquitto") as server:
        yield server


@pytest.fixture
def embedded_log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    """The embedded log, fresh."""
    with EmbeddedLog(tmp_path / "log", tmp_path / "run") as server:
        yield server


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[Kafka]:
    """One node of real Kafka, fresh; about four seconds. Where a topic of one's own is enough use `kafka_session`."""
    requires("kafka")
    with Kafka(tmp_path / "kafka", tmp_path / "run") as server:
        yield server


@pytest.fixture(scope="session")
def kafka_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One node of real Kafka shared by the run: use topics and groups with names of your own, never kill it."""
    requires("kafka")
    directory = tmp_path_factory.mktemp("kafka-session")
    with Kafka(directory / "kafka", directory / "run") as server:
        yield server


@pytest.fixture(params=["embedded", "real"])
def services(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Services]:
    """A fresh broker and log, once embedded and once real: the test runs on both."""
    start = embedded_services if request.param == "embedded" else real_services
    with start(tmp_path) as found:
        yield found
