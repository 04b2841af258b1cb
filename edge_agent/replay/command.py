"""`edgewater agent replay`: the options, what is printed, and the exit status.

**Delivery**: status 0 when everything is durable in the log; 1 for an error, and 130 after Ctrl-C: then what was
accepted is in the spool, and the same command goes on. **Bounds**: see `run.py`.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.agent_settings import AgentSettings, checked, default_device
from edge_agent.contract.clock import SystemClock
from edge_agent.contract.errors import RejectError, SettingsError, StopError, quoted
from edge_agent.contract.names import check_device
from edge_agent.contract.settings import load

if TYPE_CHECKING:
    from .run import Replay, ReplayOptions

__all__ = ["add_replay_command"]

_FORMATS = ("csv", "jsonl", "parquet")
_TIME_UNITS = ("auto", "s", "ms", "us", "ns")
_INTERRUPTED = 130
_TIMEOUT_MAX_S = 86_400.0
_EXAMPLES = """examples:
  edgewater agent replay readings.csv --device pump-7 --time time --mqtt mqtt://127.0.0.1:1883
  edgewater agent replay fleet.parquet --device-column machine --time ts --columns temperature,pressure
  edgewater agent replay day.jsonl --device pump-7 --time at --timezone Europe/Berlin --speed 60
"""


def state_directory() -> Path:
    """Where positions and what waits are kept, for this user."""
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()) / "edgewater" / "replay"


def add_replay_command(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `replay`."""
    parser = verbs.add_parser(
        "replay",
        help="send a file as readings of a device",
        description="Send a CSV, JSON lines or Parquet file as readings: every other column of numbers is a reading's "
        "name. Returns when all of it is durable in the log. Interrupted or killed, the same command goes on where it "
        "was; a file that was sent is not sent again without --again.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", metavar="FILE", help="the file; its format is that of its suffix (.csv, .jsonl, .ndjson, .parquet)")
    add("--device", default=None, metavar="NAME", help="whose readings these are")
    add("--time", required=True, metavar="COLUMN", help="the column with the rows' times")
    add("--device-column", default="", metavar="COLUMN", help="the column that names each row's device")
    add("--columns", default="", metavar="A,B", help="the columns to send (default: those of numbers)")
    add("--mqtt", dest="mqtt_urls", default=None, metavar="URL", help="the broker (default: the agent's setting)")
    add("--speed", default="max", metavar="N|max", help="N times as fast as it was recorded (default: max)")
    add("--again", action="store_true", help="send a file again that was sent before")
    add("--timezone", default="UTC", metavar="NAME", help="of times without a zone, as Europe/Berlin (default: UTC)")
    add("--time-unit", default="auto", choices=_TIME_UNITS, help="of times that are numbers (default: by magnitude)")
    add("--format", default="", choices=_FORMATS, help="the file's format, whatever its suffix")
    add("--delimiter", default="", metavar="CHAR", help="between a CSV's cells (default: the one that fits its header)")
    add("--dir", type=Path, default=None, metavar="DIR",
        help="folder of positions and spools (default: edgewater/replay in the user's state folder)")  # fmt: skip
    add("--timeout-s", default="30", metavar="S", help="give up after so long without progress (default: 30)")
    add("--mqtt-version", default=None, metavar="V", help="MQTT protocol version: 3.1.1 (default) or 5")
    add("--config", type=Path, default=None, metavar="FILE.toml", help="settings file, section [agent]")
    parser.set_defaults(run=_run)


def _speed(text: str) -> float:
    if text.lower() == "max":
        return math.inf
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise SettingsError(f"--speed is {quoted(text)}; give a number above 0 (2 is twice as fast), or max")
    return speed


def _timeout_s(text: str) -> float:
    try:
        timeout_s = float(text)
    except ValueError:
        timeout_s = math.nan
    if not 0 < timeout_s <= _TIMEOUT_MAX_S:
        raise SettingsError(f"--timeout-s is {quoted(text)}; give seconds above 0, at most {_TIMEOUT_MAX_S:g}")
    return timeout_s


def _device(arguments: argparse.Namespace, settings: AgentSettings) -> str:
    if arguments.device is None and not settings.device and not arguments.device_column:
        raise SettingsError("whose readings are these? Give --device NAME, or --device-column COLUMN")
    try:
        name = settings.device or default_device() if arguments.device is None else arguments.device
        return check_device(name)
    except RejectError as error:
        raise SettingsError(f"--device: {error}") from None


def _run(arguments: argparse.Namespace) -> int:
    flags = {"mqtt_urls": arguments.mqtt_urls, "mqtt_version": arguments.mqtt_version}
    settings = load(AgentSettings, "agent", file=arguments.config, flags=flags)
    checked(settings)
    from .run import Replay, ReplayOptions

    columns = tuple(name.strip() for name in arguments.columns.split(",") if name.strip())
    options = ReplayOptions(
        file=arguments.file, device=_device(arguments, settings), time=arguments.time,
        device_column=arguments.device_column, columns=columns, format=arguments.format,
        delimiter=arguments.delimiter, time_unit=arguments.time_unit, timezone=arguments.timezone,
        speed=_speed(arguments.speed), again=arguments.again, directory=arguments.dir or state_directory(),
        timeout_s=_timeout_s(arguments.timeout_s),
    )  # fmt: skip
    if options.device_column == options.time:
        raise StopError(f"--time and --device-column both name {quoted(options.time)}; give each its own column")
    # The progress line says what a replay needs to say.
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        logging.getLogger("edgewater.agent").setLevel(logging.ERROR)
    replay = Replay(options, settings, SystemClock())
    try:
        replay.run()
    except KeyboardInterrupt:
        _leave(f"interrupted after {replay.result.rows:,} rows; the same command goes on from there")
    print(_summary(replay, options))
    return 0


def _leave(text: str) -> None:
    """End at once: what was accepted is synced, and threads that wait for a network need not be waited for."""
    print(f"edgewater: {text}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(_INTERRUPTED)


def _summary(replay: Replay, options: ReplayOptions) -> str:
    result, seconds = replay.result, replay.progress.seconds
    name = Path(options.file).name
    whose = f"{result.devices} devices" if options.device_column else f"device {options.device}"
    if result.found_sent and not (result.rows or result.dead_letters):
        text = f"{name} was sent before, for {whose}; nothing is new in it (--again sends it once more)"
        if result.batches_waited:
            text += f"; {result.batches_waited:,} batches that waited from then are durable in the log now"
        return text
    letters = "1 dead letter" if result.dead_letters == 1 else f"{result.dead_letters:,} dead letters"
    text = (
        f"replayed {name} for {whose}: {result.rows:,} rows, {result.readings:,} readings, {letters}, "
        f"durable in the log after {seconds:.1f} s"
    )
    if result.found_sent:
        text += "; the rows before them were sent by an earlier run"
    return text
