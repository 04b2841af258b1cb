"""The example of queries from Python does what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.kit.landed_lake import landed_lake

ROOT = Path(__file__).parents[2]


def test_a_lake_is_asked_from_python(tmp_path: Path) -> None:
    """SQL, a scan, pandas and Polars give the ten readings of each device."""
    landed_lake(tmp_path / "lake").close()
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "query_lake.py", tmp_path],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "pi4" in done.stdout
    assert "pandas: 10 rows of pi4 in its last hour" in done.stdout
    assert "Polars: " in done.stdout
