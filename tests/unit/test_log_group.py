"""The group protocol as a state machine: joining, rebalancing, leaving, timing out, static members."""

from __future__ import annotations

from stream_jobs.log.codes import Code
from stream_jobs.log.group import Group, Joining, JoinReply, Replies, State, SyncReply

SESSION_S, REBALANCE_S = 10.0, 30.0


def joining(member_id: str = "", instance_id: str | None = None, *, protocols: tuple[str, ...] = ("range",)) -> Joining:
    """What a member of these tests says."""
    return Joining(
        member_id=member_id,
        instance_id=instance_id,
        client_id="c",
        client_host="/127.0.0.1",
        session_timeout_s=SESSION_S,
        rebalance_timeout_s=REBALANCE_S,
        protocol_type="consumer",
        protocols=tuple((name, f"{name} of {member_id or instance_id}".encode()) for name in protocols),
    )


def new_group(delay_s: float = 0.0) -> Group:
    """An empty group."""
    return Group("g", delay_s, 10)


def joins(replies: Replies) -> dict[int, JoinReply]:
    """The answers to joins among the replies, by ticket."""
    return {ticket: reply for ticket, reply in replies if isinstance(reply, JoinReply)}


def syncs(replies: Replies) -> dict[int, SyncReply]:
    """The answers to syncs among the replies, by ticket."""
    return {ticket: reply for ticket, reply in replies if isinstance(reply, SyncReply)}


def stable(*instances: str | None) -> tuple[Group, list[str]]:
    """A stable group of members m0, m1 ... with assignments a0, a1 ...; m0 leads."""
    group = new_group(1.0)
    for number, instance in enumerate(instances):
        assert group.join(number, joining("", instance), f"m{number}", 0.0) == []
    members = [reply.member_id for reply in joins(group.tick(1.0)).values()]
    given = {member: f"a{number}".encode() for number, member in enumerate(members)}
    for number, member in reversed(list(enumerate(members))):
        group.sync(100 + number, member, instances[number], generation=1, given=given if number == 0 else {}, now_s=1.0)
    assert group.state is State.STABLE
    return group, members


def test_the_first_member_leads_and_gets_its_own_assignment() -> None:
    """A single member joins, is leader of generation 1, and syncs its own assignment."""
    group = new_group()
    reply = joins(group.join(1, joining(), "m0", 0.0))[1]
    assert (reply.code, reply.member_id, reply.leader, reply.generation, reply.protocol) == (
        Code.NONE, "m0", "m0", 1, "range",
    )  # fmt: skip
    assert reply.members == (("m0", None, b"range of None"),)
    answer = syncs(group.sync(2, "m0", None, generation=1, given={"m0": b"all"}, now_s=0.0))[2]
    assert answer == SyncReply(Code.NONE, b"all")
    assert group.state is State.STABLE


def test_an_empty_group_waits_for_more_members_first() -> None:
    """Members that come within the delay are in the first generation together."""
    group = new_group(3.0)
    assert group.join(1, joining(), "m0", 0.0) == []
    assert group.join(2, joining(), "m1", 1.0) == []
    assert group.next_deadline_s() == 3.0
    assert group.tick(2.9) == []
    answers = joins(group.tick(3.0))
    assert {reply.generation for reply in answers.values()} == {1}
    assert len(answers[1].members) == 2
    assert answers[2].members == ()


def test_members_wait_for_the_leader_to_assign() -> None:
    """A follower's sync is answered when the leader's comes."""
    group = new_group(1.0)
    group.join(1, joining(), "m0", 0.0)
    group.join(2, joining(), "m1", 0.0)
    group.tick(1.0)
    assert group.sync(3, "m1", None, generation=1, given={}, now_s=1.0) == []
    answers = syncs(group.sync(4, "m0", None, generation=1, given={"m0": b"x", "m1": b"y"}, now_s=1.0))
    assert answers == {3: SyncReply(Code.NONE, b"y"), 4: SyncReply(Code.NONE, b"x")}


def test_a_new_member_makes_the_others_join_again() -> None:
    """Heartbeats tell the others; when all are back the next generation begins."""
    group, (first,) = stable(None)
    assert group.join(1, joining(), "new", 2.0) == []
    assert group.heartbeat(first, None, 1, 2.5) is Code.REBALANCE_IN_PROGRESS
    answers = joins(group.join(2, joining(first), "", 3.0))
    assert {reply.generation for reply in answers.values()} == {2}
    assert group.sync(3, first, None, generation=1, given={}, now_s=3.0) == [(3, SyncReply(Code.ILLEGAL_GENERATION))]


def test_who_does_not_come_back_is_out() -> None:
    """After the rebalance timeout the generation begins without the member that did not join again."""
    group, (first, second) = stable(None, None)
    group.join(1, joining(), "new", 2.0)
    group.join(2, joining(second), "", 2.0)
    now_s = 2.0
    while now_s < 2.0 + REBALANCE_S:
        assert group.heartbeat(first, None, 1, now_s) is Code.REBALANCE_IN_PROGRESS
        assert group.tick(now_s) == []
        now_s += SESSION_S / 2
    answers = joins(group.tick(2.0 + REBALANCE_S))
    assert set(answers) == {1, 2}
    assert first not in group.members
    assert group.heartbeat(first, None, 1, now_s) is Code.UNKNOWN_MEMBER_ID


def test_a_silent_member_is_removed_by_its_session_timeout() -> None:
    """The others get its share after a rebalance."""
    group, (first, second) = stable(None, None)
    group.heartbeat(second, None, 1, 9.0)
    assert group.next_deadline_s() == 1.0 + SESSION_S
    assert group.tick(1.0 + SESSION_S) == []
    assert first not in group.members
    assert group.heartbeat(second, None, 1, 11.5) is Code.REBALANCE_IN_PROGRESS
    reply = joins(group.join(5, joining(second), "", 12.0))[5]
    assert (reply.leader, reply.generation) == (second, 2)


def test_leaving_is_immediate() -> None:
    """A member that leaves starts the rebalance at once; the last one leaves an empty group."""
    group, (first, second) = stable(None, None)
    code, _ = group.leave(first, None, 2.0)
    assert code is Code.NONE
    assert group.state is State.PREPARING
    assert group.leave(second, None, 2.0)[0] is Code.NONE
    assert group.state is State.EMPTY
    assert group.leave(second, None, 2.0)[0] is Code.UNKNOWN_MEMBER_ID


def test_a_killed_static_member_takes_its_place_at_once() -> None:
    """It comes back without a member id: same assignment, same generation, no rebalance; its old id is fenced."""
    group, (first, second) = stable("i0", "i1")
    reply = joins(group.join(1, joining("", "i1"), "back", 3.0))[1]
    assert (reply.code, reply.member_id, reply.generation) == (Code.NONE, "back", 1)
    assert syncs(group.sync(2, "back", "i1", generation=1, given={}, now_s=3.0)) == {2: SyncReply(Code.NONE, b"a1")}
    assert group.state is State.STABLE
    assert group.heartbeat(first, "i0", 1, 3.0) is Code.NONE
    assert group.heartbeat(second, "i1", 1, 3.0) is Code.FENCED_INSTANCE_ID


def test_a_killed_static_leader_comes_back_without_assigning() -> None:
    """It is not told that it leads, so it does not assign again, and gets its old assignment."""
    group, (first, _) = stable("i0", "i1")
    reply = joins(group.join(1, joining("", "i0"), "back", 3.0))[1]
    assert reply.leader == first != reply.member_id
    assert reply.members == ()
    assert syncs(group.sync(2, "back", "i0", generation=1, given={}, now_s=3.0)) == {2: SyncReply(Code.NONE, b"a0")}
    assert group.leader == "back"


def test_a_static_member_that_stays_away_is_removed_by_its_session_timeout() -> None:
    """Until then its place is kept, also through a rebalance."""
    group, (first, second) = stable("i0", "i1")
    group.join(1, joining(first, "i0", protocols=("range", "other")), "", 2.0)
    assert group.state is State.PREPARING
    assert second in group.members
    answers = joins(group.tick(1.0 + SESSION_S))
    assert second not in group.members
    assert answers[1].generation == 2


def test_a_static_member_leaves_by_its_instance_id() -> None:
    """An administrator removes it without knowing its member id."""
    group, _ = stable("i0", "i1")
    assert group.leave("", "i1", 2.0)[0] is Code.NONE
    assert len(group.members) == 1


def test_an_unchanged_follower_gets_the_present_generation() -> None:
    """Joining again without news does not disturb a stable group; the leader's joining does."""
    group, (first, second) = stable(None, None)
    reply = joins(group.join(1, group.members[second].joining, "", 2.0))[1]
    assert (reply.generation, group.state) == (1, State.STABLE)
    assert joins(group.join(2, group.members[first].joining, "", 2.0)) == {}
    assert group.state is State.PREPARING


def test_the_protocol_most_members_prefer() -> None:
    """Among the protocols that all support the most preferred is chosen."""
    group = new_group(1.0)
    for number, protocols in enumerate([("a", "b"), ("b", "a"), ("b", "a", "c")]):
        group.join(number, joining("", None, protocols=protocols), f"m{number}", 0.0)
    assert {reply.protocol for reply in joins(group.tick(1.0)).values()} == {"b"}


def test_members_without_a_common_protocol_are_refused() -> None:
    """Who supports none of the others' protocols, or is of another type, cannot join."""
    group, _ = stable(None)
    reply = joins(group.join(1, joining("", None, protocols=("sticky",)), "m1", 2.0))[1]
    assert reply.code is Code.INCONSISTENT_GROUP_PROTOCOL
    assert group.state is State.STABLE


def test_a_first_join_is_invited_back_with_an_id() -> None:
    """The id is good until the session timeout; a rebalance waits for the one who has it."""
    group = new_group()
    assert group.invite("m0", SESSION_S, 0.0) == JoinReply(code=Code.MEMBER_ID_REQUIRED, member_id="m0")
    assert joins(group.join(1, joining("m0"), "", 1.0))[1].code is Code.NONE
    group.invite("late", SESSION_S, 2.0)
    group.tick(2.0 + SESSION_S)
    assert joins(group.join(2, joining("late"), "", 13.0))[2].code is Code.UNKNOWN_MEMBER_ID


def test_the_group_is_bounded() -> None:
    """One more member than allowed is refused."""
    group = Group("g", 0.0, 1)
    group.join(1, joining(), "m0", 0.0)
    assert joins(group.join(2, joining(), "m1", 0.0))[2].code is Code.GROUP_MAX_SIZE_REACHED
    assert group.invite("m2", SESSION_S, 0.0).code is Code.GROUP_MAX_SIZE_REACHED


def test_who_may_commit() -> None:
    """Members of the generation may; others, and members without an assignment yet, may not."""
    group, (first,) = stable(None)
    assert group.check_commit(first, None, 1, 2.0) is Code.NONE
    assert group.check_commit(first, None, 7, 2.0) is Code.ILLEGAL_GENERATION
    assert group.check_commit("other", None, 1, 2.0) is Code.UNKNOWN_MEMBER_ID
    assert group.check_commit("", None, -1, 2.0) is Code.UNKNOWN_MEMBER_ID
    assert new_group().check_commit("", None, -1, 2.0) is Code.NONE
    group.join(1, joining(first), "", 3.0)
    assert group.state is State.COMPLETING
    assert group.check_commit(first, None, 2, 3.0) is Code.REBALANCE_IN_PROGRESS


def test_a_leader_that_never_assigns_is_removed() -> None:
    """Who waits for its assignment is told to join again after the rebalance timeout at the latest."""
    group = new_group(1.0)
    group.join(1, joining(), "m0", 0.0)
    group.join(2, joining(), "m1", 0.0)
    group.tick(1.0)
    group.sync(3, "m1", None, generation=1, given={}, now_s=1.0)
    now_s = 1.0
    while now_s < 1.0 + REBALANCE_S:
        group.heartbeat("m0", None, 1, now_s)
        assert group.tick(now_s) == []
        now_s += SESSION_S / 2
    assert syncs(group.tick(1.0 + REBALANCE_S)) == {3: SyncReply(Code.REBALANCE_IN_PROGRESS)}
    assert list(group.members) == ["m1"]
