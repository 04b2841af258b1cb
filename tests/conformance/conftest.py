"""One log for the conformance suite, once the embedded one and once Apache Kafka: each test runs on both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.kit.required import requires
from tests.kit.services import EmbeddedLog, Kafka

_NUMBERS = itertools.count(1)


@dataclass(frozen=True)
class Log:
    """Where it is, and which of the two it is: `embedded` or `kafka`."""

    kind: str
    bootstrap: str


@pytest.fixture(scope="session", params=["embedded", "kafka"])
def any_log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """A log shared by the run: tests take names of their own from `fresh`."""
    directory = tmp_path_factory.mktemp(f"conformance-{request.param}")
    if request.param == "embedded":
        with EmbeddedLog(directory / "log", directory / "run") as embedded:
            yield Log("embedded", embedded.bootstrap_servers)
    else:
        requires("kafka")
        with Kafka(directory / "kafka", directory / "run") as kafka:
            yield Log("kafka", kafka.bootstrap_servers)


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """Names that no other test uses."""
    return lambda name: f"{name}-{next(_NUMBERS)}"
