"""What the group says of its partitions, asked at the log itself; and who carries the traffic on the default path."""

from __future__ import annotations

from pathlib import Path

from edge_agent.contract.topics import LOG_BATCHES
from stream_jobs.kafka_client import LogClient, LogProducer
from tests.kit.processes import Product, edgewater
from tests.kit.services import Services


def test_a_settled_group_owns_every_partition_and_an_unsettled_one_is_not_judged(
    services: Services, tmp_path: Path
) -> None:
    """With a worker ready nothing is unowned; a group that nobody is in is not settled and reports nothing."""
    client = LogClient(services.bootstrap_servers)
    producer = LogProducer(services.bootstrap_servers)
    try:
        client.ensure_topics(4)
        client.ensure_tables(4, producer)
        command = edgewater(
            "worker", "run", "--bootstrap-servers", services.bootstrap_servers, "--lake", tmp_path / "lake",
            "--run-dir", tmp_path / "run",
        )  # fmt: skip
        with Product(tmp_path / "run", "worker", command) as worker:
            assert set(worker.ready(60)["partitions"]) == {"0", "1", "2", "3"}
            assert client.unowned_partitions("edgewater-readings", LOG_BATCHES) == set()
            assert client.unowned_partitions("edgewater-nobody", LOG_BATCHES) == set()
            described = client._admin.describe_groups(["edgewater-readings"])["edgewater-readings"]
            # The assignor's name in the group protocol: Faust's own, not aiokafka's.
            assert described["protocol_data"] == "faust"
            assert type(producer._producer).__module__.startswith("kafka.")
    finally:
        producer.close(1)
        client.close()
