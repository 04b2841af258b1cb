"""Settings from default, file, environment and command line, and the errors that help."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.contract.errors import SettingsError
from edge_agent.contract.settings import add_options, flags_from, load, sample, setting


@dataclass(frozen=True, kw_only=True)
class Example:
    """Settings of nothing."""

    url: str = setting("mqtt://x", help="where to connect")
    in_flight_max: int = setting(10, help="appends under way", minimum=1, maximum=100)
    strict: bool = setting(False, help="refuse")
    policy: str = setting("reject", help="what to do when full", choices=("reject", "drop"))
    folder: Path = setting(Path("x"), help="where")


def test_the_later_source_wins(tmp_path: Path) -> None:
    """default < file < environment < command line."""
    file = tmp_path / "edgewater.toml"
    file.write_text("[example]\nurl = 'file'\nin_flight_max = 20\nstrict = true\n[other]\nz = 1\n")
    environment = {"EDGEWATER_EXAMPLE__IN_FLIGHT_MAX": "30", "EDGEWATER_EXAMPLE__URL": "environment"}
    found = load(Example, "example", file=file, environment=environment, flags={"url": "flag", "policy": None})
    assert (found.url, found.in_flight_max, found.strict, found.policy) == ("flag", 30, True, "reject")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"in_flight_max": "0"}, "--in-flight-max is 0; the least allowed is 1"),
        ({"in_flight_max": "101"}, "the most allowed is 100"),
        ({"in_flight_max": "ten"}, "use a whole number"),
        ({"strict": "maybe"}, "use true or false"),
        ({"policy": "explode"}, "use one of reject, drop"),
    ],
)
def test_a_wrong_value_names_option_value_and_what_is_allowed(flags: dict[str, object], message: str) -> None:
    """Each message says where, what, and what to use instead."""
    with pytest.raises(SettingsError, match=message):
        load(Example, "example", environment={}, flags=flags)


def test_a_mistyped_name_gets_the_nearest_one(tmp_path: Path) -> None:
    """In the file with its section, in the environment with its variable."""
    file = tmp_path / "e.toml"
    file.write_text("[example]\nin_flight_mx = 3\n")
    with pytest.raises(SettingsError, match=r"\[example\].*in_flight_mx.*did you mean in_flight_max"):
        load(Example, "example", file=file, environment={})
    with pytest.raises(SettingsError, match="EDGEWATER_EXAMPLE__ULR"):
        load(Example, "example", environment={"EDGEWATER_EXAMPLE__ULR": "x"})


@pytest.mark.parametrize("content", [b"not toml at all [", b"\xff\xfe", b"example = 3"])
def test_a_file_that_is_no_settings_file_is_named(tmp_path: Path, content: bytes) -> None:
    """Broken TOML, another encoding, a value where a table belongs."""
    file = tmp_path / "e.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"e\.toml"):
        load(Example, "example", file=file, environment={})
    with pytest.raises(SettingsError, match="does not exist"):
        load(Example, "example", file=tmp_path / "none.toml", environment={})


def test_options_and_the_sample_file_come_from_the_declaration(tmp_path: Path) -> None:
    """Every declared setting is an option, and the sample file loads back as the defaults."""
    parser = argparse.ArgumentParser()
    add_options(parser, Example)
    arguments = parser.parse_args(["--in-flight-max", "7"])
    assert load(Example, "example", environment={}, flags=flags_from(arguments, Example)).in_flight_max == 7
    file = tmp_path / "sample.toml"
    file.write_text(sample(Example, "example").replace("# url", "url").replace("# strict", "strict"))
    assert load(Example, "example", file=file, environment={}) == Example()
