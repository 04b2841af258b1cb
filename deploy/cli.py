"""The commands `edgewater mqtt ...` and `edgewater kafka ...`: what they take, and where they go.

**Delivery** and **Bounds**: those of the processes they start. Heavy libraries are imported when a command runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_agent.contract.settings import add_options, flags_from, load

from .kafka.cluster import KafkaSettings
from .mosquitto import MosquittoSettings
from .mqtt_settings import MqttSettings

__all__ = ["add_kafka_commands", "add_mqtt_commands"]

_CONFIG_HELP = "settings file, section [{}]"


def add_mqtt_commands(parser: argparse.ArgumentParser) -> None:
    """Add `run` (the embedded broker) and `config` (a configuration for Mosquitto)."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run the embedded MQTT broker in the foreground",
        description="Run the embedded MQTT broker in the foreground until SIGTERM or Ctrl-C. For many devices, and "
        "where clients need passwords, use Mosquitto: `edgewater mqtt config` prints its configuration.",
        epilog="examples:\n  edgewater mqtt run\n  edgewater mqtt run --host 0.0.0.0 --port 1884\n",
    )
    _add_places(run, "mqtt")
    add_options(run, MqttSettings)
    run.set_defaults(run=_run_mqtt)
    config = commands.add_parser(
        "config",
        help="print a mosquitto.conf with the settings that Edgewater needs",
        description="Print a mosquitto.conf with the settings that Edgewater needs, and why.",
        epilog="examples:\n  edgewater mqtt config --port 1883 > mosquitto.conf\n  mosquitto -c mosquitto.conf\n",
    )
    config.add_argument("--config", type=Path, default=None, metavar="FILE.toml", help=_CONFIG_HELP.format("mosquitto"))
    add_options(config, MosquittoSettings)
    config.set_defaults(run=_print_mosquitto_configuration)


def add_kafka_commands(parser: argparse.ArgumentParser) -> None:
    """Add `run` (Apache Kafka on this machine) and `fetch` (its jars, ahead of time)."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="run one or three nodes of Apache Kafka in the foreground (needs Java and Maven)",
        description="Run one or three nodes of Apache Kafka on this machine in the foreground until SIGTERM or "
        "Ctrl-C. Its jars are fetched once, from Maven Central.",
        epilog="examples:\n  edgewater kafka run --dir kafka-data --port 9092\n"
        "  edgewater kafka run --dir kafka-data --nodes 3\n",
    )
    run.add_argument("--dir", type=Path, required=True, metavar="DIR", help="directory of the cluster's data")
    _add_places(run, "kafka")
    add_options(run, KafkaSettings)
    run.set_defaults(run=_run_kafka)
    fetch = commands.add_parser(
        "fetch",
        help="fetch Kafka's jars into the cache, and print where they are",
        description="Fetch Kafka's jars from Maven Central into $EDGEWATER_CACHE_DIR or ~/.cache/edgewater, and print "
        "where they are.",
        epilog="examples:\n  edgewater kafka fetch\n",
    )
    fetch.set_defaults(run=_fetch_kafka)


def _add_places(parser: argparse.ArgumentParser, section: str) -> None:
    parser.add_argument("--config", type=Path, default=None, metavar="FILE.toml", help=_CONFIG_HELP.format(section))
    parser.add_argument("--run-dir", type=Path, default=None, metavar="DIR", help="directory for the status file")


def _run_mqtt(arguments: argparse.Namespace) -> int:
    from .mqtt_broker import run

    settings = load(MqttSettings, "mqtt", file=arguments.config, flags=flags_from(arguments, MqttSettings))
    return run(arguments.run_dir, settings)


def _print_mosquitto_configuration(arguments: argparse.Namespace) -> int:
    from .mosquitto import mosquitto_configuration

    flags = flags_from(arguments, MosquittoSettings)
    settings = load(MosquittoSettings, "mosquitto", file=arguments.config, flags=flags)
    sys.stdout.write(mosquitto_configuration(settings))
    return 0


def _run_kafka(arguments: argparse.Namespace) -> int:
    from .kafka.cluster import run

    settings = load(KafkaSettings, "kafka", file=arguments.config, flags=flags_from(arguments, KafkaSettings))
    return run(arguments.dir, arguments.run_dir, settings)


def _fetch_kafka(_: argparse.Namespace) -> int:
    from .kafka.jars import fetch_jars

    sys.stdout.write(f"{fetch_jars()}\n")
    return 0
