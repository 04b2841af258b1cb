"""Requests that change topics: create, delete, partitions, settings, DeleteRecords.

**Delivery**: each change is durable in the catalog before it is answered; one topic's error changes nothing of it.
**Bounds**: partitions_max partitions of all topics together.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any

from stream_jobs.log.codec import (
    CreatePartitionsResponse,
    CreateTopicsResponse,
    DeleteRecordsResponse,
    DeleteTopicsResponse,
    DescribeConfigsResponse,
    IncrementalAlterConfigsResponse,
    Request,
)
from stream_jobs.log.codes import Code, ProtocolError
from stream_jobs.log.topic_config import CONFIG_TYPES, check_configs, defaults

from .broker import NODE_ID, Broker

__all__ = [
    "create_partitions",
    "create_topics",
    "delete_records",
    "delete_topics",
    "describe_configs",
    "incremental_alter_configs",
]

_TOPIC, _BROKER = 2, 4
_SOURCE_TOPIC, _SOURCE_BROKER, _SOURCE_DEFAULT = 1, 4, 5
_SET, _DELETE = 0, 1


def _attempt(change: Callable[[], object]) -> tuple[Code, str | None]:
    """Do one change; the code and message for the client."""
    try:
        change()
    except ProtocolError as error:
        return error.code, str(error)
    except (OSError, sqlite3.Error) as error:
        return Code.KAFKA_STORAGE_ERROR, f"the disk refused the change: {error}; free some space or check the disk"
    return Code.NONE, None


def create_topics(broker: Broker, request: Request) -> Any:
    """Create topics, or with validate_only say whether they could be."""
    results = []
    for topic in request.body.topics:
        code, message = _attempt(partial(_create, broker, topic, validate_only=request.body.validate_only))
        results.append(
            CreateTopicsResponse.CreatableTopicResult(name=topic.name, error_code=code, error_message=message)
        )
    return CreateTopicsResponse(topics=results)


def _create(broker: Broker, topic: Any, *, validate_only: bool) -> None:
    partitions = _partitions_wanted(broker, topic)
    configs = {each.name: each.value for each in topic.configs}
    if validate_only:
        broker.store.check_topic(topic.name, partitions, configs)
    else:
        broker.store.create_topic(topic.name, partitions, configs)


def _partitions_wanted(broker: Broker, topic: Any) -> int:
    """Number of partitions asked for, by number or by assignment; there is one node, so one replica."""
    if topic.assignments:
        if any(each.broker_ids != [NODE_ID] for each in topic.assignments):
            raise ProtocolError(Code.INVALID_REPLICA_ASSIGNMENT, f"the only node is {NODE_ID}; assign partitions to it")
        if sorted(each.partition_index for each in topic.assignments) != list(range(len(topic.assignments))):
            raise ProtocolError(Code.INVALID_REPLICA_ASSIGNMENT, "assign partitions 0, 1, 2 ... without a gap")
        return len(topic.assignments)
    if topic.replication_factor not in {-1, 1}:
        message = f"replication factor {topic.replication_factor}; this log is one node, use 1"
        raise ProtocolError(Code.INVALID_REPLICATION_FACTOR, message)
    return broker.settings.partitions_default if topic.num_partitions == -1 else int(topic.num_partitions)


def delete_topics(broker: Broker, request: Request) -> Any:
    """Delete topics with their records and their groups' offsets."""
    results = []
    for name in request.body.topic_names:
        code, message = _attempt(partial(broker.store.delete_topic, name))
        results.append(DeleteTopicsResponse.DeletableTopicResult(name=name, error_code=code, error_message=message))
    return DeleteTopicsResponse(responses=results)


def create_partitions(broker: Broker, request: Request) -> Any:
    """Raise the number of partitions of topics."""
    change = broker.store.check_more_partitions if request.body.validate_only else broker.store.create_partitions
    results = []
    for topic in request.body.topics:
        code, message = _attempt(partial(change, topic.name, topic.count))
        result = CreatePartitionsResponse.CreatePartitionsTopicResult(
            name=topic.name, error_code=code, error_message=message
        )
        results.append(result)
    return CreatePartitionsResponse(results=results)


def delete_records(broker: Broker, request: Request) -> Any:
    """Move log starts; whole segments below go at once."""
    topics = []
    for topic in request.body.topics:
        partitions = [_delete_records_one(broker, topic.name, each) for each in topic.partitions]
        topics.append(DeleteRecordsResponse.DeleteRecordsTopicResult(name=topic.name, partitions=partitions))
    return DeleteRecordsResponse(topics=topics)


def _delete_records_one(broker: Broker, topic: str, wanted: Any) -> Any:
    low = -1

    def delete() -> None:
        nonlocal low
        low = broker.store.delete_records(topic, wanted.partition_index, wanted.offset)

    code, _ = _attempt(delete)
    return DeleteRecordsResponse.DeleteRecordsTopicResult.DeleteRecordsPartitionResult(
        partition_index=wanted.partition_index, low_watermark=low, error_code=code
    )


def describe_configs(broker: Broker, request: Request) -> Any:
    """Settings of topics and of this node, with where each value comes from."""
    return DescribeConfigsResponse(results=[_describe(broker, each) for each in request.body.resources])


def _describe(broker: Broker, resource: Any) -> Any:
    values: dict[str, tuple[str, int]] = {}
    code, message = Code.NONE, None
    if resource.resource_type == _TOPIC:
        topic = broker.store.topics.get(resource.resource_name)
        if topic is None:
            code, message = Code.UNKNOWN_TOPIC_OR_PARTITION, f"there is no topic {resource.resource_name[:100]!r}"
        else:
            values = {name: (value, _SOURCE_DEFAULT) for name, value in defaults(broker.settings).items()}
            values |= {name: (value, _SOURCE_TOPIC) for name, value in topic.configs.items()}
    elif resource.resource_type == _BROKER and resource.resource_name in {"", str(NODE_ID)}:
        values = {name: (value, _SOURCE_BROKER) for name, value in _broker_configs(broker).items()}
    else:
        code, message = Code.INVALID_REQUEST, "only topics and this node have settings here"
    wanted = resource.configuration_keys
    return DescribeConfigsResponse.DescribeConfigsResult(
        error_code=code,
        error_message=message,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
        configs=[
            DescribeConfigsResponse.DescribeConfigsResult.DescribeConfigsResourceResult(
                name=name,
                value=value,
                read_only=source != _SOURCE_TOPIC and resource.resource_type == _BROKER,
                config_source=source,
                is_sensitive=False,
                synonyms=[],
                config_type=CONFIG_TYPES.get(name, 2),
                documentation=None,
            )
            for name, (value, source) in sorted(values.items())
            if wanted is None or name in wanted
        ],
    )


def _broker_configs(broker: Broker) -> dict[str, str]:
    settings = broker.settings
    return {
        "auto.create.topics.enable": str(settings.auto_create_topics).lower(),
        "default.replication.factor": "1",
        "fetch.max.bytes": str(settings.fetch_bytes_max),
        "group.initial.rebalance.delay.ms": str(settings.rebalance_delay_ms),
        "group.max.session.timeout.ms": str(settings.session_timeout_max_ms),
        "group.min.session.timeout.ms": str(settings.session_timeout_min_ms),
        "log.retention.ms": "-1",
        "log.segment.bytes": str(settings.segment_bytes),
        "message.max.bytes": str(settings.message_bytes_max),
        "num.partitions": str(settings.partitions_default),
        "socket.request.max.bytes": str(settings.request_bytes_max),
    }


def incremental_alter_configs(broker: Broker, request: Request) -> Any:
    """Set or delete settings of topics."""
    responses = []
    for resource in request.body.resources:
        change = _alter(broker, resource, validate_only=request.body.validate_only)
        code, message = _attempt(change)
        response = IncrementalAlterConfigsResponse.AlterConfigsResourceResponse(
            error_code=code,
            error_message=message,
            resource_type=resource.resource_type,
            resource_name=resource.resource_name,
        )
        responses.append(response)
    return IncrementalAlterConfigsResponse(responses=responses)


def _alter(broker: Broker, resource: Any, *, validate_only: bool) -> Callable[[], None]:
    def change() -> None:
        if resource.resource_type != _TOPIC:
            raise ProtocolError(
                Code.INVALID_REQUEST, "only topics' settings can be changed; the node's are set on start"
            )
        configs: dict[str, str | None] = dict(broker.store.topic(resource.resource_name).configs)
        for each in resource.configs:
            if each.config_operation not in {_SET, _DELETE}:
                raise ProtocolError(Code.INVALID_REQUEST, f"{each.name[:100]}: only set and delete are supported")
            configs[each.name] = each.value if each.config_operation == _SET else None
        checked = check_configs(configs)
        if not validate_only:
            broker.store.set_configs(resource.resource_name, checked)

    return change
