"""The `[[mappings]]` tables: what is wrong is said with its line, its value and the next step."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.contract.errors import SettingsError
from stream_jobs import arrow_columns
from stream_jobs.mapping.declared import KEYS, PROVENANCE, load_mappings, read_mappings

HEAD = '# a comment\n\n[[mappings]]\nname = "first"\npreset = "number"\n\n[[mappings]]\n'


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ('preset = "number"', 7, "no name"),
        ('name = "a b"\npreset = "number"', 8, "name is 'a b'"),
        ('name = "first"\npreset = "number"', 8, "taken by the mapping at m.toml:3"),
        ('name = "a"\npresett = "number"', 9, "did you mean preset?"),
        ('name = "a"\npreset = "zigbeemqtt"', 9, "did you mean zigbee2mqtt?"),
        ('name = "a"\ndevice = "{1}"', 7, "no topic"),
        ('name = "a"\ntopic = "x/+"', 7, "no device"),
        ('name = "a"\ntopic = "x/+y"\ndevice = "{1}"', 9, "whole levels"),
        ('name = "a"\ntopic = "#/x"\ndevice = "{1}"', 9, "only as the last level"),
        ('name = "a"\ntopic = "x"\ndevice = "{one}"', 10, "{one} is not {1}"),
        ('name = "a"\ntopic = "x"\ndevice = "{1"', 10, "without its partner"),
        ('name = "a"\ntopic = "x"\ndevice = 1', 10, "write text in quotes"),
        ('name = "a"\npreset = "number"\nfields = "x"', 10, "write a list"),
        ('name = "a"\npreset = "number"\nvalues = { ON = "1" }', 10, "write a number"),
        ('name = "a"\npreset = "number"\n[mappings.values]\nON = true\nx = []', 12, "x is []"),
        ('name = "a"\npreset = "number"\ntimezone = "Europe/Wien"', 10, "no timezone 'Europe/Wien'"),
        ('name = "a"\npreset = "number"\nstream = "1a"', 10, "stream name '1a'"),
        ('name = "a"\npreset = "number"\nstream = "events"', 10, "needs columns"),
        ('name = "a"\npreset = "number"\ncolumns = { a = "int64" }', 10, "stream of your own"),
        ('name = "a"\npreset = "number"\nstream = "e"\n[mappings.columns]\na = "int65"', 12, "did you mean int64?"),
        ('name = "a"\npreset = "number"\nstream = "e"\n[mappings.columns]\nts = "int64"', 12, "ts is there by itself"),
        (
            'name = "a"\npreset = "number"\nstream = "e"\n[mappings.columns]\nrow = "int64"',
            12,
            "row is there by itself",
        ),
        ('name = "a"\npreset = "number"\nstream = "e"\n[mappings.columns]\nb = { typ = "bool" }', 12, "write b ="),
        ('name = "a"\npreset = "number"\nignore_topics = ["a/#/#"]', 10, "only one #"),
    ],
)
def test_each_mistake_is_named_with_its_line(lines: str, line: int, words: str) -> None:
    """File, line, value, and what to write."""
    with pytest.raises(SettingsError) as caught:
        read_mappings(Path("m.toml"), HEAD + lines)
    assert str(caught.value).startswith(f"m.toml:{line}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[mapping]]\nname = 1", "did you mean [[mappings]] by [[mapping]]?"),
        ("", "no [[mappings]] table"),
        ("[mappings]\nname = 1", "write one [[mappings]] table"),
        ("[[mappings", "is not TOML"),
    ],
)
def test_a_file_without_mappings_says_so(text: str, words: str) -> None:
    """A near miss is recognised."""
    with pytest.raises(SettingsError, match=r"m\.toml") as caught:
        read_mappings(Path("m.toml"), text)
    assert words in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_says_so(tmp_path: Path) -> None:
    """Also a directory, and bytes that are no text."""
    with pytest.raises(SettingsError, match="does not exist"):
        load_mappings(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_mappings(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\x00")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_mappings(tmp_path / "binary.toml")


def test_a_table_adds_to_its_preset() -> None:
    """Values, names, ignored fields and topics are added; time and device replace."""
    text = (
        '[[mappings]]\nname = "a"\npreset = "zigbee2mqtt"\nignore = ["linkquality"]\nvalues = { single = 7 }\n'
        'ignore_topics = ["zigbee2mqtt/test/#"]\n'
    )
    (mapping,) = read_mappings(Path("m.toml"), text)
    rule = mapping.rule_for("zigbee2mqtt/lamp")
    assert rule is not None
    assert {"linkquality", "update"} <= set(rule.ignore)
    assert rule.values["single"] == 7
    assert rule.values["ON"] == 1
    assert mapping.rule_for("zigbee2mqtt/test/x") is None
    assert mapping.rule_for("zigbee2mqtt/bridge/log") is None
    assert mapping.function == "mapping.a"


def test_every_key_is_explained() -> None:
    """`edgewater mapping presets` prints a sentence for each."""
    assert all(len(text) > 10 for _, text in KEYS.values())


def test_the_columns_of_every_table_are_those_of_the_worker() -> None:
    """The two lists are one."""
    assert PROVENANCE == arrow_columns.PROVENANCE
