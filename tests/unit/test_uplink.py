"""The uplink's decisions: hello, positions, window, stalls, watermarks, closes."""

from __future__ import annotations

import itertools
import random

import pytest

from edge_agent.contract import limits
from edge_agent.contract.balancing import Endpoint
from edge_agent.contract.watermarks import HeldEpoch, Hello, make_watermarks
from edge_agent.reconnect import EXCLUDED_S, PAUSE_MAX_S, Reconnect, jittered_pause_s
from edge_agent.uplink import STALL_MAX_S, Read, Uplink, UplinkSettings

E1, E2, E3 = 1 << 33, 2 << 33, 3 << 33


def uplink(unacked_bytes_max: int = 1000, stall_s: float = 2.0) -> Uplink:
    """An uplink whose nonces are 1, 2, 3 ..."""
    numbers = itertools.count(1)
    settings = UplinkSettings(unacked_bytes_max, stall_s)
    return Uplink(settings, random.Random(7), lambda: next(numbers).to_bytes(8, "big"))


def answer(found: Uplink, hello: Hello, *marks: tuple[int, int], now_s: float = 0.0) -> list[tuple[int, int]]:
    """The bridge's watermarks for the connection of `hello`."""
    return found.received(make_watermarks(hello.nonce, marks, 0), now_s)


def send_all(found: Uplink, size: int = 100, now_s: float = 0.0) -> list[tuple[int, int]]:
    """Send while something is wanted; (epoch, seq) of each."""
    sent = []
    while (wanted := found.next_read()) is not None and (wanted.bytes_max >= size or wanted.alone):
        found.sent(wanted.epoch, wanted.seq, size, now_s)
        sent.append((wanted.epoch, wanted.seq))
    return sent


class TestHello:
    def test_it_names_what_is_held(self) -> None:
        """Each epoch with its first held seq: of an empty one of this opening, the next it will make."""
        found = uplink()
        found.hold(E1, 1, watermark=4, last_seq=9)
        found.appended(E2, 1, 1)
        hello = found.connected(0.0)
        assert hello.epochs == (HeldEpoch(E1, 5, True), HeldEpoch(E2, 1, True))
        answer(found, hello, (E1, 4), (E2, 1))
        assert found.connected(1.0).epochs == (HeldEpoch(E1, 5, True), HeldEpoch(E2, 2, True))

    def test_a_drained_old_epoch_is_not_named(self) -> None:
        """Of an epoch that is to be closed there is nothing to ask."""
        found = uplink()
        found.hold(E1, 1, watermark=9, last_seq=9)
        assert found.connected(0.0).epochs == ()

    def test_each_connection_has_its_own_nonce(self) -> None:
        """A new connection says another nonce; a stall on the same connection repeats it."""
        found = uplink()
        first = found.connected(0.0)
        again = found.stalled(10.0)
        assert again is not None
        assert again.nonce == first.nonce
        assert found.connected(11.0).nonce != first.nonce

    def test_more_epochs_than_fit(self) -> None:
        """Epochs of this opening are always named, then the oldest; the others wait."""
        found = uplink()
        for number in range(1, 101):
            found.hold(number << 33, 1, 0, 1)
        found.appended(200 << 33, 1, 1)
        named = [held.epoch >> 33 for held in found.connected(0.0).epochs]
        assert named == [*range(1, limits.HELLO_EPOCHS_MAX), 200]


class TestSending:
    def test_nothing_is_sent_before_an_answer(self) -> None:
        """Neither before a connection nor before a bridge has answered its hello."""
        found = uplink()
        found.appended(E1, 1, 1)
        assert found.next_read() is None
        found.connected(0.0)
        assert found.next_read() is None

    def test_sending_goes_on_at_watermark_plus_one(self) -> None:
        """The first answer to a hello sets the position; what is durable already is reported to be trimmed."""
        found = uplink()
        found.hold(E1, 1, watermark=0, last_seq=9)
        hello = found.connected(0.0)
        assert answer(found, hello, (E1, 6)) == [(E1, 6)]
        assert send_all(found) == [(E1, 7), (E1, 8), (E1, 9)]

    def test_a_new_epoch_needs_no_answer_of_its_own(self) -> None:
        """An epoch begun on an answered connection is sent at once: the bridge can only know nothing of it."""
        found = uplink()
        answer(found, found.connected(0.0))
        found.appended(E1, 1, 1)
        assert send_all(found) == [(E1, 1)]

    def test_a_new_epoch_that_was_sent_needs_an_answer_after_a_reconnect(self) -> None:
        """What was sent may or may not have arrived: the position is the answer's, not 1."""
        found = uplink()
        answer(found, found.connected(0.0))
        found.appended(E1, 1, 1)
        send_all(found)
        hello = found.connected(1.0)
        answer(found, hello)
        assert found.next_read() is None
        assert answer(found, hello, (E1, 1), now_s=1.0) == [(E1, 1)]
        found.appended(E1, 1, 2)
        assert send_all(found) == [(E1, 2)]

    def test_the_order_is_priority_then_age_then_seq(self) -> None:
        """The most important priority first, in it the older epoch, in it the seqs in order."""
        found = uplink(10_000)
        found.hold(E1, 2, 0, 1)
        found.hold(E3, 1, 0, 1)
        found.hold(E2, 1, 0, 2)
        answer(found, found.connected(0.0), (E1, 0), (E2, 0), (E3, 0))
        assert send_all(found) == [(E2, 1), (E2, 2), (E3, 1), (E1, 1)]

    def test_the_window_bounds_unacknowledged_bytes(self) -> None:
        """No more than unacked_bytes_max are under way; a watermark makes room for as much as it covers."""
        found = uplink(1000)
        found.hold(E1, 1, 0, 100)
        hello = found.connected(0.0)
        answer(found, hello, (E1, 0))
        assert len(send_all(found)) == 10
        assert found.unacked_bytes == 1000
        answer(found, hello, (E1, 3))
        assert [seq for _, seq in send_all(found)] == [11, 12, 13]

    def test_one_message_is_always_allowed(self) -> None:
        """A message larger than the window goes alone, when nothing else is under way."""
        found = uplink(1000)
        found.hold(E1, 1, 0, 2)
        hello = found.connected(0.0)
        answer(found, hello, (E1, 0))
        assert found.next_read() == Read(E1, 1, 1000, 4096, True)
        found.sent(E1, 1, 5000, 0.0)
        assert found.next_read() is None
        answer(found, hello, (E1, 1))
        wanted = found.next_read()
        assert wanted is not None
        assert (wanted.seq, wanted.alone) == (2, True)


class TestWatermarks:
    def test_another_nonce_is_ignored(self) -> None:
        """A watermark that answers another connection moves nothing."""
        found = uplink()
        found.hold(E1, 1, 0, 5)
        found.connected(0.0)
        assert found.received(make_watermarks(b"\xff" * 8, ((E1, 5),), 0), 0.0) == []
        assert found.next_read() is None

    def test_a_lower_watermark_moves_nothing(self) -> None:
        """What is trimmed stays trimmed: after a hello a lower watermark sets the position to the first seq held."""
        found = uplink()
        found.hold(E1, 1, watermark=4, last_seq=5)
        hello = found.connected(0.0)
        assert answer(found, hello, (E1, 2)) == []
        assert send_all(found) == [(E1, 5)]

    def test_a_watermark_above_all_counts_as_the_last(self) -> None:
        """An image restored from a backup learns that the original got further: it is drained, no more."""
        found = uplink()
        found.hold(E1, 1, 0, 5)
        assert answer(found, found.connected(0.0), (E1, 50)) == [(E1, 5)]
        assert found.closable() == [(E1, 5)]

    def test_unknown_epochs_are_ignored(self) -> None:
        """A bridge may speak of epochs that this device has forgotten, or a clone has made."""
        found = uplink()
        assert answer(found, found.connected(0.0), (E3, 7)) == []

    def test_after_a_disconnect_nothing_is_heard(self) -> None:
        """A watermark of a connection that has ended is late."""
        found = uplink()
        found.hold(E1, 1, 0, 5)
        hello = found.connected(0.0)
        found.disconnected()
        assert answer(found, hello, (E1, 5)) == []


class TestStalls:
    def test_an_unanswered_hello_is_repeated_with_back_off(self) -> None:
        """Without any bridge the pauses double up to the longest, with a jitter of a fifth."""
        found = uplink(stall_s=2.0)
        found.connected(0.0)
        now_s, pauses = 0.0, []
        for _ in range(8):
            at_s = found.stall_at_s()
            assert at_s is not None
            assert found.stalled(at_s - 0.001) is None
            assert found.stalled(at_s) is not None
            pauses.append(at_s - now_s)
            now_s = at_s
        for pause, wanted in zip(pauses, [2, 4, 8, 16, 30, 30, 30, 30], strict=True):
            assert 0.8 * wanted <= pause <= 1.2 * min(wanted, STALL_MAX_S)

    def test_after_a_stall_everything_above_the_watermark_is_sent_again(self) -> None:
        """No progress for stall_s: hello, and on its answer from watermark + 1."""
        found = uplink(stall_s=2.0)
        found.hold(E1, 1, 0, 3)
        hello = found.connected(0.0)
        answer(found, hello, (E1, 0))
        assert len(send_all(found)) == 3
        answer(found, hello, (E1, 1), now_s=1.0)
        assert found.stalled(2.0) is None
        assert found.stalled(3.5) is not None
        assert found.next_read() is None
        answer(found, hello, (E1, 1), now_s=3.6)
        assert send_all(found) == [(E1, 2), (E1, 3)]
        assert found.unacked_bytes == 200

    def test_a_watermark_that_does_not_move_is_no_progress(self) -> None:
        """A bridge that repeats itself does not keep the device from sending again what was lost."""
        found = uplink(stall_s=2.0)
        found.hold(E1, 1, 0, 3)
        hello = found.connected(0.0)
        answer(found, hello, (E1, 0))
        send_all(found)
        for tenth in range(1, 25):
            answer(found, hello, (E1, 0), now_s=tenth / 10)
        assert found.stalled(2.5) is not None

    def test_one_stuck_epoch_does_not_stop_the_others(self) -> None:
        """Each epoch has its own timer: one that never moves asks ever more rarely, the others go on sending."""
        found = uplink(10_000, stall_s=2.0)
        found.hold(E1, 1, 0, 1)
        hello = found.connected(0.0)
        answer(found, hello, (E1, 0))
        send_all(found)
        hellos = 0
        for second in range(1, 121):
            found.appended(E2, 1, second)
            send_all(found, now_s=float(second))
            hellos += found.stalled(float(second)) is not None
            answer(found, hello, (E1, 0), (E2, second), now_s=float(second))
            assert found.next_read() is None or found.next_read().epoch == E1  # type: ignore[union-attr]
            send_all(found, now_s=float(second))
        assert 4 <= hellos <= 10

    def test_idle_there_is_no_timer(self) -> None:
        """With everything acknowledged nothing is due, however long nothing happens."""
        found = uplink()
        hello = found.connected(0.0)
        answer(found, hello)
        found.appended(E1, 1, 1)
        send_all(found)
        assert found.stall_at_s() is not None
        answer(found, hello, (E1, 1))
        assert found.stall_at_s() is None
        assert found.stalled(1e9) is None

    def test_epochs_left_out_of_a_hello_get_their_turn(self) -> None:
        """When the first 64 are drained and forgotten, a stall asks for the rest."""
        found = uplink(1 << 20)
        numbers = range(1, 101)
        for number in numbers:
            found.hold(number << 33, 1, 0, 1)
        hello: Hello | None = found.connected(0.0)
        now_s = 0.0
        drained: set[int] = set()
        while len(drained) < 100:
            assert now_s < 60
            if hello is not None:
                for held in hello.epochs:
                    answer(found, hello, (held.epoch, 0), now_s=now_s)
                for epoch, seq in send_all(found, now_s=now_s):
                    answer(found, hello, (epoch, seq), now_s=now_s)
            for epoch, _ in found.closable():
                drained.add(epoch)
                found.forget(epoch)
            now_s += 1.0
            hello = found.stalled(now_s) or None
        assert found.closable() == []


class TestClose:
    def test_only_drained_epochs_of_earlier_openings_are_closed(self) -> None:
        """An epoch of this opening is never closed, an old one when its watermark is its last seq."""
        found = uplink()
        found.hold(E1, 1, 0, 2)
        found.appended(E2, 1, 1)
        hello = found.connected(0.0)
        answer(found, hello, (E1, 1), (E2, 1))
        assert found.closable() == []
        answer(found, hello, (E1, 2), (E2, 1))
        assert found.closable() == [(E1, 2)]
        found.forget(E1)
        assert found.closable() == []

    def test_nobody_is_told_before_somebody_listens(self) -> None:
        """A close sent into a broker without a bridge would be lost: it waits for a first answer."""
        found = uplink()
        found.hold(E1, 1, 2, 2)
        found.connected(0.0)
        assert found.closable() == []

    def test_forgetting_releases_the_window(self) -> None:
        """What was under way of a forgotten epoch does not count any more."""
        found = uplink()
        found.hold(E1, 1, 0, 3)
        answer(found, found.connected(0.0), (E1, 0))
        send_all(found)
        found.forget(E1)
        assert found.unacked_bytes == 0


class TestReconnect:
    def test_pauses_have_full_jitter_and_an_end(self) -> None:
        """Pauses spread from 0 to the doubled bound, and never pass the longest."""
        generator = random.Random(1)
        for failures in range(12):
            bound = min(PAUSE_MAX_S, 0.2 * 2**failures)
            pauses = [jittered_pause_s(failures, generator) for _ in range(200)]
            assert max(pauses) <= bound
            assert min(pauses) < bound / 4 < bound * 3 / 4 < max(pauses)

    def test_a_failed_broker_rests(self) -> None:
        """After a failure the other brokers are tried first, until the rest is over or all have failed."""
        found = Reconnect([Endpoint("a"), Endpoint("b")], "round-robin", random.Random(1))
        first = found.choose(0.0)
        found.failed(first, 0.0)
        assert {found.choose(1.0) for _ in range(4)} == {"a", "b"} - {first}
        found.failed("b" if first == "a" else "a", 1.0)
        assert {found.choose(2.0) for _ in range(4)} == {"a", "b"}
        assert found.choose(EXCLUDED_S + 0.5) == first

    def test_success_ends_the_back_off(self) -> None:
        """After an answer through a broker the next failure waits as the first did."""
        found = Reconnect([Endpoint("a")], "random", random.Random(1))
        for _ in range(10):
            found.failed("a", 0.0)
        found.succeeded("a")
        found.failed("a", 100.0)
        assert found.next_at_s <= 100.4

    @pytest.mark.parametrize("strategy", ["random", "round-robin", "weighted"])
    def test_each_strategy_reaches_every_broker(self, strategy: str) -> None:
        """With any strategy every broker with a weight is chosen sooner or later."""
        found = Reconnect([Endpoint("a", 3.0), Endpoint("b"), Endpoint("c")], strategy, random.Random(1))
        assert {found.choose(0.0) for _ in range(100)} == {"a", "b", "c"}
