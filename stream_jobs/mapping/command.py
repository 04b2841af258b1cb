"""`edgewater mapping run|check|presets`: options, signals, exit status.

**Delivery**: `run`: exit status 0 after SIGTERM or SIGINT, 1 where a person has to act. `check` starts nothing: exit
status 0 when the settings are right (and the message becomes rows or is passed over), 1 when not.
**Bounds**: `run` ends within `stop_timeout_s` and the log's timeout.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import signal
import sys
import time
from pathlib import Path

from edge_agent.contract.errors import DecodeError, SettingsError
from edge_agent.contract.settings import add_options, flags_from, load
from edge_agent.contract.streams import READINGS

from .declared import KEYS, load_mappings
from .decode import Decoder, Item
from .presets import PRESETS
from .rules import Mapping
from .settings import MappingSettings
from .topics import matches

__all__ = ["add_commands"]

_RUN_EXAMPLES = """examples:
  edgewater mapping run --config edgewater.toml
  edgewater mapping run --config edgewater.toml --mqtt-url mqtt://broker:1883 --bootstrap-servers log:9092
"""
_CHECK_EXAMPLES = """examples:
  edgewater mapping check --config edgewater.toml
  edgewater mapping check --config edgewater.toml --topic zigbee2mqtt/kitchen --payload '{"temperature": 21.5}'
  mosquitto_sub -t tele/plug/SENSOR -C 1 | edgewater mapping check --config edgewater.toml --topic tele/plug/SENSOR
"""


def add_commands(parser: argparse.ArgumentParser) -> None:
    """`edgewater mapping ...`."""
    commands = parser.add_subparsers(dest="mapping_command", metavar="COMMAND", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    run_help = "run the mappings: messages of foreign devices into the log"
    run = commands.add_parser("run", help=run_help, description=run_help, epilog=_RUN_EXAMPLES, formatter_class=raw)
    _add_config(run)
    add_options(run, MappingSettings)
    run.set_defaults(run=_run)
    check_help = "check the settings, and show the rows that a message becomes"
    check = commands.add_parser(
        "check", help=check_help, description=check_help, epilog=_CHECK_EXAMPLES, formatter_class=raw
    )
    _add_config(check)
    check.add_argument("--topic", help="the topic of a message")
    check.add_argument("--payload", help="its payload (default: standard input)")
    check.add_argument("--json", action="store_true", help="rows as JSON, one a line")
    check.set_defaults(run=_check)
    presets_help = "show the ready mappings, and the keys of a [[mappings]] table"
    presets = commands.add_parser(
        "presets",
        help=presets_help,
        description=presets_help,
        epilog="examples:\n  edgewater mapping presets\n",
        formatter_class=raw,
    )
    presets.set_defaults(run=_presets)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE.toml", help="file with [[mappings]] tables")


def _run(arguments: argparse.Namespace) -> int:
    from .service import MappingService

    mappings = load_mappings(arguments.config)
    settings = load(MappingSettings, "mapping", file=arguments.config, flags=flags_from(arguments, MappingSettings))
    service = MappingService(settings, mappings)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    service.run()
    return 0


def _check(arguments: argparse.Namespace) -> int:
    mappings = load_mappings(arguments.config)
    settings = load(MappingSettings, "mapping", file=arguments.config)
    if arguments.topic is None:
        if arguments.payload is not None:
            raise SettingsError("--payload needs its --topic, since the topic says which mapping takes it")
        for mapping in mappings:
            preset = f", preset {mapping.preset}" if mapping.preset else ""
            print(f"{mapping.name}: {mapping.topic} -> {mapping.stream}{preset} ({mapping.place})")
        return 0
    payload = sys.stdin.buffer.read() if arguments.payload is None else arguments.payload.encode()
    # A shell adds the end of the line, a device does not.
    payload = payload.removesuffix(b"\n")
    taking = [mapping for mapping in mappings if matches(mapping.topic, arguments.topic)]
    if not taking:
        known = ", ".join(f"{mapping.name} ({mapping.topic})" for mapping in mappings)
        raise SettingsError(f"no mapping takes the topic {arguments.topic}; there are {known}")
    status = 0
    for mapping in taking:
        status = max(status, _show(mapping, arguments.topic, payload, settings.payload_bytes_max, arguments.json))
    return status


def _show(mapping: Mapping, topic: str, payload: bytes, payload_bytes_max: int, as_json: bool) -> int:
    try:
        items = Decoder(mapping, payload_bytes_max).decode(topic, payload, time.time_ns() // 1000)
    except DecodeError as error:
        print(f"mapping {mapping.name}: a dead letter, {error}", file=sys.stderr)
        return 1
    rows = [row for item in items for row in _rows(mapping, item)]
    if as_json:
        for row in rows:
            print(json.dumps({"stream": mapping.stream, **row}, ensure_ascii=False))
        return 0
    if not rows:
        why = "it passes over this topic" if mapping.rule_for(topic) is None else "nothing in the message is mapped"
        print(f"mapping {mapping.name}: no rows, {why}")
        return 0
    print(f"mapping {mapping.name}: {len(rows)} row{'s' * (len(rows) > 1)} of stream {mapping.stream}")
    _table([{name: "" if value is None else str(value) for name, value in row.items()} for row in rows])
    if any(item.time_received for item in items):
        print("ts is the time of receipt: the message has no time that can be read")
    return 0


def _rows(mapping: Mapping, item: Item) -> list[dict[str, object]]:
    common: dict[str, object] = {"device": item.device, "ts": _iso(item.time_us)}
    if mapping.stream == READINGS:
        return [{**common, "name": name, "value": value} for name, value in item.readings.items()]
    columns = mapping.rules[0].columns
    cells = zip(columns, item.row, strict=True)
    return [
        {
            **common,
            **{c.name: _iso(v) if c.type == "timestamp" and isinstance(v, int) else v for c, v in cells},
        }
    ]


def _iso(time_us: int) -> str:
    # Not fromtimestamp(time_us / 1e6), which rounds microseconds away.
    return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=time_us)).isoformat()


def _table(rows: list[dict[str, str]]) -> None:
    names = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
    for cells in (names, *([row[name] for name in names] for row in rows)):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


def _presets(_arguments: argparse.Namespace) -> int:
    print("ready mappings (preset = ...):")
    for name, preset in PRESETS.items():
        print(f"  {name:<12} topic {preset.topic:<14} device {preset.device:<6} {preset.help}")
    print("\nkeys of a [[mappings]] table:")
    for name, (kind, help_text) in KEYS.items():
        print(f"  {name:<14} {kind:<6} {help_text}")
    return 0
