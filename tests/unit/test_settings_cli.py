"""`edgewater settings`: the sample file loads, and the page in docs/ is what the parts declare."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from edge_agent.cli import main
from edge_agent.contract.sections import SECTIONS
from edge_agent.contract.settings import load
from edge_agent.settings_cli import declaration, page

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_the_page_is_current() -> None:
    """What was added, changed or removed is on the page (`edgewater settings --markdown > docs/settings.md`)."""
    assert PAGE.read_text("utf-8") == page()


@pytest.mark.parametrize("section", SECTIONS)
def test_the_sample_loads_as_the_defaults(
    section: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Printed, uncommented and read again, it says what is the default anyway."""
    assert main(["settings", section]) == 0
    text = re.sub(r"^# (\w+ = )", r"\1", capsys.readouterr().out, flags=re.MULTILINE)
    cls = declaration(section)
    assert set(tomllib.loads(text)[section]) == set(cls.__dataclass_fields__)
    file = tmp_path / "edgewater.toml"
    file.write_text(text)
    assert load(cls, section, file=file, environment={}) == cls()


def test_all_sections_are_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a section every one is printed, and the whole is TOML."""
    assert main(["settings"]) == 0
    assert list(tomllib.loads(capsys.readouterr().out)) == list(SECTIONS)
