"""The status document as text for people: aligned tables, problems first, and in red where colours are wanted.

Everything that came from elsewhere - device names, problems, alarms - has its control characters escaped.

**Delivery**: pure. **Bounds**: DEVICES_SHOWN devices, FUNCTIONS_SHOWN functions, ALARMS_SHOWN alarms; cells of
CELL_CHARACTERS_MAX characters, the last column as wide as the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lake.terminal import escaped

__all__ = ["View", "age", "size"]

DEVICES_SHOWN = 20
FUNCTIONS_SHOWN = 20
ALARMS_SHOWN = 10
CELL_CHARACTERS_MAX = 40
_RED, _YELLOW, _BOLD, _PLAIN = "31", "33", "1", ""
_WELL = ("running", "starting", "")


def age(seconds: float | None) -> str:
    """How long: `0.4 s`, `12 s`, `5 min`, `2 h 5 min`, `3 d 4 h`."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def size(count: float | None) -> str:
    """Bytes with a unit: `812 B`, `38 MB`."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit takes all")


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _clock(at_s: float | None, now_s: float) -> str:
    if at_s is None:
        return "-"
    local = time.localtime(at_s)
    return time.strftime("%H:%M:%S" if abs(now_s - at_s) < 20 * 3600 else "%m-%d %H:%M:%S", local)


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, and its colour in a terminal."""

    text: str
    colour: str = _PLAIN


@dataclass
class View:
    """Renders one document; `width` is the terminal's (None: lines as long as they are)."""

    document: Mapping[str, Any]
    colour: bool = False
    width: int | None = None
    _lines: list[str] = field(default_factory=list)

    def render(self) -> str:
        """The whole text, without a line end at its end."""
        self._lines = []
        self._head()
        if any(one["alive"] for one in self.document["processes"]):
            self._processes()
            self._flow()
            self._lake()
            self._functions()
            self._devices()
            self._alarms()
        else:
            self._lake()
        return "\n".join(self._lines)

    def _painted(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self.colour and colour else text

    def _head(self) -> None:
        document = self.document
        stack = document["stack"]
        words, places = [escaped(document["directory"])], []
        if stack is not None and stack["state"] != "stopped":
            words.append(escaped(stack["state"]))
            if stack["since"] is not None:
                words[-1] += f" for {age(document['at'] - stack['since'])}"
            places = [stack["mqtt_url"], *stack["http_urls"]]
            places += [f"log {stack['bootstrap_servers']}"] if stack["bootstrap_servers"] else []
        if document["ok"]:
            words.append("all is well")
        self._lines.append("   ".join(words))
        if any(places):
            self._lines.append("   ".join(escaped(place) for place in places if place))
        self._lines += [self._painted(f"problem: {escaped(text)}", _RED) for text in document["problems"]]

    def _table(self, titles: Sequence[str], rows: Sequence[Sequence[str | Cell]], right: str) -> None:
        """`right` names the columns that are aligned to the right, one letter a column: `l` or `r`."""
        cells = [[Cell(title, _BOLD) for title in titles]]
        cells += [[one if isinstance(one, Cell) else Cell(one) for one in row] for row in rows]
        last = len(titles) - 1
        widths = [
            max(min(len(row[column].text), CELL_CHARACTERS_MAX) for row in cells) for column in range(len(titles))
        ]
        room = None if self.width is None else self.width - sum(width + 2 for width in widths[:-1])
        self._lines.append("")
        for row in cells:
            parts = []
            for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
                text = _cut(cell.text, CELL_CHARACTERS_MAX if column < last else None if room is None else max(room, 8))
                space = " " * (width - len(text))
                shown = self._painted(text, cell.colour) if text else ""
                parts.append(space + shown if right[column] == "r" else shown + space)
            self._lines.append("  ".join(parts).rstrip())

    def _processes(self) -> None:
        rows: list[list[str | Cell]] = []
        for one in self.document["processes"]:
            since = one["since"]
            rows.append(
                [
                    escaped(one["name"]),
                    Cell(escaped(one["state"]), _PLAIN if one["state"] in _WELL else _RED),
                    _pid(one["pid"]),
                    age(self.document["at"] - since) if since is not None and one["alive"] else "-",
                    _count(one["restarts"]),
                    size(one["memory_bytes"]),
                    Cell(escaped(one["detail"]), _YELLOW),
                ]
            )
        if rows:
            self._table(["PROCESS", "STATE", "PID", "SINCE", "RESTARTS", "MEMORY", ""], rows, "llrrrrl")

    def _flow(self) -> None:
        document = self.document
        if document["bridges"]:
            rows = [
                [escaped(one["name"]), _rate(one["rows_per_s"]), _count(one["rows"]), size(one["in_flight_bytes"]),
                 _count(one["duplicates"]), _count(one["dead_letters"])]
                for one in document["bridges"]
            ]  # fmt: skip
            self._table(["INTO THE LOG", "ROWS/S", "ROWS", "UNDER WAY", "DUPLICATES", "DEAD LETTERS"], rows, "lrrrrr")
        if document["workers"]:
            rows = [
                [escaped(one["name"]), _rate(one["rows_per_s"]), _count(one["rows"]), _lag(one),
                 _freshness(one), _count(one["dead_letters"])]
                for one in document["workers"]
            ]  # fmt: skip
            self._table(
                ["INTO THE LAKE", "ROWS/S", "ROWS", "LAG", "FRESHNESS P50/P99", "DEAD LETTERS"],
                rows,
                "lrrrrr",
            )

    def _lake(self) -> None:
        lake = self.document["lake"]
        if not lake:
            return
        self._lines.append("")
        if lake.get("error"):
            self._lines.append(self._painted(f"lake: {escaped(lake['error'])}", _YELLOW))
        elif not lake.get("transaction"):
            self._lines.append("lake: no transaction yet")
        else:
            at = lake.get("transaction_at")
            ago = "" if at is None else f", {age(self.document['at'] - at)} ago"
            letters = lake.get("dead_letters") or 0
            self._lines.append(
                f"lake: transaction {lake['transaction']:,}{ago}; {letters:,} dead letter{'s' * (letters != 1)}"
            )

    def _functions(self) -> None:
        functions = self.document["functions"]
        rows: list[list[str | Cell]] = [
            [
                escaped(one["name"]),
                Cell(escaped(one["state"]), _PLAIN if one["state"] in _WELL else _RED),
                _count(one["calls"]),
                Cell(_count(one["failed"]), _YELLOW if one["failed"] else _PLAIN),
                _count(one["rows"]),
                Cell(escaped(one["last_error"]), _YELLOW)
                if one["last_error"]
                else escaped(one["url"] or one["trigger"]),
            ]
            for one in functions[:FUNCTIONS_SHOWN]
        ]
        if rows:
            self._table(["FUNCTION", "STATE", "CALLS", "FAILED", "ROWS", ""], rows, "llrrrl")
        if len(functions) > len(rows):
            self._lines.append(f"({len(rows)} of {len(functions)} functions; --json lists all)")

    def _devices(self) -> None:
        devices = self.document["devices"]
        found = devices["devices"]
        if not found:
            return
        rows: list[list[str | Cell]] = []
        for one in found[:DEVICES_SHOWN]:
            seen = one["seen_at"]
            backlog = one["backlog_batches"]
            rows.append(
                [
                    escaped(one["device"]),
                    "not yet" if seen is None else f"{age(self.document['at'] - seen)} ago",
                    _count(one["rows"]),
                    "-" if backlog is None else f"{backlog:,} / {size(one['backlog_bytes'])}" if backlog else "none",
                    Cell(_count(one["rows_dropped"]), _RED if one["rows_dropped"] else _PLAIN),
                    Cell(escaped(one["problem"]), _YELLOW),
                ]
            )
        titles = ["DEVICE", "SEEN", "ROWS", "BACKLOG (BATCHES)", "DROPPED", "" if _quiet(rows) else "PROBLEM"]
        self._table(titles, rows, "lrrrrl")
        if devices["known"] > len(rows):
            self._lines.append(
                f"({len(rows)} of {devices['known']:,} devices; {devices['with_backlog']:,} have a backlog, "
                f"{devices['with_problem']:,} a problem; --json lists {len(found):,})"
            )

    def _alarms(self) -> None:
        alarms = self.document["alarms"][-ALARMS_SHOWN:]
        if alarms:
            self._lines.append("")
            self._lines.append(self._painted("ALARMS", _BOLD))
        for one in alarms:
            text = f"{_clock(one['at'], self.document['at']):<8}  {escaped(one['part'])}: {escaped(one['text'])}"
            self._lines.append(self._painted(text, _RED))


def _quiet(rows: Sequence[Sequence[str | Cell]]) -> bool:
    return all(isinstance(row[-1], Cell) and not row[-1].text for row in rows)


def _pid(pid: int | None) -> str:
    return str(pid) if pid else "-"


def _rate(per_s: float | None) -> str:
    return "-" if per_s is None else f"{per_s:,.1f}" if per_s < 10 else f"{per_s:,.0f}"


def _lag(worker: Mapping[str, Any]) -> str:
    lag = worker["lag_records"]
    return "-" if lag is None else "none" if lag == 0 else f"{lag:,} record{'s' * (lag != 1)}"


def _freshness(worker: Mapping[str, Any]) -> str:
    if worker["freshness_p50_s"] is None:
        return "-"
    return f"{age(worker['freshness_p50_s'])} / {age(worker['freshness_p99_s'])}"


def _cut(text: str, characters_max: int | None) -> str:
    return text if characters_max is None or len(text) <= characters_max else text[: characters_max - 1] + "…"
