"""Kafka's nodes and jars, as far as they are decided without Java."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from deploy.kafka import cluster, jars
from deploy.kafka.cluster import Cluster, KafkaSettings
from deploy.kafka.configuration import Node, node_properties
from edge_agent.contract.errors import SettingsError, StopError


@pytest.fixture
def pretended_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that has Java and the jars, as far as Cluster looks."""
    monkeypatch.setattr(cluster, "java_command", lambda: "/usr/bin/java")
    monkeypatch.setattr(cluster, "class_path", lambda: "jars/*")


def nodes(count: int) -> tuple[Node, ...]:
    """Nodes with made-up ports."""
    return tuple(Node(number=i + 1, port=9000 + i, controller_port=9100 + i) for i in range(count))


def test_the_pom_and_the_code_name_the_same_version() -> None:
    """The pinned pom's Kafka is the one whose jars the code looks for."""
    pom = Path(jars.__file__).with_name("pom.xml").read_text("utf-8")
    versions = dict(re.findall(r"<artifactId>([^<]+)</artifactId>\s*<version>([^<]+)</version>", pom))
    assert versions["kafka_2.13"] == jars.KAFKA_VERSION


def test_three_nodes_replicate_and_keep_a_majority() -> None:
    """Replication 3, two in sync, no unclean election, and every node votes."""
    found = node_properties(nodes(3)[1], nodes(3), "127.0.0.1", Path("data"))
    assert found["default.replication.factor"] == "3"
    assert found["min.insync.replicas"] == "2"
    assert found["unclean.leader.election.enable"] == "false"
    assert found["controller.quorum.voters"].count("@127.0.0.1:91") == 3
    assert found["advertised.listeners"] == "PLAINTEXT://127.0.0.1:9001"


def test_one_node_asks_for_no_replicas_it_cannot_have() -> None:
    """With one node every internal topic has replication 1, and topics are not made by a misspelling."""
    found = node_properties(nodes(1)[0], nodes(1), "127.0.0.1", Path("data"))
    assert {value for name, value in found.items() if name.endswith("replication.factor")} == {"1"}
    assert found["auto.create.topics.enable"] == "false"


@pytest.mark.usefixtures("pretended_java")
def test_a_directory_keeps_its_cluster_id_and_ports(tmp_path: Path) -> None:
    """Opened again, also with another wish of port 0, it is the same cluster at the same address."""
    first = Cluster(tmp_path, KafkaSettings())
    second = Cluster(tmp_path, KafkaSettings())
    assert (first.cluster_id, first.nodes) == (second.cluster_id, second.nodes)
    assert len({first.nodes[0].port, first.nodes[0].controller_port}) == 2


@pytest.mark.usefixtures("pretended_java")
def test_a_directory_of_another_cluster_is_refused(tmp_path: Path) -> None:
    """Three nodes asked for in the directory of one: an error with both numbers, and nothing changed."""
    Cluster(tmp_path, KafkaSettings())
    before = json.loads((tmp_path / "cluster.json").read_text())
    with pytest.raises(SettingsError, match=r"cluster of 1 .* asked: 3"):
        Cluster(tmp_path, KafkaSettings(nodes=3))
    assert json.loads((tmp_path / "cluster.json").read_text()) == before


def test_two_nodes_are_refused(tmp_path: Path) -> None:
    """Two nodes cost twice and survive no loss."""
    with pytest.raises(SettingsError, match="use 1 or 3"):
        Cluster(tmp_path, KafkaSettings(nodes=2))


def test_without_java_the_message_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing, and the command that installs it."""
    monkeypatch.setattr(cluster, "java_command", lambda: None)
    with pytest.raises(StopError, match="apt-get install openjdk"):
        Cluster(tmp_path, KafkaSettings())


def test_what_a_bare_machine_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Java, Maven and fetched jars both parts are named; with fetched jars Maven is not needed."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("EDGEWATER_CACHE_DIR", str(tmp_path / "cache"))
    assert [part.split(" ")[0] for part in jars.missing_parts()] == ["Java", "Maven,"]
    jars.jars_dir().mkdir(parents=True)
    assert [part.split(" ")[0] for part in jars.missing_parts()] == ["Java"]


def test_fetching_without_maven_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """StopError with the command that installs Maven."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("EDGEWATER_CACHE_DIR", str(tmp_path / "cache"))
    with pytest.raises(StopError, match="apt-get install maven"):
        jars.fetch_jars()
