"""Settings from default, file, environment and command line, and the errors that help."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.contract.errors import SettingsError, redacted
from edge_agent.contract.settings import add_options, flags_from, load, sample, setting


@dataclass(frozen=True, kw_only=True)
class Example:
    """Settings of nothing."""

    url: str = setting("mqtt://x", help="where to connect")
    in_flight_max: int = setting(10, help="appends under way", minimum=1, maximum=100)
    strict: bool = setting(False, help="refuse")
    policy: str = setting("reject", help="what to do when full", choices=("reject", "drop"))
    folder: Path = setting(Path("x"), help="where")
    spool_bytes_max: int = setting(1024, help="bytes", minimum=1)
    stall_s: float = setting(1.0, help="time", minimum=0, maximum=1e9)


def test_the_later_source_wins(tmp_path: Path) -> None:
    """default < file < environment < command line."""
    file = tmp_path / "edgewater.toml"
    file.write_text("[example]\nurl = 'file'\nin_flight_max = 20\nstrict = true\n[log]\nz = 1\n")
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
        ({"stall_s": "nan"}, "use a number"),
        ({"stall_s": "inf"}, "use a number"),
        ({"stall_s": "3 parsecs"}, r"one with a unit \(ms, s, min, h, d\)"),
        ({"spool_bytes_max": "0.3B"}, "use a whole number"),
        ({"spool_bytes_max": "9" * 5000}, "use a whole number"),
        ({"spool_bytes_max": "10s"}, r"KiB, MiB, GiB"),
        ({"in_flight_max": "5MiB"}, "'5MiB'; use a whole number$"),
        ({"in_flight_max": 1.5}, "is 1.5; use a whole number"),
        ({"in_flight_max": True}, "use a number"),
        ({"url": 3}, "use text in quotes"),
        ({"folder": ["x"]}, "use text in quotes"),
        ({"folder": "a\0b"}, "zero byte"),
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
    with pytest.raises(SettingsError, match=r"e\.toml:2 \[example\]: .*in_flight_mx.*did you mean in_flight_max"):
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


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("spool_bytes_max", "256MiB", 256 << 20),
        ("spool_bytes_max", "1.5 KiB", 1536),
        ("spool_bytes_max", "2kB", 2000),
        ("spool_bytes_max", "4_096", 4096),
        ("stall_s", "1500ms", 1.5),
        ("stall_s", "10s", 10.0),
        ("stall_s", "2min", 120.0),
        ("stall_s", "1e-3", 0.001),
        ("stall_s", "1.5h", 5400.0),
    ],
)
def test_a_number_may_carry_a_unit_that_its_name_counts(name: str, text: str, value: float) -> None:
    """Bytes and times are read with the units people write; without one the number is in the setting's own unit."""
    found = getattr(load(Example, "example", environment={}, flags={name: text}), name)
    assert found == value
    assert type(found) is type(value)


def error_of(tmp_path: Path, content: str) -> str:
    """What loading a file with this content says, without the folder."""
    file = tmp_path / "edgewater.toml"
    file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        load(Example, "example", file=file, environment={})
    return str(caught.value).replace(f"{tmp_path}{os.sep}", "")


OUTSIDE = "there is no setting outside of sections"
WRITE = "write name = value, text in quotes"
ONCE = "a name may stand once in a section, and a section once in a file"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[example]\n\n\nin_flight_max = 'x'\n", "edgewater.toml:4 [example] in_flight_max is 'x'; use a whole number"),
        ("[example]\nin_flight_max = 0\n", "edgewater.toml:2 [example] in_flight_max is 0; the least allowed is 1"),
        ("# in_flight_max = 0\n[log]\nin_flight_max = 0\n[example]\nin_flight_max = 0\n",
         "edgewater.toml:5 [example] in_flight_max is 0; the least allowed is 1"),
        ('[example]\nurl = """\nstrict = 3\n"""\nstrict = 3\n',
         "edgewater.toml:5 [example] strict is 3; use true or false"),
        ("example.in_flight_max = 0\n", "edgewater.toml:1 [example] in_flight_max is 0; the least allowed is 1"),
        ("example = {\"strict\" = 3}\n", "edgewater.toml:1 [example] strict is 3; use true or false"),
        ("[exmaple]\nx = 1\n", "edgewater.toml:1: there is no section 'exmaple'; did you mean example?"),
        ("[example]\n[agnet]\nx = 1\n", "edgewater.toml:2: there is no section 'agnet'; did you mean agent?"),
        ("\n[[brige]]\nx = 1\n", "edgewater.toml:2: there is no section 'brige'; did you mean bridge?"),
        ("in_flight_max = 3\n", f"edgewater.toml:1: {OUTSIDE} 'in_flight_max'; write it below [example]"),
        ("[example]\nurl = mqtt://x\n", f"edgewater.toml:2: this is not TOML: Invalid value; {WRITE}"),
        ("[example]\nurl = 'x'\nurl = 'y'\n", f"edgewater.toml:3: this is not TOML: Cannot overwrite a value; {ONCE}"),
        ("[example]\nurl = 'x", f"edgewater.toml:2: this is not TOML: Expected \"'\"; {WRITE}"),
        ("[example]\nurl = [\n1,\n", f"edgewater.toml:3: this is not TOML: Invalid value; {WRITE}"),
        ("\n\nexample = 3", "edgewater.toml:3: example is 3; write a table [example]"),
    ],
)  # fmt: skip
def test_an_error_in_the_file_has_its_line(tmp_path: Path, content: str, message: str) -> None:
    """Wrong names, types, bounds and TOML, each with file and line, the value, and what to write."""
    assert error_of(tmp_path, content) == message


def test_what_cannot_be_read_as_a_settings_file(tmp_path: Path) -> None:
    """A directory, a file without rights or of another encoding, one nested too deeply: each is named."""
    with pytest.raises(SettingsError, match="is a directory; give the file in it"):
        load(Example, "example", file=tmp_path, environment={})
    file = tmp_path / "e.toml"
    file.write_bytes(b"[example]\nurl = 'ok'\n# \xe4\n")
    with pytest.raises(SettingsError, match=r"e\.toml:3: this is not UTF-8"):
        load(Example, "example", file=file, environment={})
    file.write_text("x = " + "[" * 100_000)
    with pytest.raises(SettingsError, match="nested too deeply"):
        load(Example, "example", file=file, environment={})
    file.write_bytes(b"\xef\xbb\xbf[example]\r\nurl = 'windows'\r\n")
    assert load(Example, "example", file=file, environment={}).url == "windows"


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("EDGEWATER_EXMAPLE__URL", "there is no section 'exmaple'; did you mean example?"),
        ("EDGEWATER_WOKRER__LAKE", "there is no section 'wokrer'; did you mean worker?"),
        ("EDGEWATER_EXAMPLE__STRIKT", "there is no setting 'strikt'; did you mean strict?"),
        ("EDGEWATER_EXAMPLE_URL", "sets nothing; did you mean EDGEWATER_EXAMPLE__URL?"),
    ],
)
def test_a_mistyped_variable(variable: str, message: str) -> None:
    """The name, what is wrong with it, and the nearest right one."""
    with pytest.raises(SettingsError) as caught:
        load(Example, "example", environment={variable: "x"})
    assert variable in str(caught.value)
    assert message in str(caught.value)


def test_other_variables_are_left_alone() -> None:
    """Those of other sections, and Edgewater's own that are no settings."""
    environment = {"EDGEWATER_LOG__PORT": "x", "EDGEWATER_CRASH_POINT": "a", "EDGEWATER_CACHE_DIR": "c", "PATH": "p"}
    assert load(Example, "example", environment=environment) == Example()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("mqtt://me:secret@host:1883", "mqtt://***@host:1883"),
        ("mqtt://me:se/cr,et@@host", "mqtt://***@host"),
        ("mqtt://a:secret@b,mqtts://c:secret@d;weight=2", "mqtt://***@b,mqtts://***@d;weight=2"),
        ("me:secret@host", "***@host"),
        ("mqtt://host", "mqtt://host"),
        ("mqtt://host:1883", "mqtt://host:1883"),
        ("mqtt://host:1883/topic", "mqtt://host:1883/topic"),
        ("mqtt://[::1]:5,mqtt://b:6;weight=2", "mqtt://[::1]:5,mqtt://b:6;weight=2"),
        ("mqtt://me:secret", "mqtt://me:***"),
        ("mqtt://me:1secret", "mqtt://me:***"),
    ],
)
def test_no_password_is_shown(url: str, shown: str, tmp_path: Path) -> None:
    """URLs lose user and password before a person or a log sees them, also where they stand in the wrong place."""
    assert redacted(url) == shown
    for flags in ({"in_flight_max": url}, {"strict": url}, {"policy": url}):
        with pytest.raises(SettingsError) as caught:
            load(Example, "example", environment={}, flags=flags)
        assert "secret" not in str(caught.value) or "://" not in url
    assert "secret" not in error_of(tmp_path, f"[example]\nstrict = ['mqtt://me:secret@{'x' * 300}']\n")
