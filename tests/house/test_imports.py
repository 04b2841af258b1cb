"""Who may import whom, beyond the layers in pyproject.toml: the contract, the device, and one module per library."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict

import pytest

from tests.house.sources import ROOMS, ROOT, imports, python_files, relative

CLOUD = ("amqtt", "aiokafka", "deltalake", "duckdb", "faust", "kafka", "pyarrow")
"""Libraries that a device must never load."""

EDGES = {
    "aiokafka": {"stream_jobs": 1},
    "amqtt": {"deploy": 1},
    "deltalake": {"lake": 1},
    "duckdb": {"lake": 1, "stream_jobs": 1},
    "faust": {"stream_jobs": 1},
    "mode": {"stream_jobs": 1},
    # The codec of the embedded log, and the one client.
    "kafka": {"stream_jobs": 2},
    "paho": {"edge_agent": 1, "stream_jobs": 1},
    # The extra `http`: loaded by the process of a WSGI app only.
    "waitress": {"edge_agent": 1},
}
"""Library -> room -> how many modules there may import it. A room that is not named may not at all."""

NAMED = {
    "amqtt": {"deploy/mqtt_broker.py"},
    "faust": {"stream_jobs/faust_app.py"},
    "mode": {"stream_jobs/faust_app.py"},
    "kafka": {"stream_jobs/kafka_client.py", "stream_jobs/log/codec.py"},
    "paho": {"edge_agent/mqtt.py", "stream_jobs/bridge/mqtt.py"},
    "waitress": {"edge_agent/functions/wsgi.py"},
}
"""Where a library's module is fixed by name."""


@pytest.mark.parametrize("library", sorted(EDGES))
def test_each_library_has_one_module_in_each_room(library: str) -> None:
    """Everything else meets the library through that module, so that it can be exchanged and its traps mended there."""
    found: dict[str, set[str]] = defaultdict(set)
    for room in ROOMS:
        for path in python_files(room):
            if any(name.split(".")[0] == library for name, _ in imports(path)):
                found[room].add(relative(path))
    allowed = EDGES[library]
    wrong = {room: sorted(files) for room, files in found.items() if len(files) > allowed.get(room, 0)}
    assert not wrong, f"{library} may be imported by {allowed}; it is imported by {wrong}"
    if library in NAMED:
        everywhere = set().union(*found.values()) if found else set()
        assert everywhere <= NAMED[library]


def test_the_contract_imports_the_standard_library_and_msgspec_only() -> None:
    """What both sides of the network share depends on nothing that one of them may not have."""
    allowed = {*sys.stdlib_module_names, "msgspec"}
    for path in python_files("edge_agent/contract"):
        for name, line in imports(path):
            inside = name == "edge_agent.contract" or name.startswith("edge_agent.contract.")
            assert inside or name.split(".")[0] in allowed, f"{relative(path)}:{line} imports {name}"


def test_the_device_imports_its_two_libraries_only() -> None:
    """edge_agent imports the standard library, msgspec, paho and itself, and in one module the extra's waitress; the
    command line names rooms as text."""
    allowed = {*sys.stdlib_module_names, "msgspec", "paho", "edge_agent", "waitress"}
    for path in python_files("edge_agent"):
        for name, line in imports(path):
            assert name.split(".")[0] in allowed, f"{relative(path)}:{line} imports {name}"


def test_only_the_contract_is_imported_from_the_device() -> None:
    """stream_jobs, lake and deploy start the agent as a process; from edge_agent they import the contract alone."""
    for path in python_files("stream_jobs", "lake", "deploy"):
        for name, line in imports(path):
            if name.split(".")[0] == "edge_agent":
                assert name.startswith("edge_agent.contract"), f"{relative(path)}:{line} imports {name}"


def test_no_room_imports_the_tests() -> None:
    """The product does not depend on its test kit."""
    for path in python_files(*ROOMS):
        for name, line in imports(path):
            assert name.split(".")[0] != "tests", f"{relative(path)}:{line} imports {name}"


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `statement`."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize("module", ["edge_agent", "edge_agent.agent", "edge_agent.cli", "edge_agent.contract"])
def test_the_device_loads_no_cloud_library(module: str) -> None:
    """In a fresh interpreter of an environment that has them, the device's modules load none of these libraries."""
    assert not loaded_by(f"import {module}") & {*CLOUD, "stream_jobs", "lake", "deploy", "flask", "waitress"}


def test_the_lake_loads_no_broker_and_no_log() -> None:
    """Somebody who only queries loads neither an MQTT nor a Kafka client."""
    assert not loaded_by("import lake") & {"amqtt", "aiokafka", "faust", "kafka", "paho"}
