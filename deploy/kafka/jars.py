"""The jars of Apache Kafka: fetched once from Maven Central by the pinned pom, kept in a cache folder.

**Delivery**: jars are copied into a temporary folder beside the cache and renamed into place when all are there, so a
broken fetch leaves nothing that looks whole. **Bounds**: one folder of about 45 MB for each version of Kafka; a fetch
ends after FETCH_TIMEOUT_S.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from edge_agent.contract.errors import RetryError, StopError

__all__ = ["KAFKA_VERSION", "class_path", "fetch_jars", "java_command", "missing_parts"]

KAFKA_VERSION = "4.4.0"
"""The newest release on Maven Central when it was pinned; the pom names the same (a test compares them)."""
JAVA_VERSION_MIN = 17
FETCH_TIMEOUT_S = 600.0

_log = logging.getLogger(__name__)
_POM = Path(__file__).with_name("pom.xml")


def cache_dir() -> Path:
    """Where fetched parts are kept: $EDGEWATER_CACHE_DIR, else $XDG_CACHE_HOME/edgewater, else ~/.cache/edgewater."""
    named = os.environ.get("EDGEWATER_CACHE_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgewater"


def jars_dir() -> Path:
    """The folder of this version's jars; it exists only when they are all there."""
    return cache_dir() / f"kafka-{KAFKA_VERSION}"


def java_command() -> str | None:
    """The `java` of version 17 or newer ($JAVA_HOME first, then PATH), or None."""
    home = os.environ.get("JAVA_HOME")
    candidates = [str(Path(home, "bin", "java"))] if home else []
    for candidate in [*candidates, "java"]:
        found = shutil.which(candidate)
        if found is not None and _java_version(found) >= JAVA_VERSION_MIN:
            return found
    return None


def _java_version(java: str) -> int:
    """Major version that `java -version` reports, 0 when it does not say."""
    result = subprocess.run(
        [java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    found = re.search(r'version "(\d+)', result.stderr)
    return int(found.group(1)) if found else 0


def missing_parts() -> list[str]:
    """What this machine lacks to run Kafka, each with the command that installs it; empty when it can."""
    missing = []
    if java_command() is None:
        missing.append(f"Java {JAVA_VERSION_MIN} or newer (apt-get install openjdk-17-jre-headless)")
    if not jars_dir().is_dir() and shutil.which("mvn") is None:
        missing.append("Maven, which fetches Kafka's jars (apt-get install maven)")
    return missing


def class_path() -> str:
    """Java's class path of the fetched jars (fetches them when they are not there)."""
    return str(fetch_jars() / "*")


def fetch_jars() -> Path:
    """The folder of jars, after fetching them when needed.

    Raises StopError when Maven is missing, RetryError when Maven Central did not answer or sent something damaged.
    """
    target = jars_dir()
    if target.is_dir():
        return target
    if shutil.which("mvn") is None:
        raise StopError("Maven (mvn), which fetches Kafka's jars, is missing; apt-get install maven")
    target.parent.mkdir(parents=True, exist_ok=True)
    _log.info("fetching Kafka %s into %s (about 45 MB, once)", KAFKA_VERSION, target)
    with tempfile.TemporaryDirectory(prefix="kafka-", dir=target.parent) as folder:
        _run_maven(Path(folder))
        # A second process may have been quicker; both copies are the same.
        if not target.is_dir():
            try:
                Path(folder, "jars").rename(target)
            except OSError:
                if not target.is_dir():
                    raise
    return target


def _run_maven(folder: Path) -> None:
    """Copy the jars into `folder`/jars, with a local repository that goes away with `folder`."""
    command = [
        "mvn", "--batch-mode", "--quiet", "--strict-checksums", "--file", str(_POM),
        f"-Dmaven.repo.local={folder / 'repository'}", f"-DoutputDirectory={folder / 'jars'}",
        "dependency:copy-dependencies",
    ]  # fmt: skip
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise RetryError(f"Maven did not fetch Kafka's jars within {FETCH_TIMEOUT_S:.0f} s; try again") from None
    if result.returncode != 0:
        last = "\n".join((result.stdout + result.stderr).strip().splitlines()[-15:])
        raise RetryError(f"Maven could not fetch Kafka's jars (status {result.returncode}); try again:\n{last}")
