"""One consumer group: the classic group protocol as a state machine. Pure: time and member ids come as arguments.

    Empty -> PreparingRebalance -> CompletingRebalance -> Stable -> PreparingRebalance ... -> Empty

A request that cannot be answered at once is kept as a ticket, a number that the caller chose; each method returns the
tickets it answers now, with their replies. Follows Apache Kafka's GroupCoordinator of the classic protocol, static
membership (KIP-345) included: a member with an instance id that comes back under a new member id takes its old place in
a stable group without a rebalance, and whoever still uses the old member id is fenced.

**Delivery**: nothing here survives the process; members find out by UNKNOWN_MEMBER_ID and join again. Committed
offsets are kept elsewhere. **Bounds**: members per group; a rebalance lasts at most its members' longest rebalance
timeout.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum

from .codes import Code

__all__ = ["Group", "JoinReply", "Joining", "Member", "Replies", "State", "SyncReply"]


class State(Enum):
    """As ListGroups and DescribeGroups spell them."""

    EMPTY = "Empty"
    PREPARING = "PreparingRebalance"
    COMPLETING = "CompletingRebalance"
    STABLE = "Stable"


@dataclass(frozen=True, kw_only=True)
class Joining:
    """What a member says when it joins; times in seconds, protocols in order of preference with their metadata."""

    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_s: float
    rebalance_timeout_s: float
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, kw_only=True)
class JoinReply:
    """Answer to JoinGroup; `members` (member id, instance id, metadata) is for the leader only."""

    code: Code
    member_id: str = ""
    generation: int = -1
    protocol: str = ""
    leader: str = ""
    members: tuple[tuple[str, str | None, bytes], ...] = ()


@dataclass(frozen=True)
class SyncReply:
    """Answer to SyncGroup."""

    code: Code
    assignment: bytes = b""


Replies = list[tuple[int, JoinReply | SyncReply]]


@dataclass
class Member:
    """A member of the group; `deadline_s` is when its session ends unless it is heard from."""

    joining: Joining
    deadline_s: float
    assignment: bytes = b""
    join_ticket: int | None = None
    sync_ticket: int | None = None

    @property
    def id(self) -> str:
        """Its member id."""
        return self.joining.member_id

    @property
    def waiting(self) -> bool:
        """Whether it waits for an answer; then its session cannot end."""
        return self.join_ticket is not None or self.sync_ticket is not None

    @property
    def protocol_names(self) -> set[str]:
        """Names of the protocols it supports."""
        return {name for name, _ in self.joining.protocols}

    def metadata(self, protocol: str) -> bytes:
        """Its metadata for the chosen protocol."""
        return dict(self.joining.protocols).get(protocol, b"")


@dataclass
class Group:
    """One group. `initial_delay_s`: how long an empty group waits for more members before its first generation."""

    name: str
    initial_delay_s: float
    members_max: int
    state: State = State.EMPTY
    generation: int = 0
    protocol_type: str = ""
    protocol: str = ""
    leader: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    invited: dict[str, float] = field(default_factory=dict)
    """Member ids given out with MEMBER_ID_REQUIRED, until when they may join."""
    _statics: dict[str, str] = field(default_factory=dict)
    _rebalance_until_s: float = 0.0
    _rebalance_not_before_s: float = 0.0

    # --- requests -------------------------------------------------------------------------------------------------

    def invite(self, member_id: str, session_timeout_s: float, now_s: float) -> JoinReply:
        """Answer a first join without a member id: come back with this one (KIP-394)."""
        if len(self.members) + len(self.invited) >= self.members_max:
            return JoinReply(code=Code.GROUP_MAX_SIZE_REACHED)
        self.invited[member_id] = now_s + session_timeout_s
        return JoinReply(code=Code.MEMBER_ID_REQUIRED, member_id=member_id)

    def join(self, ticket: int, joining: Joining, new_member_id: str, now_s: float) -> Replies:
        """JoinGroup. A member without an id gets `new_member_id`, a returning static one takes its place with it."""
        refusal = self._refuse_join(joining)
        if refusal is not None:
            return [(ticket, JoinReply(code=refusal, member_id=joining.member_id))]
        if joining.instance_id is not None and not joining.member_id and joining.instance_id in self._statics:
            return self._replace_static(ticket, _renamed(joining, new_member_id), now_s)
        member = self.members.get(joining.member_id)
        if member is None:
            return self._add(ticket, joining if joining.member_id else _renamed(joining, new_member_id), now_s)
        unchanged = member.joining.protocols == joining.protocols
        member.joining = joining
        member.deadline_s = now_s + joining.session_timeout_s
        replies = self._answer_ticket(member, Code.REBALANCE_IN_PROGRESS)
        if unchanged and (self.state is State.COMPLETING or (self.state is State.STABLE and member.id != self.leader)):
            return [*replies, (ticket, self._join_reply(member))]
        member.join_ticket = ticket
        return replies + self._rebalance(now_s)

    def _refuse_join(self, joining: Joining) -> Code | None:
        code = self.check_member(joining.member_id, joining.instance_id) if joining.member_id else Code.NONE
        if code is Code.UNKNOWN_MEMBER_ID and joining.member_id in self.invited:
            code = Code.NONE
        if code is not Code.NONE:
            return code
        names = {name for name, _ in joining.protocols}
        replaced = self._statics.get(joining.instance_id or "", joining.member_id)
        others = [each for each in self.members.values() if each.id not in {joining.member_id, replaced}]
        if not joining.protocol_type or not names or (others and joining.protocol_type != self.protocol_type):
            return Code.INCONSISTENT_GROUP_PROTOCOL
        if others and not names & set[str].intersection(*(each.protocol_names for each in others)):
            return Code.INCONSISTENT_GROUP_PROTOCOL
        known = joining.member_id in self.members or joining.member_id in self.invited
        known = known or (joining.instance_id is not None and joining.instance_id in self._statics)
        if not known and len(self.members) + len(self.invited) >= self.members_max:
            return Code.GROUP_MAX_SIZE_REACHED
        return None

    def _add(self, ticket: int, joining: Joining, now_s: float) -> Replies:
        self.invited.pop(joining.member_id, None)
        first = not self.members
        self.protocol_type = joining.protocol_type
        member = Member(joining, now_s + joining.session_timeout_s, join_ticket=ticket)
        self.members[joining.member_id] = member
        if joining.instance_id is not None:
            self._statics[joining.instance_id] = joining.member_id
        if first:
            self._rebalance_not_before_s = now_s + self.initial_delay_s
        return self._rebalance(now_s)

    def _replace_static(self, ticket: int, joining: Joining, now_s: float) -> Replies:
        """The member with this instance id is back: same place, new member id, the old id fenced."""
        assert joining.instance_id is not None
        old = self.members.pop(self._statics[joining.instance_id])
        replies = self._answer_ticket(old, Code.FENCED_INSTANCE_ID)
        member = Member(joining, now_s + joining.session_timeout_s, assignment=old.assignment)
        self.members[member.id] = member
        self._statics[joining.instance_id] = member.id
        leader_before = self.leader
        if self.leader == old.id:
            self.leader = member.id
        if self.state is State.STABLE and self._choose_protocol() == self.protocol:
            # Told the old leader's id, a returning leader does not assign again, and gets its old assignment.
            reply = JoinReply(
                code=Code.NONE,
                member_id=member.id,
                generation=self.generation,
                protocol=self.protocol,
                leader=leader_before,
            )
            return [*replies, (ticket, reply)]
        member.join_ticket = ticket
        return replies + self._rebalance(now_s)

    def sync(
        self,
        ticket: int,
        member_id: str,
        instance_id: str | None,
        *,
        generation: int,
        given: dict[str, bytes],
        now_s: float,
    ) -> Replies:
        """SyncGroup; `given` are the leader's assignments by member id."""
        code = self.check_member(member_id, instance_id)
        if code is Code.NONE and generation != self.generation:
            code = Code.ILLEGAL_GENERATION
        if code is Code.NONE and self.state is State.PREPARING:
            code = Code.REBALANCE_IN_PROGRESS
        if code is not Code.NONE:
            return [(ticket, SyncReply(code))]
        member = self.members[member_id]
        member.deadline_s = now_s + member.joining.session_timeout_s
        if self.state is State.STABLE:
            return [(ticket, SyncReply(Code.NONE, member.assignment))]
        replies = self._answer_ticket(member, Code.REBALANCE_IN_PROGRESS)
        member.sync_ticket = ticket
        if member_id != self.leader:
            return replies
        self.state = State.STABLE
        for each in self.members.values():
            each.assignment = given.get(each.id, b"")
            if each.sync_ticket is not None:
                replies.append((each.sync_ticket, SyncReply(Code.NONE, each.assignment)))
                each.sync_ticket = None
                each.deadline_s = now_s + each.joining.session_timeout_s
        return replies

    def heartbeat(self, member_id: str, instance_id: str | None, generation: int, now_s: float) -> Code:
        """Heartbeat: the member is alive; it learns whether it has to join again."""
        code = self.check_generation(member_id, instance_id, generation)
        if code is not Code.NONE:
            return code
        member = self.members[member_id]
        member.deadline_s = now_s + member.joining.session_timeout_s
        return Code.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else Code.NONE

    def leave(self, member_id: str, instance_id: str | None, now_s: float) -> tuple[Code, Replies]:
        """LeaveGroup for one member, by member id, or by instance id alone."""
        if member_id in self.invited:
            del self.invited[member_id]
            return Code.NONE, []
        if not member_id and instance_id is not None:
            member_id = self._statics.get(instance_id, "")
        code = self.check_member(member_id, instance_id)
        if code is not Code.NONE:
            return code, []
        return Code.NONE, self._remove([self.members[member_id]], now_s)

    def check_commit(self, member_id: str, instance_id: str | None, generation: int, now_s: float) -> Code:
        """Whether this member may commit offsets now; without a member id only while the group is empty."""
        if generation < 0 and not member_id and not self.members:
            return Code.NONE
        code = self.check_generation(member_id, instance_id, generation)
        if code is not Code.NONE:
            return code
        if self.state is State.COMPLETING:
            return Code.REBALANCE_IN_PROGRESS
        member = self.members[member_id]
        member.deadline_s = now_s + member.joining.session_timeout_s
        return Code.NONE

    def check_member(self, member_id: str, instance_id: str | None) -> Code:
        """NONE for a member of the group; FENCED_INSTANCE_ID when another member id has its instance id."""
        if instance_id is not None and self._statics.get(instance_id, member_id) != member_id:
            return Code.FENCED_INSTANCE_ID
        return Code.NONE if member_id in self.members else Code.UNKNOWN_MEMBER_ID

    def check_generation(self, member_id: str, instance_id: str | None, generation: int) -> Code:
        """As `check_member`, and ILLEGAL_GENERATION for another generation than the present one."""
        code = self.check_member(member_id, instance_id)
        return Code.ILLEGAL_GENERATION if code is Code.NONE and generation != self.generation else code

    # --- time -----------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> Replies:
        """End sessions and rebalances that are over."""
        self.invited = {member_id: until_s for member_id, until_s in self.invited.items() if until_s > now_s}
        replies: Replies = []
        ended = [each for each in self.members.values() if not each.waiting and each.deadline_s <= now_s]
        if ended:
            replies += self._remove(ended, now_s)
        if self.state is State.COMPLETING and self._rebalance_until_s <= now_s:
            silent = [each for each in self.members.values() if each.sync_ticket is None]
            replies += self._remove(silent, now_s) if silent else self._rebalance(now_s)
        if self.state is State.PREPARING:
            replies += self._complete(now_s)
        return replies

    def next_deadline_s(self) -> float:
        """When `tick` has to be called next; infinity when never."""
        times = [each.deadline_s for each in self.members.values() if not each.waiting]
        times += self.invited.values()
        if self.state in {State.PREPARING, State.COMPLETING}:
            times.append(self._rebalance_until_s)
        waiting = all(each.join_ticket is not None for each in self.members.values()) and not self.invited
        if self.state is State.PREPARING and waiting:
            times.append(self._rebalance_not_before_s)
        return min(times, default=float("inf"))

    # --- rebalance ------------------------------------------------------------------------------------------------

    def _rebalance(self, now_s: float) -> Replies:
        """Begin a rebalance, or go on with the one under way."""
        replies: Replies = []
        if self.state is not State.PREPARING:
            for member in self.members.values():
                if member.sync_ticket is not None:
                    replies.append((member.sync_ticket, SyncReply(Code.REBALANCE_IN_PROGRESS)))
                    member.sync_ticket = None
            self.state = State.PREPARING
            longest_s = max(each.joining.rebalance_timeout_s for each in self.members.values())
            self._rebalance_until_s = now_s + longest_s
        return replies + self._complete(now_s)

    def _complete(self, now_s: float) -> Replies:
        """End the rebalance if everybody is back or its time is over: next generation, answers to all who joined."""
        missing = [each for each in self.members.values() if each.join_ticket is None]
        if self.state is not State.PREPARING or now_s < self._rebalance_not_before_s:
            return []
        if (missing or self.invited) and now_s < self._rebalance_until_s:
            return []
        for member in missing:
            if member.joining.instance_id is None:
                del self.members[member.id]
        joined = [each for each in self.members.values() if each.join_ticket is not None]
        if not joined:
            # Only static members are left, and none of them is back: their sessions decide when the group is empty.
            if not self.members:
                self._become_empty()
            else:
                self._rebalance_until_s = max(now_s + 1.0, min(each.deadline_s for each in self.members.values()))
            return []
        self.generation += 1
        self.state = State.COMPLETING
        self.protocol = self._choose_protocol()
        if self.leader not in {each.id for each in joined}:
            self.leader = joined[0].id
        self._rebalance_until_s = now_s + max(each.joining.rebalance_timeout_s for each in joined)
        replies: Replies = []
        for member in joined:
            assert member.join_ticket is not None
            replies.append((member.join_ticket, self._join_reply(member)))
            member.join_ticket = None
            member.deadline_s = now_s + member.joining.session_timeout_s
        return replies

    def _choose_protocol(self) -> str:
        """The protocol that all support and most prefer; the first in order of names where two have as many votes."""
        common = set[str].intersection(*(each.protocol_names for each in self.members.values()))
        if not common:
            return ""
        votes = Counter(
            next(name for name, _ in each.joining.protocols if name in common) for each in self.members.values()
        )
        return min(votes, key=lambda name: (-votes[name], name))

    def _join_reply(self, member: Member) -> JoinReply:
        members: tuple[tuple[str, str | None, bytes], ...] = ()
        if member.id == self.leader:
            members = tuple(
                (each.id, each.joining.instance_id, each.metadata(self.protocol)) for each in self.members.values()
            )
        return JoinReply(
            code=Code.NONE,
            member_id=member.id,
            generation=self.generation,
            protocol=self.protocol,
            leader=self.leader,
            members=members,
        )

    @staticmethod
    def _answer_ticket(member: Member, code: Code) -> Replies:
        """Answer what the member still waits for: it has sent a newer request, or is out."""
        replies: Replies = []
        if member.join_ticket is not None:
            replies.append((member.join_ticket, JoinReply(code=code, member_id=member.id)))
        if member.sync_ticket is not None:
            replies.append((member.sync_ticket, SyncReply(code)))
        member.join_ticket = member.sync_ticket = None
        return replies

    def _remove(self, members: list[Member], now_s: float) -> Replies:
        replies: Replies = []
        for member in members:
            replies += self._answer_ticket(member, Code.UNKNOWN_MEMBER_ID)
            del self.members[member.id]
            if member.joining.instance_id is not None:
                self._statics.pop(member.joining.instance_id, None)
        if not self.members:
            self._become_empty()
            return replies
        return replies + self._rebalance(now_s)

    def _become_empty(self) -> None:
        self.state = State.EMPTY
        self.generation += 1
        self.protocol = self.leader = ""


def _renamed(joining: Joining, member_id: str) -> Joining:
    return Joining(
        **{**{name: getattr(joining, name) for name in Joining.__dataclass_fields__}, "member_id": member_id}
    )
