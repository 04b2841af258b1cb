"""What `edgewater status` knows: one document made of the status files of a stack, pure.

    {"directory", "at", "ok", "problems", "stack", "processes", "bridges", "workers", "functions", "lake",
     "alarms", "devices"}

`observe` takes what the parts wrote (twice, for rates) and what the system says of their processes; nothing here reads
a file or a clock. Times are Unix seconds, rates per second, sizes bytes; what nobody says is null.

**Delivery**: hints of the parts themselves; the lake and the log are what counts. **Bounds**: as many entries as there
are status files, ALARMS_MAX alarms, and the devices that the bridge shows (see `stream_jobs/bridge/devices.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .alarms import alarms_of

__all__ = ["STALE_S", "Observed", "observe"]

STALE_S = 5.0
ALARMS_MAX = 50
_DEVICES = "-devices"

File = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Observed:
    """One look: status files by name, and by the same name whether the process lives and its memory."""

    directory: str
    at_s: float
    files: Mapping[str, File]
    alive: Mapping[str, bool]
    memory_bytes: Mapping[str, int | None]
    lake: Mapping[str, Any]


def _number(value: object) -> float | None:
    """A finite number, or None: JSON as Python reads it knows NaN and infinities."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _whole(value: object) -> int:
    found = _number(value)
    return 0 if found is None else int(found)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _mappings(value: object) -> list[File]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def observe(now: Observed, before: Observed | None) -> dict[str, Any]:
    """The document of a stack as it is `now`; rates are since `before`."""
    stack = now.files.get("up")
    running = stack is not None and now.alive.get("up", False) and stack.get("state") != "stopped"
    services = _mappings(stack.get("services")) if stack is not None and running else []
    names = [name for name in now.files if name != "up" and not name.endswith(_DEVICES)]
    expected = [_text(service.get("name")) for service in services]
    ordered = [*expected, *sorted(set(names) - set(expected))]
    known = {_text(service.get("name")): service for service in services}
    processes = [_process(name, now, known.get(name)) for name in ordered if name]
    if stack is not None:
        processes.insert(0, _process("up", now, None))
        if not running:
            # The broker and the log do not say that they end.
            processes = [one | {"state": "stopped"} if one["state"] == "down" else one for one in processes]
    problems = _problems(now, processes, stack, expected, running=running)
    return {
        "directory": now.directory,
        "at": now.at_s,
        "ok": not problems,
        "problems": problems,
        "stack": _stack(stack, running=running),
        "processes": processes,
        "bridges": [_bridge(name, now, before) for name in ordered if "durable_rows" in now.files.get(name, {})],
        "workers": [_worker(name, now, before) for name in ordered if "rows_landed" in now.files.get(name, {})],
        "functions": [one for name in ordered if now.alive.get(name) for one in _functions(now.files.get(name, {}))],
        "lake": dict(now.lake),
        "alarms": _alarms(names, now),
        "devices": _devices(now),
    }


def _stack(stack: File | None, *, running: bool) -> dict[str, Any] | None:
    if stack is None:
        return None
    return {
        "state": _text(stack.get("state")) if running else "stopped",
        "since": _number(stack.get("started_at")),
        "mqtt_url": _text(stack.get("mqtt_url")),
        "http_urls": _texts(stack.get("http_urls")),
        "bootstrap_servers": _text(stack.get("bootstrap_servers")),
        "lake": _text(stack.get("lake")),
    }


# Processes


def _process(name: str, now: Observed, service: File | None) -> dict[str, Any]:
    """`service` is what `up` says of it: its restarts, and the process it started last."""
    file = now.files.get(name)
    started = 0 if service is None else _whole(service.get("pid"))
    if file is not None and started and _whole(file.get("pid")) != started:
        file = None  # of the process before the one that starts now
    alive = now.alive.get(name, False) if file is not None else bool(started)
    age_s = None if file is None else now.at_s - (_number(file.get("at")) or 0.0)
    return {
        "name": name,
        "state": _state(file, alive=alive, age_s=age_s),
        "detail": "" if file is None or not alive else _detail(file),
        "pid": started or None if file is None else _whole(file.get("pid")),
        "alive": alive,
        "since": None if file is None else _number(file.get("started_at")),
        "wrote": None if file is None else _number(file.get("at")),
        "restarts": None if service is None else _whole(service.get("restarts")),
        "memory_bytes": None if file is None else now.memory_bytes.get(name),
    }


def _state(file: File | None, *, alive: bool, age_s: float | None) -> str:
    """`running`, `starting`, `waiting`, `stopping` ... as the part says; `stale`, `down`, `stopped` as we see."""
    if file is None or age_s is None:
        return "starting"
    said = _text(file.get("state")) or "running"
    if said == "stopped":
        return "stopped"
    if not alive:
        return "down"
    return "stale" if age_s > STALE_S and said != "starting" else said


def _detail(file: File) -> str:
    """What keeps a live part from working, as far as it says."""
    if waiting_for := _text(file.get("waiting_for")):
        return f"waits for {waiting_for}"
    if "durable_rows" in file and not file.get("ready"):
        return f"MQTT {_text(file.get('mqtt'))}, log {_text(file.get('log'))}"
    if "spool_batches" in file and not file.get("connected"):
        return f"not connected: {_text(file.get('last_error')) or 'no broker yet'}"
    return ""


def _agent_problem(file: File) -> str:
    """What troubles an agent: its connection, or the first function that fails."""
    if detail := _detail(file):
        return detail
    failing = [one for one in _mappings(file.get("functions")) if one.get("last_error")]
    return f"function {_text(failing[0].get('name'))}: {_text(failing[0].get('last_error'))}" if failing else ""


def _problems(
    now: Observed, processes: list[dict[str, Any]], stack: File | None, expected: list[str], *, running: bool
) -> list[str]:
    """Why this is not a stack that works: each one line."""
    up = next((one for one in processes if one["name"] == "up"), None)
    if up is not None and not running:
        assert stack is not None, "it wrote what we read"
        if stack.get("state") != "stopped":
            how = f"is gone without a word (process {up['pid']})"
        elif failure := _text(stack.get("failure")):
            how = f"ended: {failure}"
        else:
            how = "was stopped"
        return [f"nothing runs in {now.directory}: `edgewater up` {how}"]
    if not any(one["alive"] for one in processes):
        return [f"nothing runs in {now.directory}"]
    found = []
    for one in processes:
        name, pid = one["name"], one["pid"]
        if one["state"] == "down":
            found.append(f"{name} is down: process {pid} is gone")
        elif one["state"] == "stale":
            found.append(f"{name} is stale: process {pid} wrote no status for {now.at_s - (one['wrote'] or 0):.0f} s")
        elif one["state"] == "starting":
            found.append(f"{name} is starting" + (" again" if one["restarts"] else ""))
        elif one["state"] == "stopped" and name in expected:
            found.append(f"{name} has stopped")
        elif one["detail"] and ("waits for" in one["detail"] or one["detail"].startswith("MQTT")):
            found.append(f"{name} does not work: {one['detail']}")
    if stack is not None and stack.get("state") == "stopping":
        found.append("the stack is being ended")
    return found


# Flow


def _rate(name: str, counter: str, now: Observed, before: Observed | None) -> float | None:
    """Growth of a counter per second between two status files of one process."""
    new, old = now.files.get(name), None if before is None else before.files.get(name)
    if new is None or old is None or new.get("pid") != old.get("pid"):
        return None
    seconds = (_number(new.get("at")) or 0.0) - (_number(old.get("at")) or 0.0)
    if seconds <= 0:
        return None
    return round(max(0.0, (_whole(new.get(counter)) - _whole(old.get(counter))) / seconds), 1)


def _bridge(name: str, now: Observed, before: Observed | None) -> dict[str, Any]:
    file = now.files[name]
    return {
        "name": name,
        "rows_per_s": _rate(name, "durable_rows", now, before),
        "rows": _whole(file.get("durable_rows")),
        "batches": _whole(file.get("durable_batches")),
        "in_flight_bytes": _whole(file.get("in_flight_bytes")),
        "duplicates": _whole(file.get("duplicates")),
        "refused": _whole(file.get("refused")),
        "dead_letters": _whole(file.get("dead_letters")),
    }


def _worker(name: str, now: Observed, before: Observed | None) -> dict[str, Any]:
    file = now.files[name]
    raw = file.get("partitions")
    partitions = [
        {"partition": int(number), **{key: _number(part.get(key)) for key in ("offset", "end", "lag")}}
        for number, part in (raw.items() if isinstance(raw, dict) else ())
        if isinstance(part, dict) and str(number).isdecimal() and str(number).isascii()
    ]
    lags = [_whole(part["lag"]) for part in partitions if part["lag"] is not None]
    freshness = file.get("freshness")
    fresh: Mapping[str, Any] = freshness if isinstance(freshness, dict) else {}
    return {
        "name": name,
        "job": _text(file.get("job")) or name,
        "rows_per_s": _rate(name, "rows_landed", now, before),
        "rows": _whole(file.get("rows_landed")),
        "lag_records": sum(lags) if lags else None,
        "freshness_p50_s": _number(fresh.get("p50_s")),
        "freshness_p99_s": _number(fresh.get("p99_s")),
        "last_transaction": _whole(file.get("last_transaction")),
        "applied_transaction": _whole(file.get("applied_transaction")),
        "dead_letters": _whole(file.get("dead_letters")),
        "skipped_rows": _whole(file.get("skipped_rows")),
        "partitions": sorted(partitions, key=lambda part: part["partition"]),
    }


def _functions(agent: File) -> list[dict[str, Any]]:
    """What an agent on this machine says of its functions, counted since it started."""
    return [
        {
            "device": _text(agent.get("device")),
            "name": _text(one.get("name")),
            "state": _text(one.get("state")),
            "trigger": _text(one.get("trigger")),
            "url": _text(one.get("url")),
            "calls": _whole(one.get("calls")),
            "failed": _whole(one.get("failed")),
            "rows": _whole(one.get("rows")),
            "last_error": _text(one.get("last_error")),
        }
        for one in _mappings(agent.get("functions"))
    ]


def _alarms(names: Iterable[str], now: Observed) -> list[dict[str, Any]]:
    """The last alarms of all parts, oldest first; those without a time count as old as their process."""
    found = []
    for name in names:
        file = now.files[name]
        for alarm in alarms_of(name, file):
            order = alarm.at_s if alarm.at_s is not None else _number(file.get("started_at")) or 0.0
            found.append((order, {"part": alarm.part, "at": alarm.at_s, "text": alarm.text}))
    return [alarm for _, alarm in sorted(found, key=lambda entry: entry[0])[-ALARMS_MAX:]]


# Devices


def _devices(now: Observed) -> dict[str, Any]:
    """What the bridges know of devices, and of those whose agents run here what they say themselves."""
    shown: dict[str, dict[str, Any]] = {}
    counts = dict.fromkeys(("known", "with_backlog", "with_problem", "backlog_batches", "backlog_bytes"), 0)
    for name, file in now.files.items():
        if name.endswith(_DEVICES):
            for key in counts:
                counts[key] += _whole(file.get(key))
            for one in _mappings(file.get("devices")):
                device = _device(one)
                other = shown.get(device["device"])
                if other is None or (other["seen_at"] or 0.0) < (device["seen_at"] or 0.0):
                    shown[device["device"]] = device
    for name, file in now.files.items():
        if "spool_batches" in file and now.alive.get(name):
            _add_agent(shown, file)
    counts["known"] = max(counts["known"], len(shown))
    return {**counts, "devices": list(shown.values())}


def _device(one: File) -> dict[str, Any]:
    reported = "reported_at" in one
    return {
        "device": _text(one.get("device")),
        "seen_at": _number(one.get("seen_at")),
        "rows": _whole(one.get("rows")),
        "reported_at": _number(one.get("reported_at")),
        "backlog_batches": _whole(one.get("backlog_batches")) if reported else None,
        "backlog_bytes": _whole(one.get("backlog_bytes")) if reported else None,
        "rows_dropped": _whole(one.get("rows_dropped")) if reported else None,
        "problem": _text(one.get("problem")),
    }


def _add_agent(shown: dict[str, dict[str, Any]], file: File) -> None:
    """An agent on this machine says of itself what a report would, and newer."""
    name = _text(file.get("device"))
    device = shown.setdefault(name, {**_device({"device": name})})
    device |= {
        "reported_at": _number(file.get("at")),
        "backlog_batches": _whole(file.get("spool_batches")),
        "backlog_bytes": _whole(file.get("spool_bytes")),
        "rows_dropped": _whole(file.get("rows_dropped")),
        "problem": device["problem"] or _agent_problem(file),
    }
