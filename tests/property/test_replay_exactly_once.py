"""Whatever is in the file, however it grows and whenever the replay dies: each row is in the spools once, in order."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.replay import run as run_module
from edge_agent.replay import unit
from tests.kit.replay_world import Died, Reading, Site

ROWS = st.lists(
    st.one_of(
        st.tuples(
            st.integers(0, 5), st.sampled_from(["p", "q", "r"]), st.integers(0, 9), st.sampled_from(["", "1", "2.5"])
        ),
        st.sampled_from(["bad", 'x,"', "", "1,p,x,1", "1,a/b,1,1", ",p,1,1"]),
    ),
    min_size=1,
    max_size=30,
)
DEATHS = st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=3)


@pytest.fixture(autouse=True, scope="module")
def small_units() -> Iterator[None]:
    """Few readings a unit, few devices at once: many transactions and passes in a small file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit, "READINGS_FULL", 4)
        patch.setattr(unit, "LETTERS_FULL", 2)
        patch.setattr(run_module, "LANES_MAX", 3)
        yield


def text_of(rows: list[object]) -> list[str]:
    """A CSV's lines; a tuple is a row that can be read."""
    return [",".join(map(str, row)) if isinstance(row, tuple) else str(row) for row in rows]


def expected(rows: list[object], with_device: bool) -> tuple[list[Reading], int]:
    """The readings in the order of the file, and how many rows cannot be read."""
    readings: list[Reading] = []
    bad = 0
    for row in rows:
        if isinstance(row, tuple):
            t, device, a, b = row
            whose = device if with_device else "home"
            readings += [(whose, t * 1_000_000, name, float(v)) for name, v in (("a", a), ("b", b)) if v != ""]
        elif row == "1,a/b,1,1" and not with_device:
            readings += [("home", 1_000_000, "a", 1.0), ("home", 1_000_000, "b", 1.0)]
        elif row != "":
            bad += 1
    return readings, bad


def by_device(readings: list[Reading]) -> dict[str, list[Reading]]:
    """Each device's readings, in order."""
    return {device: [each for each in readings if each[0] == device] for device in {each[0] for each in readings}}


@settings(max_examples=30)
@given(rows=ROWS, deaths=DEATHS, with_device=st.booleans(), cut=st.integers(0, 40), again=st.booleans())
def test_each_row_once(
    rows: list[object], deaths: list[tuple[int, bool]], with_device: bool, cut: int, again: bool
) -> None:
    """Runs that die before or after any commit, a file that grows between them, and then one run to the end; once more
    with --again, dying at the same places."""
    # The first row shows that the file has times and numbers.
    rows = [(0, "p", 1, "1"), *rows]
    cut = min(cut, len(rows) - 1) + 1
    lines = text_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        site = Site(Path(folder), device_column="d" if with_device else "", columns=("a", "b"))
        site.file.write_text("t,d,a,b\n" + "".join(f"{line}\n" for line in lines[:cut]))

        def run_with_deaths(deaths: list[tuple[int, bool]], again: bool) -> None:
            for die_at, die_after in deaths:
                try:
                    site.run(die_at, die_after, again=again)
                except Died:
                    continue
                if again:
                    return
            site.run(again=again)

        run_with_deaths(deaths[:2], False)
        site.file.write_text("t,d,a,b\n" + "".join(f"{line}\n" for line in lines))
        site.file = site.file.rename(site.file.with_name("renamed.csv"))
        run_with_deaths(deaths[2:], False)
        readings, bad = expected(rows, with_device)
        assert by_device(site.readings()) == by_device(readings)
        assert len(site.letters()) == bad
        assert site.run().rows == 0
        if again:
            run_with_deaths(deaths, True)
            assert by_device(site.readings()) == by_device(readings + readings)
            assert len(site.letters()) == 2 * bad
