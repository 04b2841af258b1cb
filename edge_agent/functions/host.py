"""The built-in function `host`: how this machine is, read from /proc and /sys five times a second.

Parsers are pure functions of a file's text; files that a machine does not have give no rows.
Formats: proc(5), and the kernel's Documentation/admin-guide/iostats.rst and thermal/sysfs-api.rst.

**Delivery**: as any function's. **Bounds**: each file is read to FILE_BYTES_MAX; at most DEVICES_MAX processors,
disks, interfaces and sensors of each kind are reported.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from .api import every

FILE_BYTES_MAX = 256 * 1024
DEVICES_MAX = 64
_SECTOR_BYTES = 512
"""Unit of /proc/diskstats, whatever the disk's own sector size."""
_NO_DISKS = ("loop", "ram", "zram", "sr", "fd", "dm-", "md")
"""Block devices whose traffic is memory, or counted at the disks below them already."""

Values = dict[str, float]


def numbers(fields: Sequence[str]) -> list[float]:
    """The fields as numbers; none of them when one is no number: then the file is not what it should be."""
    try:
        return [float(field) for field in fields]
    except ValueError:
        return []


def cpu_times(text: str) -> dict[str, tuple[float, float]]:
    """/proc/stat: for `cpu` (all) and `cpu0`, ...: (busy, total) in ticks since boot. Waiting for disks is not busy."""
    times = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        # user nice system idle iowait irq softirq steal; guest times are in user already
        ticks = numbers(rest.split()[:8])
        if not name.startswith("cpu") or len(ticks) < 4:
            continue
        idle = sum(ticks[3:5])
        times[name] = (sum(ticks) - idle, sum(ticks))
        if len(times) > DEVICES_MAX:
            break
    return times


def cpu_percent(before: dict[str, tuple[float, float]], now: dict[str, tuple[float, float]]) -> Values:
    """Share of time busy between two readings, per processor; nothing for a processor that did not tick."""
    values = {}
    for name, (busy, total) in now.items():
        busy_before, total_before = before.get(name, (busy, total))
        if total > total_before:
            share = (busy - busy_before) / (total - total_before)
            values[f"{name}_percent"] = round(100 * min(1.0, max(0.0, share)), 2)
    return values


def loads(text: str) -> Values:
    """/proc/loadavg: `0.31 0.25 0.20 2/345 6789`."""
    fields = text.replace("/", " ").split()
    found = numbers(fields[:5])
    if len(found) < 5:
        return {}
    return {"load_1m": found[0], "load_5m": found[1], "load_15m": found[2], "threads": found[4]}


def memory(text: str) -> Values:
    """/proc/meminfo, whose numbers are KiB although they say kB."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and fields[0].isdigit():
            found[name] = float(fields[0]) * 1024
    values = {}
    if "MemTotal" in found and "MemAvailable" in found:
        values["memory_available_bytes"] = found["MemAvailable"]
        values["memory_used_bytes"] = found["MemTotal"] - found["MemAvailable"]
    if found.get("SwapTotal"):
        values["swap_used_bytes"] = found["SwapTotal"] - found.get("SwapFree", 0.0)
    return values


def disk_bytes(text: str, disks: set[str]) -> dict[str, float]:
    """/proc/diskstats: bytes read and written since boot by each of `disks` (whole disks, not their partitions)."""
    totals: dict[str, float] = {}
    for line in text.splitlines():
        fields = line.split()
        counts = numbers(fields[3:10])
        if len(counts) == 7 and fields[2] in disks and len(totals) < 2 * DEVICES_MAX:
            totals[f"disk_{fields[2]}_read_bytes_per_s"] = counts[2] * _SECTOR_BYTES
            totals[f"disk_{fields[2]}_written_bytes_per_s"] = counts[6] * _SECTOR_BYTES
    return totals


def network_bytes(text: str) -> dict[str, float]:
    """/proc/net/dev: bytes received and sent since boot by each interface but the loopback."""
    totals: dict[str, float] = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        counts = numbers(rest.split()[:9])
        if len(counts) == 9 and name.strip() != "lo" and len(totals) < 2 * DEVICES_MAX:
            totals[f"network_{name.strip()}_received_bytes_per_s"] = counts[0]
            totals[f"network_{name.strip()}_sent_bytes_per_s"] = counts[8]
    return totals


def rates(before: dict[str, float], now: dict[str, float], seconds: float) -> Values:
    """Growth a second of each counter that both have; a counter that went back (a device was replaced) gives none."""
    return {
        name: round((count - before[name]) / seconds, 1)
        for name, count in now.items()
        if seconds > 0 and before.get(name, count + 1) <= count
    }


def temperature(text: str) -> float | None:
    """A thermal zone's `temp` in millidegrees Celsius as degrees; None for what no sensor can mean."""
    try:
        degrees = int(text) / 1000
    except ValueError:
        return None
    return degrees if -100 < degrees < 300 else None


def read_text(path: Path) -> str:
    """The beginning of a file, or nothing when it is missing or its driver fails (sensors do)."""
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX).decode("ascii", "replace")
    except OSError:
        return ""


def names_in(path: Path) -> list[str]:
    """The entries of a folder, sorted; none when it is missing."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


class Host:
    """Reads the machine below `root`, and remembers counters from one reading to the next."""

    def __init__(self, root: Path, monotonic_s: Callable[[], float]) -> None:
        self._proc, self._sys, self._root = root / "proc", root / "sys", root
        self._monotonic_s = monotonic_s
        self._cpu: dict[str, tuple[float, float]] = {}
        self._counters: dict[str, float] = {}
        self._read_at_s = 0.0

    def values(self) -> Values:
        """Everything this machine tells; rates and percentages from the second reading on."""
        cpu = cpu_times(read_text(self._proc / "stat"))
        disks = {name for name in names_in(self._sys / "block") if not name.startswith(_NO_DISKS)}
        counters = disk_bytes(read_text(self._proc / "diskstats"), disks)
        counters |= network_bytes(read_text(self._proc / "net/dev"))
        now_s = self._monotonic_s()
        values = cpu_percent(self._cpu, cpu) | rates(self._counters, counters, now_s - self._read_at_s)
        self._cpu, self._counters, self._read_at_s = cpu, counters, now_s
        values |= loads(read_text(self._proc / "loadavg")) | memory(read_text(self._proc / "meminfo"))
        values |= dict(self._temperatures())
        values |= self._disk_usage()
        uptime = numbers(read_text(self._proc / "uptime").split())
        if uptime:
            values["uptime_s"] = uptime[0]
        processes = sum(name.isdigit() for name in names_in(self._proc))
        if processes:
            values["processes"] = processes
        return values

    def _temperatures(self) -> Iterator[tuple[str, float]]:
        folder = self._sys / "class/thermal"
        zones = [name for name in names_in(folder) if name.startswith("thermal_zone")]
        for zone in zones[:DEVICES_MAX]:
            degrees = temperature(read_text(folder / zone / "temp"))
            if degrees is not None:
                kind = read_text(folder / zone / "type").strip() or "unknown"
                yield f"temperature_{zone.removeprefix('thermal_zone')}_{kind}_celsius", degrees

    def _disk_usage(self) -> Values:
        try:
            found = os.statvfs(self._root)
        except OSError:
            return {}
        total, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        if not total:
            return {}
        used = total - found.f_bfree * found.f_frsize
        # As df(1) computes it: of what users can have, without the blocks reserved for root.
        return {
            "disk_free_bytes": free,
            "disk_used_bytes": used,
            "disk_used_percent": round(100 * used / (used + free), 2),
        }


_HOST = Host(Path("/"), time.monotonic)


@every(0.2)
def host() -> Values:
    """The machine that the agent runs on."""
    return _HOST.values()
