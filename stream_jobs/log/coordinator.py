"""The group coordinator at its edge: groups by name, tickets as futures, one timer per group, offsets in their file.

**Delivery**: a commit that was answered survives a crash of the process. Members do not: after a restart of the log
they join again. **Bounds**: groups_max groups, with those that have only commits; group_members_max members in each.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Iterable

from .catalog import CommittedOffset, Offsets
from .codes import Code, ProtocolError
from .group import Group, Joining, JoinReply, Replies, State, SyncReply
from .settings import LogSettings

__all__ = ["Coordinator"]


class Coordinator:
    """All consumer groups of the log; belongs to the event loop."""

    def __init__(self, settings: LogSettings, offsets: Offsets, loop: asyncio.AbstractEventLoop) -> None:
        self._settings = settings
        self._offsets = offsets
        self._loop = loop
        self._groups: dict[str, Group] = {}
        self._committed = set(offsets.groups())
        self._tickets = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[JoinReply | SyncReply]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    @property
    def names(self) -> list[str]:
        """Groups with members or with commits."""
        return sorted(self._committed | self._groups.keys())

    def group(self, name: str) -> Group | None:
        """The group, if it has members; its fields are for reading."""
        return self._groups.get(name)

    def _check_name(self, name: str) -> None:
        if not name:
            raise ProtocolError(Code.INVALID_GROUP_ID, "a group needs a name")
        known = name in self._groups or name in self._committed
        if not known and len(self._committed | self._groups.keys()) >= self._settings.groups_max:
            message = f"there are {self._settings.groups_max} groups, groups_max allows no more; delete some"
            raise ProtocolError(Code.COORDINATOR_NOT_AVAILABLE, message)

    def join(self, name: str, joining: Joining, *, invite: bool) -> JoinReply | asyncio.Future[JoinReply | SyncReply]:
        """JoinGroup; with `invite` a member without ids is first given one. ProtocolError for a refused request."""
        self._check_name(name)
        least_s, most_s = self._settings.session_timeout_min_ms / 1000, self._settings.session_timeout_max_ms / 1000
        if not least_s <= joining.session_timeout_s <= most_s:
            message = f"session timeout of {joining.session_timeout_s} s is not in {least_s} to {most_s} s"
            raise ProtocolError(Code.INVALID_SESSION_TIMEOUT, message)
        group = self._groups.get(name)
        if group is None:
            if joining.member_id:
                raise ProtocolError(
                    Code.UNKNOWN_MEMBER_ID, f"group {name[:100]} has no member {joining.member_id[:100]}"
                )
            delay_s = self._settings.rebalance_delay_ms / 1000
            group = self._groups[name] = Group(name, delay_s, self._settings.group_members_max)
        member_id = f"{joining.client_id[:100]}-{uuid.uuid4()}"
        now_s = self._loop.time()
        if invite and not joining.member_id and joining.instance_id is None:
            reply = group.invite(member_id, joining.session_timeout_s, now_s)
            self._settle(group, [])
            return reply
        ticket, future = self._ticket()
        self._settle(group, group.join(ticket, joining, member_id, now_s))
        return future

    def sync(
        self, name: str, member_id: str, instance_id: str | None, generation: int, given: dict[str, bytes]
    ) -> asyncio.Future[JoinReply | SyncReply]:
        """SyncGroup."""
        group = self._known(name)
        ticket, future = self._ticket()
        now_s = self._loop.time()
        self._settle(group, group.sync(ticket, member_id, instance_id, generation=generation, given=given, now_s=now_s))
        return future

    def heartbeat(self, name: str, member_id: str, instance_id: str | None, generation: int) -> Code:
        """Heartbeat."""
        return self._known(name).heartbeat(member_id, instance_id, generation, self._loop.time())

    def leave(self, name: str, member_id: str, instance_id: str | None) -> Code:
        """LeaveGroup for one member."""
        group = self._known(name)
        code, replies = group.leave(member_id, instance_id, self._loop.time())
        self._settle(group, replies)
        return code

    def check_commit(self, name: str, member_id: str, instance_id: str | None, generation: int) -> Code:
        """Whether this member may commit offsets."""
        self._check_name(name)
        group = self._groups.get(name)
        if group is None:
            if generation < 0 and not member_id:
                return Code.NONE
            return Code.UNKNOWN_MEMBER_ID
        return group.check_commit(member_id, instance_id, generation, self._loop.time())

    def commit(self, name: str, offsets: Iterable[CommittedOffset]) -> None:
        """Keep these offsets; sqlite3.Error when the disk does not take them."""
        self._offsets.commit(name, offsets)
        self._committed.add(name)

    def committed(self, name: str) -> dict[tuple[str, int], CommittedOffset]:
        """All offsets of the group."""
        return self._offsets.committed(name)

    def delete(self, name: str) -> Code:
        """Forget an empty group and its offsets."""
        if name in self._groups:
            return Code.NON_EMPTY_GROUP
        if name not in self._committed:
            return Code.GROUP_ID_NOT_FOUND
        self._offsets.delete_group(name)
        self._committed.discard(name)
        return Code.NONE

    def close(self) -> None:
        """Stop all timers; who still waits is answered by the closed connection."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _known(self, name: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            raise ProtocolError(Code.UNKNOWN_MEMBER_ID, f"group {name[:100]} has no members")
        return group

    def _ticket(self) -> tuple[int, asyncio.Future[JoinReply | SyncReply]]:
        ticket = next(self._tickets)
        future: asyncio.Future[JoinReply | SyncReply] = self._loop.create_future()
        self._waiting[ticket] = future
        return ticket, future

    def _settle(self, group: Group, replies: Replies) -> None:
        """Hand out replies, drop the group once it is empty, and set its timer."""
        for ticket, reply in replies:
            future = self._waiting.pop(ticket)
            if not future.done():
                future.set_result(reply)
        if group.state is State.EMPTY and not group.invited:
            self._groups.pop(group.name, None)
        self._arm(group)

    def _arm(self, group: Group) -> None:
        timer = self._timers.get(group.name)
        deadline_s = group.next_deadline_s() if group.name in self._groups else float("inf")
        if timer is not None:
            if timer.when() <= deadline_s and deadline_s != float("inf"):
                return
            timer.cancel()
            del self._timers[group.name]
        if deadline_s != float("inf"):
            self._timers[group.name] = self._loop.call_at(deadline_s, self._tick, group)

    def _tick(self, group: Group) -> None:
        self._timers.pop(group.name, None)
        self._settle(group, group.tick(self._loop.time()))
