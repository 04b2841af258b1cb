"""Apache Kafka in KRaft mode: its jars from Maven Central by a pinned pom, and nodes run on this machine."""

from __future__ import annotations
