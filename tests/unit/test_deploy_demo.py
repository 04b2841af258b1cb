"""The demo's small parts: names, display."""

from __future__ import annotations

import io

import pytest

from deploy.demo import device_name
from deploy.display import Display, Progress
from edge_agent.contract.names import check_device


@pytest.mark.parametrize("host", ["raspberrypi", "my host", "ünïcode", "", "a" * 300, "..", "local.lan"])
def test_any_host_name_becomes_a_device_name(host: str) -> None:
    """Whatever a machine is called, the demo runs on it."""
    check_device(device_name(host))


def test_without_a_terminal_the_display_prints_plain_lines() -> None:
    """No control characters, and not a line for each of many updates."""
    out = io.StringIO()
    display = Display(out)
    for n in range(50):
        display.show(Progress(n, n, n, n, 0.5, 1.5))
    display.show(Progress(60, 60, 60, 60, None, None, "done"), final=True)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert "\x1b" not in out.getvalue()
    assert "accepted 60" in lines[1]
    assert lines[1].endswith("done")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_terminal_the_lines_are_drawn_in_place_and_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second drawing moves the cursor up over the first; NO_COLOR leaves out colours."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    out = _Terminal()
    display = Display(out)
    display.show(Progress(10, 10, 5, 5, 0.5, 1.5))
    display.show(Progress(20, 20, 15, 10, 0.5, 1.5))
    text = out.getvalue()
    assert "\x1b[6A" in text
    assert "\x1b[32m" not in text
