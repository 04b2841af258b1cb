"""The `server.properties` of each node of a small KRaft cluster on one machine, decided without touching anything.

Every node is broker and controller at once. One node is what a laptop or a test needs; three replicate
(`min.insync.replicas` 2, unclean election off), so that one may be lost.

**Delivery**: see each topic's replication; with one node, loss of its disk is loss of the log.
**Bounds**: small threads and buffers, since nodes here share a machine with everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Node", "node_properties"]


@dataclass(frozen=True, kw_only=True)
class Node:
    """One node: its number from 1, the port for clients and the one for the controllers' Raft."""

    number: int
    port: int
    controller_port: int


def node_properties(node: Node, nodes: Sequence[Node], host: str, data_dir: Path) -> dict[str, str]:
    """Kafka's settings for `node` of `nodes`, with its data in `data_dir`."""
    replicas = min(3, len(nodes))
    in_sync = 2 if replicas == 3 else 1
    voters = ",".join(f"{one.number}@{host}:{one.controller_port}" for one in nodes)
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://{host}:{node.port},CONTROLLER://{host}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{node.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data_dir),
        # A misspelt topic is an error, not a new topic.
        "auto.create.topics.enable": "false",
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(in_sync),
        "unclean.leader.election.enable": "false",
        "num.partitions": "1",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": str(replicas),
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        # Members that died are noticed in seconds, and a group of one does not wait for others to join.
        "group.min.session.timeout.ms": "1000",
        "group.initial.rebalance.delay.ms": "0",
        # A killed node may come back when its old session is over: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # Kafka reserves 128 MiB for compaction, as much as half of a small heap.
        "log.cleaner.threads": "1",
        "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
        "num.network.threads": "2",
        "num.io.threads": "4",
        "background.threads": "2",
        "num.recovery.threads.per.data.dir": "1",
        "controlled.shutdown.enable": "true" if len(nodes) > 1 else "false",
    }
