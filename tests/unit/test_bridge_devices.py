"""What the bridge knows of devices: bounded, the troubled first, never more than a status file takes."""

from __future__ import annotations

import json
import random
from pathlib import Path

from edge_agent.contract.reports import PROBLEM_CHARACTERS_MAX, Report, encode_report, make_report
from edge_agent.contract.status import STATUS_BYTES_MAX, StatusFile, read_status
from edge_agent.contract.topics import batch_topic, report_topic
from edge_agent.contract.wire import message_header
from stream_jobs.bridge.devices import SHOWN_MAX, Devices
from tests.kit.bridge_model import World


def _report(*, batches: int = 0, size: int = 0, problem: str = "") -> Report:
    return make_report(time_us=1, backlog_batches=batches, backlog_bytes=size, rows_dropped=0, problem=problem)


def test_the_longest_unheard_is_forgotten() -> None:
    """Three devices where two have room: the one that was heard again stays, with its counts."""
    devices = Devices(2)
    devices.batch("a", 1, 10, 1)
    devices.report("b", 2, _report(batches=1))
    devices.batch("a", 3, 5, 2)
    devices.heard("c", 4)
    shown = devices.fields()
    assert [device["device"] for device in shown["devices"]] == ["c", "a"]
    assert (shown["known"], shown["with_backlog"]) == (2, 0)
    assert shown["devices"][1] | {"rows": 15, "last_seq": 2, "seen_at": 3e-6} == shown["devices"][1]


def test_problems_come_first_then_backlogs_then_the_last_heard() -> None:
    """In that order, and the counts are of all."""
    devices = Devices(100)
    devices.report("small", 1, _report(batches=1, size=10))
    devices.report("big", 2, _report(batches=9, size=900))
    devices.report("broken", 3, _report(problem="disk full"))
    devices.heard("quiet", 4)
    devices.report("well", 5, _report())
    shown = devices.fields()
    assert [device["device"] for device in shown["devices"]] == ["broken", "big", "small", "well", "quiet"]
    assert (shown["known"], shown["with_backlog"], shown["with_problem"]) == (5, 2, 1)
    assert (shown["backlog_batches"], shown["backlog_bytes"]) == (10, 910)
    devices.report("big", 6, _report())
    assert devices.fields()["with_backlog"] == 1


def test_a_thousand_devices_with_the_longest_problems_fit_a_status_file(tmp_path: Path) -> None:
    """The worst texts (each character is twelve in JSON) are cut off, not refused; plain ones are SHOWN_MAX."""
    devices = Devices(5000)
    for number in range(1000):
        problem = "\N{GRINNING FACE}" * PROBLEM_CHARACTERS_MAX
        devices.report(f"{number:0128d}", number, _report(batches=1, size=number, problem=problem))
    status = StatusFile(tmp_path, "bridge-devices")
    status.write(**devices.fields())
    found = read_status(tmp_path, "bridge-devices")
    assert found is not None
    assert found["with_problem"] == 1000
    assert 30 < len(found["devices"]) < SHOWN_MAX
    assert len(json.dumps(found)) <= STATUS_BYTES_MAX
    for number in range(1000):
        devices.report(f"{number:0128d}", number, _report())
    status.write(**devices.fields())
    found = read_status(tmp_path, "bridge-devices")
    assert found is not None
    assert len(found["devices"]) == SHOWN_MAX


def test_a_report_is_noted_and_one_of_another_version_is_no_dead_letter() -> None:
    """Rows count once, a duplicate only says that the device is there; nothing of a report enters the log."""
    world = World(1, bridges=1, devices=1)
    world.faults = False
    world.turn(0)
    world.turn(0)
    bridge, device = world.bridges[0], world.devices[0]
    assert bridge is not None
    bridge._receive(report_topic(device.name), encode_report(_report(batches=2, problem="no network")))
    bridge._receive(report_topic(device.name), b"of another version")
    for _ in range(2):
        bridge._receive(batch_topic(device.name), device.message(1))
    shown = bridge._devices.fields()["devices"]
    world.close()
    assert [(one["device"], one["problem"], one["backlog_batches"]) for one in shown] == [
        (device.name, "no network", 2)
    ]
    assert (bridge._tally.reports, bridge._tally.reports_refused, bridge._tally.dead_letters) == (1, 1, 0)
    assert shown[0]["last_seq"] == 1
    assert shown[0]["rows"] == message_header(device.message(1)).rows
    assert bridge._tally.appended == 1


def test_counts_are_those_of_all_known_devices_whatever_happens(seed: int) -> None:
    """Reports come and go, devices are forgotten: the running counts equal those over each device's last report."""
    generator = random.Random(seed)
    devices, model = Devices(20), dict[str, Report | None]()
    for at in range(3000):
        name = f"d{generator.randrange(40)}"
        last = model.pop(name, None)
        if generator.random() < 0.5:
            batches = generator.choice([0, 0, 1, 5])
            last = _report(batches=batches, size=batches * 100, problem=generator.choice(["", "", "p"]))
            devices.report(name, at, last)
        else:
            devices.heard(name, at)
        model[name] = last
        if len(model) > 20:
            del model[next(iter(model))]
    reports = [report for report in model.values() if report is not None]
    shown = devices.fields()
    assert {one["device"] for one in shown["devices"]} == set(model)
    assert shown["with_backlog"] == sum(report.backlog_batches > 0 for report in reports)
    assert shown["with_problem"] == sum(bool(report.problem) for report in reports)
    assert shown["backlog_bytes"] == sum(report.backlog_bytes for report in reports)
    problems = [bool(one.get("problem")) for one in shown["devices"]]
    assert problems == sorted(problems, reverse=True)
