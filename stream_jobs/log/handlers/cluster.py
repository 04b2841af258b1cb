"""Requests about the node itself: ApiVersions, Metadata, DescribeCluster, FindCoordinator, InitProducerId.

**Delivery**: a producer id is answered after the block it comes from is reserved durably, so none is given twice.
**Bounds**: answers grow with the number of partitions (partitions_max).
"""

from __future__ import annotations

import uuid
from typing import Any

from stream_jobs.log.codec import (
    ApiVersionsResponse,
    DescribeClusterResponse,
    FindCoordinatorResponse,
    InitProducerIdResponse,
    MetadataResponse,
    Request,
    advertised,
)
from stream_jobs.log.codes import Code, ProtocolError
from stream_jobs.log.store import Topic

from .broker import LEADER_EPOCH, NODE_ID, Broker

__all__ = ["api_versions", "describe_cluster", "find_coordinator", "init_producer_id", "metadata"]

_GROUP_KEY = 0


def api_versions(_: Broker, __: Request | None, code: Code = Code.NONE) -> Any:
    """What this log can do; transactions and the next-generation group protocol are not in it."""
    keys = [
        ApiVersionsResponse.ApiVersion(api_key=key, min_version=least, max_version=most)
        for key, least, most in advertised()
    ]
    return ApiVersionsResponse(error_code=code, api_keys=keys)


def metadata(broker: Broker, request: Request) -> Any:
    """Brokers (this one) and topics by name or id."""
    wanted = request.body.topics
    if wanted is None or (request.version == 0 and not wanted):
        topics = [_describe(topic) for topic in broker.store.topics.values()]
    else:
        by_id = {topic.id: topic.name for topic in broker.store.topics.values()}
        create = broker.settings.auto_create_topics and request.body.allow_auto_topic_creation
        topics = [_find(broker, each, by_id, create=create) for each in wanted]
    return MetadataResponse(
        brokers=[
            MetadataResponse.MetadataResponseBroker(node_id=NODE_ID, host=broker.host, port=broker.port, rack=None)
        ],
        cluster_id=broker.store.catalog.cluster_id,
        controller_id=NODE_ID,
        topics=topics,
    )


def _find(broker: Broker, wanted: Any, by_id: dict[uuid.UUID, str], *, create: bool) -> Any:
    name: str | None = wanted.name
    if name is None:
        name = by_id.get(wanted.topic_id)
    if name is None:
        code = Code.UNKNOWN_TOPIC_ID
        return MetadataResponse.MetadataResponseTopic(
            error_code=code, name=None, topic_id=wanted.topic_id, partitions=[]
        )
    if name not in broker.store.topics and create:
        try:
            broker.store.create_topic(name, broker.settings.partitions_default, {})
        except ProtocolError as error:
            return MetadataResponse.MetadataResponseTopic(error_code=error.code, name=name, partitions=[])
    topic = broker.store.topics.get(name)
    if topic is None:
        code = Code.UNKNOWN_TOPIC_OR_PARTITION
        return MetadataResponse.MetadataResponseTopic(error_code=code, name=name, partitions=[])
    return _describe(topic)


def _describe(topic: Topic) -> Any:
    partitions = [
        MetadataResponse.MetadataResponseTopic.MetadataResponsePartition(
            error_code=Code.NONE,
            partition_index=number,
            leader_id=NODE_ID,
            leader_epoch=LEADER_EPOCH,
            replica_nodes=[NODE_ID],
            isr_nodes=[NODE_ID],
            offline_replicas=[],
        )
        for number in range(len(topic.partitions))
    ]
    return MetadataResponse.MetadataResponseTopic(
        error_code=Code.NONE, name=topic.name, topic_id=topic.id, is_internal=False, partitions=partitions
    )


def describe_cluster(broker: Broker, _: Request) -> Any:
    """One broker, which is the controller too."""
    brokers = [DescribeClusterResponse.DescribeClusterBroker(broker_id=NODE_ID, host=broker.host, port=broker.port)]
    return DescribeClusterResponse(cluster_id=broker.store.catalog.cluster_id, controller_id=NODE_ID, brokers=brokers)


def find_coordinator(broker: Broker, request: Request) -> Any:
    """This node coordinates every group, and no transaction."""
    if request.body.key_type != _GROUP_KEY:
        code, message = Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "transactions are not supported by this log"
        return FindCoordinatorResponse(error_code=code, error_message=message, node_id=-1, host="", port=-1)
    return FindCoordinatorResponse(
        error_code=Code.NONE, error_message=None, node_id=NODE_ID, host=broker.host, port=broker.port
    )


def init_producer_id(broker: Broker, request: Request) -> Any:
    """A new id for an idempotent producer. With a transactional id: the error that tells clients never to try again."""
    if request.body.transactional_id is not None:
        return InitProducerIdResponse(
            error_code=Code.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, producer_id=-1, producer_epoch=-1
        )
    return InitProducerIdResponse(
        error_code=Code.NONE, producer_id=broker.store.catalog.producer_id(), producer_epoch=0
    )
