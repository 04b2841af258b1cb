"""Requests of consumer groups: membership, offsets, and what admin tools ask about them.

**Delivery**: an offset that was answered is in the offsets' file; see `catalog.py` for what a power loss takes.
**Bounds**: metadata of a commit has at most METADATA_CHARACTERS_MAX; offsets are kept for existing partitions only.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from typing import Any

from stream_jobs.log.catalog import CommittedOffset
from stream_jobs.log.codec import (
    DeleteGroupsResponse,
    DescribeGroupsResponse,
    HeartbeatResponse,
    JoinGroupResponse,
    LeaveGroupResponse,
    ListGroupsResponse,
    OffsetCommitResponse,
    OffsetFetchResponse,
    Request,
    SyncGroupResponse,
)
from stream_jobs.log.codes import Code, ProtocolError
from stream_jobs.log.group import Joining, JoinReply, SyncReply

from .broker import Broker

__all__ = [
    "delete_groups",
    "describe_groups",
    "heartbeat",
    "join_group",
    "leave_group",
    "list_groups",
    "offset_commit",
    "offset_fetch",
    "sync_group",
]

_LOG = logging.getLogger(__name__)
METADATA_CHARACTERS_MAX = 4096
_INVITES_FROM_VERSION = 4
_LEAVES_MANY_FROM_VERSION = 3


def join_group(broker: Broker, request: Request) -> Any:
    """Join, or join again; answered when the group's next generation is formed."""
    body = request.body
    rebalance_ms = body.rebalance_timeout_ms if body.rebalance_timeout_ms >= 0 else body.session_timeout_ms
    joining = Joining(
        member_id=body.member_id,
        instance_id=body.group_instance_id,
        client_id=request.client_id,
        client_host=request.client_host,
        session_timeout_s=body.session_timeout_ms / 1000,
        rebalance_timeout_s=rebalance_ms / 1000,
        protocol_type=body.protocol_type,
        protocols=tuple((each.name, each.metadata or b"") for each in body.protocols),
    )
    try:
        reply = broker.coordinator.join(body.group_id, joining, invite=request.version >= _INVITES_FROM_VERSION)
    except ProtocolError as error:
        return _joined(JoinReply(code=error.code, member_id=body.member_id))
    return _joined(reply) if isinstance(reply, JoinReply) else _await_reply(reply)


async def _await_reply(future: asyncio.Future[JoinReply | SyncReply]) -> Any:
    reply = await future
    return _joined(reply) if isinstance(reply, JoinReply) else _synced(reply)


def _joined(reply: JoinReply) -> Any:
    members = [
        JoinGroupResponse.JoinGroupResponseMember(member_id=member_id, group_instance_id=instance_id, metadata=metadata)
        for member_id, instance_id, metadata in reply.members
    ]
    return JoinGroupResponse(
        error_code=reply.code,
        generation_id=reply.generation,
        protocol_name=reply.protocol,
        leader=reply.leader,
        member_id=reply.member_id,
        members=members,
    )


def sync_group(broker: Broker, request: Request) -> Any:
    """The leader gives assignments, everybody gets theirs."""
    body = request.body
    given = {each.member_id: each.assignment or b"" for each in body.assignments}
    try:
        future = broker.coordinator.sync(
            body.group_id, body.member_id, body.group_instance_id, body.generation_id, given
        )
    except ProtocolError as error:
        return _synced(SyncReply(error.code))
    return _await_reply(future)


def _synced(reply: SyncReply) -> Any:
    return SyncGroupResponse(error_code=reply.code, assignment=reply.assignment)


def heartbeat(broker: Broker, request: Request) -> Any:
    """The member is alive."""
    body = request.body
    try:
        code = broker.coordinator.heartbeat(body.group_id, body.member_id, body.group_instance_id, body.generation_id)
    except ProtocolError as error:
        code = error.code
    return HeartbeatResponse(error_code=code)


def leave_group(broker: Broker, request: Request) -> Any:
    """Members leave at once instead of by their session timeout."""
    body = request.body
    if request.version < _LEAVES_MANY_FROM_VERSION:
        return LeaveGroupResponse(error_code=_leave(broker, body.group_id, body.member_id, None))
    members = [
        LeaveGroupResponse.MemberResponse(
            member_id=each.member_id,
            group_instance_id=each.group_instance_id,
            error_code=_leave(broker, body.group_id, each.member_id, each.group_instance_id),
        )
        for each in body.members
    ]
    return LeaveGroupResponse(error_code=Code.NONE, members=members)


def _leave(broker: Broker, group: str, member_id: str, instance_id: str | None) -> Code:
    try:
        return broker.coordinator.leave(group, member_id, instance_id)
    except ProtocolError as error:
        return error.code


def offset_commit(broker: Broker, request: Request) -> Any:
    """Keep a group's offsets, for the partitions that exist."""
    body = request.body
    try:
        code = broker.coordinator.check_commit(
            body.group_id, body.member_id, body.group_instance_id, body.generation_id_or_member_epoch
        )
    except ProtocolError as error:
        code = error.code
    codes: dict[tuple[str, int], Code] = {}
    accepted: list[CommittedOffset] = []
    for topic in body.topics:
        for each in topic.partitions:
            key = (topic.name, each.partition_index)
            codes[key] = code if code is not Code.NONE else _check_offset(broker, topic.name, each)
            if codes[key] is Code.NONE:
                metadata = each.committed_metadata or ""
                accepted.append(CommittedOffset(*key, each.committed_offset, each.committed_leader_epoch, metadata))
    if accepted:
        try:
            broker.coordinator.commit(body.group_id, accepted)
        except sqlite3.Error as error:
            _LOG.error("offsets of group %s were not kept: %s", body.group_id, error)
            codes.update({(each.topic, each.partition): Code.COORDINATOR_NOT_AVAILABLE for each in accepted})
    topics = [
        OffsetCommitResponse.OffsetCommitResponseTopic(
            name=topic.name,
            partitions=[
                OffsetCommitResponse.OffsetCommitResponseTopic.OffsetCommitResponsePartition(
                    partition_index=each.partition_index, error_code=codes[topic.name, each.partition_index]
                )
                for each in topic.partitions
            ],
        )
        for topic in body.topics
    ]
    return OffsetCommitResponse(topics=topics)


def _check_offset(broker: Broker, topic: str, wanted: Any) -> Code:
    try:
        broker.store.partition(topic, wanted.partition_index)
    except ProtocolError as error:
        return error.code
    if len(wanted.committed_metadata or "") > METADATA_CHARACTERS_MAX:
        return Code.OFFSET_METADATA_TOO_LARGE
    return Code.NONE


def offset_fetch(broker: Broker, request: Request) -> Any:
    """A group's offsets: of the partitions asked for, or all."""
    body = request.body
    committed = broker.coordinator.committed(body.group_id)
    if body.topics is None:
        wanted: dict[str, list[int]] = {}
        for topic, number in committed:
            wanted.setdefault(topic, []).append(number)
    else:
        wanted = {topic.name: list(topic.partition_indexes) for topic in body.topics}
    topics = [
        OffsetFetchResponse.OffsetFetchResponseTopic(
            name=name, partitions=[_fetched(number, committed.get((name, number))) for number in numbers]
        )
        for name, numbers in wanted.items()
    ]
    return OffsetFetchResponse(topics=topics, error_code=Code.NONE)


def _fetched(number: int, offset: CommittedOffset | None) -> Any:
    return OffsetFetchResponse.OffsetFetchResponseTopic.OffsetFetchResponsePartition(
        partition_index=number,
        committed_offset=-1 if offset is None else offset.offset,
        committed_leader_epoch=-1 if offset is None else offset.leader_epoch,
        metadata="" if offset is None else offset.metadata,
        error_code=Code.NONE,
    )


def list_groups(broker: Broker, _: Request) -> Any:
    """All groups with members or with offsets."""
    groups = []
    for name in broker.coordinator.names:
        group = broker.coordinator.group(name)
        kind = "consumer" if group is None else group.protocol_type
        groups.append(ListGroupsResponse.ListedGroup(group_id=name, protocol_type=kind))
    return ListGroupsResponse(error_code=Code.NONE, groups=groups)


def describe_groups(broker: Broker, request: Request) -> Any:
    """State and members of groups."""
    return DescribeGroupsResponse(groups=[_describe(broker, name) for name in request.body.groups])


def _describe(broker: Broker, name: str) -> Any:
    group = broker.coordinator.group(name)
    if group is None:
        known = name in broker.coordinator.names
        state, kind = ("Empty", "consumer") if known else ("Dead", "")
        return DescribeGroupsResponse.DescribedGroup(
            error_code=Code.NONE, group_id=name, group_state=state, protocol_type=kind, protocol_data="", members=[]
        )
    members = [
        DescribeGroupsResponse.DescribedGroup.DescribedGroupMember(
            member_id=each.id,
            group_instance_id=each.joining.instance_id,
            client_id=each.joining.client_id,
            client_host=each.joining.client_host,
            member_metadata=each.metadata(group.protocol),
            member_assignment=each.assignment,
        )
        for each in group.members.values()
    ]
    return DescribeGroupsResponse.DescribedGroup(
        error_code=Code.NONE,
        group_id=name,
        group_state=group.state.value,
        protocol_type=group.protocol_type,
        protocol_data=group.protocol,
        members=members,
    )


def delete_groups(broker: Broker, request: Request) -> Any:
    """Forget groups without members, and their offsets."""
    results = [
        DeleteGroupsResponse.DeletableGroupResult(group_id=name, error_code=broker.coordinator.delete(name))
        for name in request.body.groups_names
    ]
    return DeleteGroupsResponse(results=results)
