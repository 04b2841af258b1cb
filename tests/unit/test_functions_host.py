"""The built-in function: parsers of /proc and /sys, on texts of several machines and without any."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.functions import host

STAT = """cpu  1000 10 500 8000 400 0 50 40 0 0
cpu0 500 5 250 4000 200 0 25 20 0 0
cpu1 500 5 250 4000 200 0 25 20 0 0
intr 1 2 3
ctxt 99
"""
STAT_LATER = """cpu  1060 10 540 8060 440 0 50 40 0 0
cpu0 550 5 250 4050 200 0 25 20 0 0
cpu1 510 5 290 4010 240 0 25 20 0 0
"""
MEMINFO_PI = """MemTotal:         948312 kB
MemFree:          341244 kB
MemAvailable:     700000 kB
Buffers:           25904 kB
SwapTotal:        102396 kB
SwapFree:         102140 kB
HugePages_Total:       0
"""
DISKSTATS_PI = """   7       0 loop0 46 0 642 75 0 0 0 0 0 80 75 0 0 0 0 0 0
 179       0 mmcblk0 11873 5262 1022402 70120 4031 5124 141960 178234 0 52120 248354 0 0 0 0 0 0
 179       1 mmcblk0p1 321 1032 17458 1324 5 0 9 12 0 670 1336 0 0 0 0 0 0
 179       2 mmcblk0p2 11481 4230 1000848 68702 4026 5124 141951 178222 0 51580 246924 0 0 0 0 0 0
"""
NET_DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier
    lo: 1000 10    0    0    0     0          0         0 1000 10    0    0    0     0       0          0
wlan0:5550000    7300    0    0    0     0          0         0  812345    4300    0    0    0     0       0          0
"""


class TestParsers:
    def test_cpu(self) -> None:
        """Busy is everything but idle and waiting for disks; a percentage needs two readings."""
        before, now = host.cpu_times(STAT), host.cpu_times(STAT_LATER)
        assert set(before) == {"cpu", "cpu0", "cpu1"}
        assert host.cpu_percent({}, before) == {}
        assert host.cpu_percent(before, now) == {"cpu_percent": 50.0, "cpu0_percent": 50.0, "cpu1_percent": 50.0}

    def test_an_old_kernel_counts_fewer_things(self) -> None:
        """Four numbers a processor are enough."""
        assert host.cpu_times("cpu 1 2 3 4\n") == {"cpu": (6.0, 10.0)}

    def test_loads(self) -> None:
        """Three averages, and the number of threads."""
        assert host.loads("0.31 0.25 0.20 2/345 6789\n") == {
            "load_1m": 0.31, "load_5m": 0.25, "load_15m": 0.20, "threads": 345.0,
        }  # fmt: skip

    def test_memory_of_a_raspberry_pi(self) -> None:
        """KiB become bytes; used is what is not available."""
        assert host.memory(MEMINFO_PI) == {
            "memory_available_bytes": 700_000 * 1024.0,
            "memory_used_bytes": 248_312 * 1024.0,
            "swap_used_bytes": 256 * 1024.0,
        }

    def test_memory_without_swap(self) -> None:
        """A machine without swap has no row for it."""
        assert "swap_used_bytes" not in host.memory("MemTotal: 10 kB\nMemAvailable: 5 kB\nSwapTotal: 0 kB\n")

    def test_disks_of_a_raspberry_pi(self) -> None:
        """Whole disks only, in sectors of 512 bytes."""
        assert host.disk_bytes(DISKSTATS_PI, {"mmcblk0"}) == {
            "disk_mmcblk0_read_bytes_per_s": 1_022_402 * 512.0,
            "disk_mmcblk0_written_bytes_per_s": 141_960 * 512.0,
        }

    def test_network(self) -> None:
        """Every interface but the loopback, also where the colon touches the number."""
        assert host.network_bytes(NET_DEV) == {
            "network_wlan0_received_bytes_per_s": 5_550_000.0,
            "network_wlan0_sent_bytes_per_s": 812_345.0,
        }

    def test_rates(self) -> None:
        """Growth a second; nothing for a counter that is new, went back, or has no time between."""
        assert host.rates({"a": 10.0, "b": 10.0}, {"a": 30.0, "b": 5.0, "c": 1.0}, 2.0) == {"a": 10.0}
        assert host.rates({"a": 10.0}, {"a": 30.0}, 0.0) == {}

    @pytest.mark.parametrize(("text", "degrees"), [("48312\n", 48.312), ("-5000", -5.0), ("", None), ("x", None)])
    def test_temperature(self, text: str, degrees: float | None) -> None:
        """Millidegrees; a sensor that fails gives none."""
        assert host.temperature(text) == degrees

    @pytest.mark.parametrize(
        "parse",
        [host.cpu_times, host.loads, host.memory, host.network_bytes, lambda text: host.disk_bytes(text, {"a"})],
    )
    @pytest.mark.parametrize("text", ["", "\n", "nonsense", "cpu\nMem:\n a\nb:"])
    def test_nonsense_gives_nothing(self, parse: object, text: str) -> None:
        """A file that is empty or otherwise than expected gives no rows, and no error."""
        assert parse(text) == {}  # type: ignore[operator]


class TestHost:
    @staticmethod
    def pi(root: Path) -> Path:
        """A Raspberry Pi's files."""
        for name, text in {
            "proc/stat": STAT, "proc/meminfo": MEMINFO_PI, "proc/diskstats": DISKSTATS_PI, "proc/net/dev": NET_DEV,
            "proc/loadavg": "0.1 0.2 0.3 1/100 5\n", "proc/uptime": "3600.25 7000.00\n",
            "sys/class/thermal/thermal_zone0/temp": "48312\n", "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        }.items():  # fmt: skip
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        for name in ("proc/1", "proc/42", "sys/block/mmcblk0", "sys/block/loop0"):
            (root / name).mkdir(parents=True)
        return root

    def test_a_raspberry_pi(self, tmp_path: Path) -> None:
        """The first reading has what needs no second; the second has rates and percentages too."""
        times = iter([10.0, 12.0])
        found = host.Host(self.pi(tmp_path), lambda: next(times))
        first = found.values()
        assert first["temperature_0_cpu-thermal_celsius"] == 48.312
        assert (first["processes"], first["uptime_s"], first["load_15m"]) == (2, 3600.25, 0.3)
        assert first["disk_used_bytes"] > 0
        assert "cpu_percent" not in first
        (tmp_path / "proc/stat").write_text(STAT_LATER)
        (tmp_path / "proc/net/dev").write_text(NET_DEV.replace("5550000", "5552000"))
        second = found.values()
        assert second["cpu_percent"] == 50.0
        assert second["network_wlan0_received_bytes_per_s"] == 1000.0
        assert second["disk_mmcblk0_read_bytes_per_s"] == 0.0
        assert not any("loop0" in name for name in second)

    def test_a_machine_without_any_of_it(self, tmp_path: Path) -> None:
        """Where /proc and /sys are missing there is still the disk, and no error."""
        found = host.Host(tmp_path, lambda: 0.0)
        assert set(found.values()) <= {"disk_free_bytes", "disk_used_bytes", "disk_used_percent"}

    def test_this_machine(self) -> None:
        """On the machine the tests run on, the function returns numbers."""
        values = host.host()
        assert {"load_1m", "memory_used_bytes", "uptime_s"} <= set(values)
        assert all(isinstance(value, (int, float)) for value in values.values())
