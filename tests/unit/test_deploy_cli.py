"""The commands of deploy: their options come from the settings, and nothing heavy is loaded to show them."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

import pytest

from deploy.cli import add_kafka_commands, add_mqtt_commands


@pytest.mark.parametrize(
    ("add", "line"),
    [
        (add_mqtt_commands, ["run", "--port", "0", "--run-dir", "r", "--queue-bytes-max", "65536"]),
        (add_mqtt_commands, ["config", "--port", "1884"]),
        (add_kafka_commands, ["run", "--dir", "d", "--port", "0", "--nodes", "3"]),
        (add_kafka_commands, ["fetch"]),
    ],
)
def test_each_command_has_a_function_to_run(add: Callable[[argparse.ArgumentParser], None], line: list[str]) -> None:
    """Parsing a command line sets `run` to what runs it."""
    parser = argparse.ArgumentParser()
    add(parser)
    assert callable(parser.parse_args(line).run)


def test_a_mosquitto_configuration_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`edgewater mqtt config` prints what Mosquitto can be started with."""
    parser = argparse.ArgumentParser()
    add_mqtt_commands(parser)
    arguments = parser.parse_args(["config", "--port", "1884"])
    assert arguments.run(arguments) == 0
    assert "listener 1884 127.0.0.1" in capsys.readouterr().out


def test_the_commands_load_no_broker() -> None:
    """In a fresh interpreter, importing deploy.cli loads neither amqtt nor asyncio."""
    code = "import sys, deploy.cli; print([name for name in ('amqtt', 'asyncio') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
