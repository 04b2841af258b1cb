"""The status document from given files, and its text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from deploy.status import ALARMS_MAX, Observed, observe
from deploy.status_view import DEVICES_SHOWN, View, age, size

NOW_S = 1_700_000_000.0


def _file(name: str, pid: int, age_s: float = 0.2, **fields: Any) -> dict[str, Any]:
    return {"name": name, "pid": pid, "started_at": NOW_S - 3600, "at": NOW_S - age_s, **fields}


def _files() -> dict[str, Mapping[str, Any]]:
    """A stack of which all is well."""
    services = [{"name": name, "pid": pid, "restarts": 0} for name, pid in (("mqtt", 2), ("bridge", 3), ("worker", 4))]
    return {
        "up": _file(
            "up", 1, state="running", mqtt_url="mqtt://127.0.0.1:1883", http_urls=["http://127.0.0.1:8080"],
            bootstrap_servers="127.0.0.1:9092", lake="lake", services=services,
        ),
        "mqtt": _file("mqtt", 2, port=1883),
        "bridge": _file("bridge", 3, state="running", ready=True, durable_rows=1000, alarms=[], alarm_count=0),
        "bridge-devices": _file("bridge-devices", 3, known=3, with_backlog=1, with_problem=1, devices=[
            {"device": "pi4", "seen_at": NOW_S - 2, "rows": 10},
            {"device": "pi5", "seen_at": NOW_S - 90, "rows": 7, "reported_at": NOW_S - 90, "backlog_batches": 4,
             "backlog_bytes": 5000, "rows_dropped": 1, "problem": "disk \x1b[2J full"},
        ]),
        "worker": _file(
            "worker", 4, state="running", rows_landed=900, dead_letters=2, freshness={"p50_s": 0.5, "p99_s": 1.25},
            partitions={"1": {"offset": 5, "end": 8, "lag": 3}, "0": {"offset": 5, "end": None, "lag": None}},
            alarms=["a hole"], applied_transaction=8, last_transaction=9,
        ),
    }  # fmt: skip


def _observed(files: Mapping[str, Mapping[str, Any]], at_s: float = NOW_S, dead: tuple[str, ...] = ()) -> Observed:
    alive = {name: name not in dead for name in files}
    lake = {"directory": "lake", "transaction": 8, "transaction_at": NOW_S - 1.5, "dead_letters": 2}
    return Observed("data", at_s, files, alive, dict.fromkeys(files, 12345678), lake)


def _document(files: Mapping[str, Mapping[str, Any]], dead: tuple[str, ...] = ()) -> dict[str, Any]:
    return observe(_observed(files, dead=dead), None)


def test_a_stack_that_works_is_ok_with_rates_lag_and_devices() -> None:
    """Rates are growth by the parts' own times; lag is that of the partitions that know their end."""
    files = _files()
    before = {
        **files,
        "bridge": {**files["bridge"], "at": NOW_S - 1.2, "durable_rows": 900},
        "worker": {**files["worker"], "at": NOW_S - 2.2, "rows_landed": 800},
    }
    found = observe(_observed(files), _observed(before, NOW_S - 1))
    assert (found["ok"], found["problems"]) == (True, [])
    assert [one["name"] for one in found["processes"]] == ["up", "mqtt", "bridge", "worker"]
    assert found["bridges"][0]["rows_per_s"] == 100.0
    worker = found["workers"][0]
    assert (worker["rows_per_s"], worker["lag_records"], worker["freshness_p99_s"]) == (50.0, 3, 1.25)
    assert [part["partition"] for part in worker["partitions"]] == [0, 1]
    assert found["devices"]["known"] == 3
    assert [one["backlog_batches"] for one in found["devices"]["devices"]] == [None, 4]
    assert found["alarms"] == [{"part": "worker", "at": None, "text": "a hole"}]
    assert found["lake"]["transaction"] == 8


def test_rates_of_another_process_are_not_known() -> None:
    """A counter that began anew says nothing about its growth."""
    files = _files()
    before = {**files, "worker": {**files["worker"], "pid": 99, "at": NOW_S - 1, "rows_landed": 5}}
    assert observe(_observed(files), _observed(before))["workers"][0]["rows_per_s"] is None


def test_a_dead_part_a_stale_one_and_one_that_starts_again_are_problems() -> None:
    """Each in a line that names it and its process."""
    files = _files()
    assert _document(files, dead=("worker",))["problems"] == ["worker is down: process 4 is gone"]
    stale = {**files, "bridge": {**files["bridge"], "at": NOW_S - 7}}
    assert _document(stale)["problems"] == ["bridge is stale: process 3 wrote no status for 7 s"]
    services = [{"name": "mqtt", "pid": 2, "restarts": 0}, {"name": "worker", "pid": 77, "restarts": 1}]
    again = _document({**files, "up": {**files["up"], "services": services}}, dead=("worker",))
    assert again["problems"] == ["worker is starting again"]
    worker = next(one for one in again["processes"] if one["name"] == "worker")
    assert (worker["pid"], worker["state"], worker["restarts"]) == (77, "starting", 1)


def test_a_part_that_waits_or_is_not_connected_does_not_work() -> None:
    """Alive is not enough; what it waits for is said."""
    files = _files()
    files["worker"] = {**files["worker"], "state": "waiting", "waiting_for": "the lake (disk full)"}
    files["bridge"] = {**files["bridge"], "ready": False, "mqtt": "connecting", "log": "connected"}
    assert _document(files)["problems"] == [
        "bridge does not work: MQTT connecting, log connected",
        "worker does not work: waits for the lake (disk full)",
    ]


def test_nothing_runs_after_the_end_or_the_death_of_up() -> None:
    """One problem, however many parts are gone; the broker and log that say nothing at their end are not `down`."""
    files = _files()
    everyone = tuple(files)
    killed = _document(files, dead=everyone)
    assert killed["problems"] == ["nothing runs in data: `edgewater up` is gone without a word (process 1)"]
    ended = _document({**files, "up": {**files["up"], "state": "stopped"}}, dead=everyone)
    assert ended["problems"] == ["nothing runs in data: `edgewater up` was stopped"]
    assert {one["state"] for one in ended["processes"]} == {"stopped"}
    failed = _document({**files, "up": {**files["up"], "state": "stopped", "failure": "log: disk full"}}, dead=everyone)
    assert failed["problems"] == ["nothing runs in data: `edgewater up` ended: log: disk full"]
    assert _document({})["problems"] == ["nothing runs in data"]
    alone = {name: file for name, file in files.items() if name != "up"}
    assert _document(alone, dead=tuple(alone))["problems"] == ["nothing runs in data"]


def test_parts_without_up_are_shown_too() -> None:
    """Those of the demo, or started by hand with the same run directory."""
    files = {name: file for name, file in _files().items() if name != "up"}
    found = _document(files)
    assert (found["ok"], found["stack"]) == (True, None)
    assert [one["name"] for one in found["processes"]] == ["bridge", "mqtt", "worker"]


def test_an_agent_on_this_machine_says_of_itself_what_a_report_would() -> None:
    """Its spool is its backlog; a function that fails is its problem, and none of the stack's."""
    files = _files()
    functions = [{"name": "boiler", "last_error": "ZeroDivisionError (boiler.py:7)"}]
    files["agent-pi4"] = _file(
        "agent-pi4", 5, state="running", device="pi4", connected="mqtt://127.0.0.1:1883", spool_batches=2,
        spool_bytes=300, rows_dropped=0, functions=functions,
    )  # fmt: skip
    found = _document(files)
    assert found["ok"]
    pi4 = found["devices"]["devices"][0]
    assert (pi4["backlog_batches"], pi4["backlog_bytes"]) == (2, 300)
    assert pi4["problem"] == "function boiler: ZeroDivisionError (boiler.py:7)"
    assert [one["name"] for one in found["functions"]] == ["boiler"]
    assert "ZeroDivisionError (boiler.py:7)" in View(found).render()


@pytest.mark.parametrize("value", [None, "x", -1, [], {}, 1.5, True, [1, "x", None], {"a": [1]}])
def test_files_with_anything_in_them_are_no_crash(value: Any) -> None:
    """A status file of another version, or damaged: shown as far as it goes."""
    for name, file in _files().items():
        for field in file:
            files = {**_files(), name: {**file, field: value}}
            View(observe(_observed(files), _observed(_files()))).render()
    View(_document({"worker": {"rows_landed": value}, "bridge": {"durable_rows": value}})).render()


def test_only_the_last_alarms_are_kept_in_order() -> None:
    """Of all parts together, by their times."""
    files = _files()
    files["bridge"] = {**files["bridge"], "alarms": [{"at": NOW_S - n, "text": f"{n}"} for n in range(60, 0, -1)]}
    alarms = _document(files)["alarms"]
    assert len(alarms) == ALARMS_MAX
    assert [alarm["text"] for alarm in alarms[-2:]] == ["2", "1"]


def test_the_text_is_aligned_escaped_and_plain_without_a_terminal() -> None:
    """Columns begin at the same place, control characters of devices are shown, and nothing is coloured."""
    text = View(_document(_files())).render()
    assert "all is well" in text
    assert "\x1b" not in text
    assert r"disk \x1b[2J full" in text
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("PROCESS"))
    rows = lines[lines.index(head) + 1 : lines.index(head) + 5]
    assert all(line[head.index("STATE") :].startswith("running") for line in rows)
    assert "12 MB" in rows[0]
    assert "lake: transaction 8, 1.5 s ago; 2 dead letters" in text
    assert "0.5 s / 1.2 s" in text
    assert "3 records" in text


def test_problems_are_red_in_a_terminal_and_lines_fit_its_width() -> None:
    """Only where colours are wanted; the last column gives way."""
    files = _files()
    devices = dict(files["bridge-devices"])
    devices["devices"] = [{"device": "d", "seen_at": NOW_S, "reported_at": NOW_S, "problem": "x" * 300}]
    files["bridge-devices"] = devices
    text = View(_document(files, dead=("worker",)), colour=True, width=100).render()
    assert "\x1b[31mproblem: worker is down: process 4 is gone\x1b[0m" in text
    line = next(line for line in text.splitlines() if "xxx" in line)
    assert len(line.replace("\x1b[33m", "").replace("\x1b[0m", "")) <= 100


def test_of_many_devices_some_are_shown_and_all_counted() -> None:
    """The rest is in the JSON document, or in the bridge."""
    files = _files()
    many = [{"device": f"d{n}", "seen_at": NOW_S} for n in range(500)]
    files["bridge-devices"] = {**files["bridge-devices"], "known": 80_000, "with_backlog": 1200, "devices": many}
    text = View(_document(files)).render()
    assert f"({DEVICES_SHOWN} of 80,000 devices; 1,200 have a backlog, 1 a problem; --json lists 500)" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (-3, "0.0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (119, "119 s"), (120, "2 min"), (3599, "59 min"),
     (7500, "2 h 5 min"), (273_600, "3 d 4 h")],
)  # fmt: skip
def test_ages_are_short(seconds: float | None, text: str) -> None:
    """Two units at most."""
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (812, "812 B"), (1500, "1.5 kB"), (38_400_000, "38 MB"), (2e13, "20000 GB")],
)
def test_sizes_have_units(count: float | None, text: str) -> None:
    """As people write them."""
    assert size(count) == text
