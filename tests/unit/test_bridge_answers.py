"""Which device is told what, and when."""

from __future__ import annotations

from edge_agent.contract import limits
from edge_agent.contract.watermarks import Watermarks
from stream_jobs.bridge.answers import Answers


class _Sent(list[tuple[str, Watermarks]]):
    room = 1_000

    def __call__(self, device: str, watermarks: Watermarks) -> bool:
        if len(self) >= self.room:
            return False
        self.append((device, watermarks))
        return True


def _flush(answers: Answers, sent: _Sent) -> int:
    return answers.flush(lambda device, epoch: epoch * 10, 5, sent)


def test_nothing_is_sent_before_a_hello() -> None:
    """No nonce known: nothing is sent."""
    answers, sent = Answers(10, 0.5), _Sent()
    answers.tell("a", 1)
    answers.repeat("a", 1, 0.0)
    assert _flush(answers, sent) == 0
    assert not sent


def test_progress_of_a_flush_is_one_message_with_the_last_nonce() -> None:
    """Epochs are collected; the nonce is that of the last hello; the value is that of the flush."""
    answers, sent = Answers(10, 0.5), _Sent()
    answers.hello("a", b"1" * 8)
    for epoch in (1, 2, 1):
        answers.tell("a", epoch)
    answers.hello("a", b"2" * 8)
    assert _flush(answers, sent) == 1
    assert sent[0][1].nonce == b"2" * 8
    assert sent[0][1].watermarks == ((1, 10), (2, 20))
    assert _flush(answers, sent) == 0


def test_repeating_is_limited_per_device() -> None:
    """A device that sends what cannot be taken is answered once in an interval."""
    answers, sent = Answers(10, 0.5), _Sent()
    answers.hello("a", b"1" * 8)
    for now_s in (0.0, 0.1, 0.4, 0.5):
        answers.repeat("a", 1, now_s)
        _flush(answers, sent)
    assert len(sent) == 2


def test_what_cannot_be_sent_stays_due() -> None:
    """When the connection takes no more, the rest comes with the next flush."""
    answers, sent = Answers(10, 0.5), _Sent()
    for device in ("a", "b"):
        answers.hello(device, b"1" * 8)
        answers.tell(device, 1)
    sent.room = 1
    assert _flush(answers, sent) == 1
    sent.room = 2
    assert _flush(answers, sent) == 1
    assert {device for device, _ in sent} == {"a", "b"}


def test_more_epochs_than_a_message_holds_come_in_the_next() -> None:
    """At most HELLO_EPOCHS_MAX epochs in a message."""
    answers, sent = Answers(10, 0.5), _Sent()
    answers.hello("a", b"1" * 8)
    for epoch in range(limits.HELLO_EPOCHS_MAX + 3):
        answers.tell("a", epoch)
    _flush(answers, sent)
    _flush(answers, sent)
    assert [len(watermarks.watermarks) for _, watermarks in sent] == [limits.HELLO_EPOCHS_MAX, 3]


def test_the_device_unheard_longest_is_forgotten() -> None:
    """The number of nonces is bounded; a forgotten device says hello again."""
    answers, sent = Answers(2, 0.5), _Sent()
    for device in ("a", "b", "a", "c"):
        answers.hello(device, b"1" * 8)
        answers.tell(device, 1)
    assert answers.devices == 2
    _flush(answers, sent)
    assert {device for device, _ in sent} == {"a", "c"}


def test_an_epoch_without_a_value_is_left_out() -> None:
    """None: this bridge knows nothing of it now."""
    answers, sent = Answers(2, 0.5), _Sent()
    answers.hello("a", b"1" * 8)
    answers.tell("a", 1)
    assert answers.flush(lambda device, epoch: None, 5, sent) == 0
    assert answers.due == 0
