"""Which messages may be acknowledged, and which redelivered ones are recognised."""

from __future__ import annotations

from stream_jobs.mapping.acknowledgements import Acknowledgements, Taken


def arrive(session: Acknowledgements, packet_id: int, payload: bytes = b"x", duplicate: bool = False) -> Taken | None:
    """A QoS 1 message on topic `t`."""
    return session.arrived(packet_id, 1, duplicate, "t", payload)


def taken(session: Acknowledgements, packet_id: int, payload: bytes = b"x") -> Taken:
    """The same, when it is new."""
    found = arrive(session, packet_id, payload)
    assert found is not None
    return found


def test_messages_are_acknowledged_in_the_order_in_which_they_came() -> None:
    """One that is done earlier waits for those before it."""
    session = Acknowledgements()
    first, second, third = (taken(session, number) for number in (5, 6, 7))
    second.left = 0
    assert list(session.ready()) == []
    first.left = 0
    assert list(session.ready()) == [5, 6]
    third.left = 0
    assert list(session.ready()) == [7]
    assert len(session) == 0


def test_a_message_sent_again_is_recognised_and_acknowledged_once_it_is_done() -> None:
    """After a broken connection: same packet id, same content, marked as duplicate; also when it was done meanwhile."""
    session = Acknowledgements()
    first, second = taken(session, 5, b"a"), taken(session, 6, b"b")
    first.left = 0
    session.connected(True)
    assert list(session.ready()) == []
    assert arrive(session, 5, b"a", duplicate=True) is None
    assert arrive(session, 6, b"b", duplicate=True) is None
    assert list(session.ready()) == [5]
    second.left = 0
    assert list(session.ready()) == [6]


def test_another_message_under_the_same_packet_id_is_taken() -> None:
    """Other content, no duplicate mark, or a session that the broker forgot: it is a new message."""
    session = Acknowledgements()
    taken(session, 5, b"a")
    session.connected(True)
    assert arrive(session, 5, b"b", duplicate=True) is not None
    session.connected(True)
    assert arrive(session, 5, b"b") is not None
    session.connected(False)
    assert arrive(session, 5, b"b", duplicate=True) is not None


def test_qos_0_needs_no_acknowledgement() -> None:
    """Nothing is held for it."""
    session = Acknowledgements()
    found = session.arrived(0, 0, False, "t", b"x")
    assert found is not None
    found.left = 0
    assert (list(session.ready()), len(session)) == ([], 0)
