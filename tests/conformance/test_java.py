"""The Java client on both logs: one program, whose printed outcomes must be the same."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.kafka.jars import class_path, java_command
from tests.kit.required import requires

from .conftest import Log

PROGRAM = Path(__file__).parent / "java" / "Conformance.java"
OUTCOMES = """\
created twice: TopicExistsException
too many replicas: InvalidReplicationFactorException
wrong setting: InvalidConfigurationException
unknown topic: UnknownTopicOrPartitionException
fewer partitions: InvalidPartitionsException
settings: 50000 1234
nodes: 1
last offset: 333
too large: RecordTooLargeException
read: true
record 30: 0 10 1030 k30 30
committed: 300 here
rest: 33
by time: 0
position kept: 5000
offsets: 100 333
beyond the end: OffsetOutOfRangeException
group: 1
deleted group: GroupIdNotFoundException
"""


@pytest.mark.timeout(180)
def test_the_java_client(any_log: Log, fresh: Callable[[str], str]) -> None:
    """Admin, idempotent zstd producer, group consumer, offsets and deletions end as on Apache Kafka."""
    requires("kafka")
    requires("jdk")
    java = java_command()
    assert java is not None
    done = subprocess.run(
        [java, "-Dlog4j2.level=OFF", "-cp", class_path(), str(PROGRAM), any_log.bootstrap, fresh("java")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stdout == OUTCOMES, done.stderr[-4000:]
