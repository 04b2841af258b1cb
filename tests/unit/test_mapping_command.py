"""`edgewater mapping check` and `presets`: what a message becomes, shown without starting anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_agent.cli import main

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
[[mappings]]
name = "zigbee"
preset = "zigbee2mqtt"

[[mappings]]
name = "buttons"
preset = "zigbee2mqtt"
stream = "buttons"
columns = { action = "string", at = { type = "timestamp", field = "last_seen" } }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A settings file with two mappings of one topic."""
    path = tmp_path / "edgewater.toml"
    path.write_text(CONFIG)
    return path


def test_check_shows_the_rows_of_each_mapping(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both mappings of the topic, in a table, with a word about the time of receipt."""
    payload = '{"temperature":21.5,"action":"single"}'
    assert main(["mapping", "check", "--config", str(config), "--topic", "zigbee2mqtt/a", "--payload", payload]) == 0
    out = capsys.readouterr().out
    assert "mapping zigbee: 1 row of stream readings" in out
    assert "temperature  21.5" in out
    assert "mapping buttons: 1 row of stream buttons" in out
    assert "ts is the time of receipt" in out


def test_check_shows_rows_as_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, times in ISO 8601 to the microsecond."""
    payload = '{"action":"single","last_seen":"2026-01-02T03:04:05.000006Z"}'
    arguments = ["--config", str(config), "--topic", "zigbee2mqtt/a", "--payload", payload, "--json"]
    assert main(["mapping", "check", *arguments]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {
            "stream": "buttons", "device": "a", "ts": "2026-01-02T03:04:05.000006+00:00", "action": "single",
            "at": "2026-01-02T03:04:05.000006+00:00",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("topic", "payload", "status", "words"),
    [
        ("zigbee2mqtt/a", "{", 1, "a dead letter, payload is neither JSON"),
        ("zigbee2mqtt/bridge/state", "{}", 0, "passes over this topic"),
        ("zigbee2mqtt/a", '{"x":"y"}', 0, "nothing in the message is mapped"),
        ("tele/a", "{}", 1, "no mapping takes the topic tele/a; there are zigbee (zigbee2mqtt/#)"),
    ],
)
def test_check_says_why_there_are_no_rows(
    config: Path, capsys: pytest.CaptureFixture[str], topic: str, payload: str, status: int, words: str
) -> None:
    """A dead letter and a topic that nobody takes fail; what is passed over does not."""
    arguments = ["--config", str(config), "--topic", topic, "--payload", payload]
    assert main(["mapping", "check", *arguments]) == status
    captured = capsys.readouterr()
    assert words in captured.out + captured.err


def test_check_names_the_line_of_a_mistake(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File, line and the nearest name, without a traceback; a payload without topic is refused."""
    assert main(["mapping", "check", "--config", str(config), "--payload", "1"]) == 1
    assert "--payload needs its --topic" in capsys.readouterr().err
    config.write_text(CONFIG.replace('"zigbee"\npreset', '"zigbee"\npresset'))
    assert main(["mapping", "run", "--config", str(config)]) == 1
    assert capsys.readouterr().err == f"edgewater: {config}:4: there is no key 'presset'; did you mean preset?\n"


def test_the_example_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    """examples/zigbee.toml has four mappings, each of which is read."""
    config = ROOT / "examples" / "zigbee.toml"
    assert main(["mapping", "check", "--config", str(config)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    payload = '{"at":1767319445,"water":{"temperature":60.5},"pump":"running","other":1}'
    arguments = ["--config", str(config), "--topic", "plant/7/state", "--payload", payload, "--json"]
    assert main(["mapping", "check", *arguments]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["device"], row["name"], row["value"]) for row in rows] == [
        ("boiler-7", "temperature", 60.5),
        ("boiler-7", "pump", 1.0),
    ]


def test_presets_explains_every_preset_and_key(capsys: pytest.CaptureFixture[str]) -> None:
    """The ready mappings, then the keys."""
    assert main(["mapping", "presets"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("zigbee2mqtt/#", "tele/#", "sensors/+/+", "ignore_topics", "timezone"))


def test_a_wrong_broker_url_or_setting_is_one_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was written, and what to write."""
    assert main(["mapping", "run", "--config", str(config), "--mqtt-url", "http://x"]) == 1
    assert "mqtt_url is 'http://x'; write mqtt(s)://" in capsys.readouterr().err
    config.write_text(CONFIG + "[mapping]\nflush_interval = 1\n")
    assert main(["mapping", "run", "--config", str(config)]) == 1
    assert "did you mean flush_interval_s?" in capsys.readouterr().err
