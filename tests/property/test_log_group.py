"""Any order of joins, syncs, heartbeats, leaves and time: the group's invariants hold and nobody waits for ever."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_jobs.log.codes import Code
from stream_jobs.log.group import Group, Joining, JoinReply, Replies, State

SESSION_S, REBALANCE_S = 5.0, 8.0
CLIENTS = 4

steps = st.lists(
    st.tuples(
        st.sampled_from(["join", "sync", "heartbeat", "leave", "forget", "tick"]),
        st.integers(0, CLIENTS - 1),
        st.floats(0.0, 3.0),
    ),
    max_size=60,
)


class World:
    """Clients as they see themselves, and the group. Clients 0 and 1 are static."""

    def __init__(self) -> None:
        self.group = Group("g", 0.5, 10)
        self.now_s = 0.0
        self.ids = [""] * CLIENTS
        self.generations = [-1] * CLIENTS
        self.leads = [False] * CLIENTS
        self.members: list[tuple[str, ...]] = [()] * CLIENTS
        self.waiting: dict[int, tuple[int, float]] = {}
        self.count = 0

    def instance(self, client: int) -> str | None:
        return f"i{client}" if client < 2 else None

    def take(self, replies: Replies) -> None:
        """Answers reach their clients."""
        for ticket, reply in replies:
            client, _ = self.waiting.pop(ticket)
            if isinstance(reply, JoinReply):
                self._joined(client, reply)

    def _joined(self, client: int, reply: JoinReply) -> None:
        if reply.code is Code.NONE:
            assert reply.generation > 0
            self.ids[client], self.generations[client] = reply.member_id, reply.generation
            self.leads[client] = reply.leader == reply.member_id
            self.members[client] = tuple(member for member, _, _ in reply.members)
            if self.leads[client]:
                assert reply.member_id in self.members[client]
            else:
                assert reply.members == ()
        elif reply.code in {Code.UNKNOWN_MEMBER_ID, Code.FENCED_INSTANCE_ID}:
            self.ids[client] = ""

    def ticket(self, client: int) -> int:
        self.count += 1
        self.waiting[self.count] = (client, self.now_s)
        return self.count

    def join(self, client: int) -> None:
        joining = Joining(
            member_id=self.ids[client],
            instance_id=self.instance(client),
            client_id="c",
            client_host="h",
            session_timeout_s=SESSION_S,
            rebalance_timeout_s=REBALANCE_S,
            protocol_type="consumer",
            protocols=(("range", b"%d" % client),),
        )
        self.take(self.group.join(self.ticket(client), joining, f"m{client}-{self.count}", self.now_s))

    def sync(self, client: int) -> None:
        given = {member: member.encode() for member in self.members[client]} if self.leads[client] else {}
        replies = self.group.sync(
            self.ticket(client),
            self.ids[client],
            self.instance(client),
            generation=self.generations[client],
            given=given,
            now_s=self.now_s,
        )
        self.take(replies)

    def step(self, what: str, client: int) -> None:
        busy = any(each == client for each, _ in self.waiting.values())
        if what == "join" and not busy:
            self.join(client)
        elif what == "sync" and not busy:
            self.sync(client)
        elif what == "heartbeat":
            self.group.heartbeat(self.ids[client], self.instance(client), self.generations[client], self.now_s)
        elif what == "leave" and not busy:
            self.take(self.group.leave(self.ids[client], self.instance(client), self.now_s)[1])
        elif what == "forget" and not busy:
            self.ids[client] = ""
        else:
            self.take(self.group.tick(self.now_s))

    def check(self) -> None:
        group = self.group
        tickets = {each.join_ticket for each in group.members.values()} | {
            each.sync_ticket for each in group.members.values()
        }
        assert tickets - {None} == set(self.waiting), "every waiting request belongs to a member"
        instances = [each.joining.instance_id for each in group.members.values() if each.joining.instance_id]
        assert len(set(instances)) == len(instances), "one member for each instance id"
        assert (group.state is State.EMPTY) == (not group.members)
        if group.state in {State.STABLE, State.COMPLETING}:
            assert group.leader in group.members
        if group.state is State.STABLE:
            assert not self.waiting, "nobody waits in a stable group"
        if self.waiting:
            assert group.next_deadline_s() < float("inf"), "who waits has a deadline"


@settings(max_examples=300, deadline=None)
@given(steps)
def test_invariants_of_a_group(history: list[tuple[str, int, float]]) -> None:
    """After any history the invariants hold, and letting time pass answers everybody and empties the group."""
    world = World()
    for what, client, pause_s in history:
        world.now_s += pause_s
        world.take(world.group.tick(world.now_s))
        world.check()
        world.step(what, client)
        world.check()
    for _ in range(100):
        deadline_s = world.group.next_deadline_s()
        if deadline_s == float("inf"):
            break
        world.now_s = max(world.now_s, deadline_s)
        world.take(world.group.tick(world.now_s))
        world.check()
    assert not world.waiting
    assert world.group.state is State.EMPTY
