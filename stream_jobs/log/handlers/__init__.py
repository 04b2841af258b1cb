"""What each request does: one function per request, by api key. Bytes and sockets are elsewhere.

**Delivery** and **Bounds**: see the modules.
"""

from __future__ import annotations

from . import cluster, groups, records, topics
from .broker import Answer, Broker, Handler

__all__ = ["HANDLERS", "Answer", "Broker", "Handler"]

HANDLERS: dict[int, Handler] = {
    0: records.produce,
    1: records.fetch,
    2: records.list_offsets,
    3: cluster.metadata,
    8: groups.offset_commit,
    9: groups.offset_fetch,
    10: cluster.find_coordinator,
    11: groups.join_group,
    12: groups.heartbeat,
    13: groups.leave_group,
    14: groups.sync_group,
    15: groups.describe_groups,
    16: groups.list_groups,
    18: cluster.api_versions,
    19: topics.create_topics,
    20: topics.delete_topics,
    21: topics.delete_records,
    22: cluster.init_producer_id,
    32: topics.describe_configs,
    37: topics.create_partitions,
    42: groups.delete_groups,
    44: topics.incremental_alter_configs,
    60: cluster.describe_cluster,
}
"""Api key -> handler, for exactly the keys in `codec.SUPPORTED`."""
