"""Topic filters, mailboxes, chains and the triggers' decorators."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from edge_agent.contract.errors import RejectError
from edge_agent.functions.api import Declaration, Message, declaration_of, every, on_stream, on_topic
from edge_agent.functions.chains import cycle_text
from edge_agent.functions.frames import Deliver, Rows
from edge_agent.functions.mailbox import MESSAGE_BYTES_MAX, MESSAGES_MAX, WAITING_BYTES_MAX, Mailbox, Mailboxes
from edge_agent.functions.topic_filter import check_filter, check_topic, matches


class TestFilters:
    @pytest.mark.parametrize("text", ["a", "a/b", "a/+/c", "a/#", "+/a", "/", "/a", "a//b", "$SYS/broker/#", "ä/+"])
    def test_allowed(self, text: str) -> None:
        """What the grammar allows and is not ours."""
        assert check_filter(text) == text

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("", "not empty"), (None, "not empty"), (5, "not empty"), (b"a", "not empty"),
            ("a/#/b", "'#' stands alone and last"), ("a#", "'#' stands alone"), ("#/a", "'#' stands alone"),
            ("a+/b", "'\\+' stands for one whole level"), ("a\0b", "NUL"), ("\ud800", "surrogate"),
            ("x" * 1025, "1025 exceeds its limit of 1024"), ("edgewater/#", "below edgewater/"),
            ("edgewater/batch/1/d", "below edgewater/"), ("#", "every message at the broker"),
            ("+/#", "every message"), ("+/+/+/+", "every message"), ("$share/g/a", "shared"),
        ],
    )  # fmt: skip
    def test_refused(self, text: Any, says: str) -> None:
        """Each error says what is wrong with which filter, where the file is loaded."""
        with pytest.raises(RejectError, match=says):
            on_topic(text)

    def test_a_topic_is_no_filter(self) -> None:
        """What is published has a name in full."""
        assert check_topic("a/b") == "a/b"
        with pytest.raises(RejectError, match="in full"):
            check_topic("a/+")

    @pytest.mark.parametrize(
        ("topic_filter", "topic", "found"),
        [
            ("a/+/c", "a/b/c", True), ("a/+/c", "a/b/d", False), ("a/+", "a/b/c", False), ("a/+", "a", False),
            ("a/#", "a", True), ("a/#", "a/b/c", True), ("a/#", "ab", False), ("+/a", "/a", True),
            ("+/a", "$SYS/a", False), ("$SYS/#", "$SYS/a", True), ("+/ack/x", "edgewater/ack/x", False),
        ],
    )  # fmt: skip
    def test_matching(self, topic_filter: str, topic: str, found: bool) -> None:
        """As section 4.7 of MQTT 3.1.1; and never what is below edgewater/."""
        assert matches(topic_filter, topic) is found


class TestDecorators:
    def test_they_declare(self) -> None:
        """A trigger and a stream each."""

        @on_topic("a/+", stream="events")
        def door(message: Message) -> None:
            """Nothing."""

        @on_stream("readings", stream="derived")
        def mean(rows: list[dict[str, Any]]) -> None:
            """Nothing."""

        assert declaration_of(door) == Declaration("events", topic="a/+")
        assert declaration_of(mean) == Declaration("derived", reads="readings")
        assert [declaration_of(each).trigger for each in (door, mean)] == ['on_topic("a/+")', 'on_stream("readings")']  # type: ignore[union-attr]

    @pytest.mark.parametrize(
        ("decorate", "function", "says"),
        [
            (every(1), lambda message: None, "calls it with 0; write def"),
            (on_topic("a"), lambda: None, r"write def <lambda>\(message\)"),
            (on_stream("a"), lambda rows, more: None, r"write def <lambda>\(rows\)"),
            (every(1), int, "is no function"),
            (every(1), 5, "is no function"),
            (on_topic("b"), every(1)(lambda *_: None), "two triggers"),
        ],
    )
    def test_what_cannot_be_called_so(self, decorate: Any, function: Any, says: str) -> None:
        """A function that takes other arguments is an error when the file is loaded, not at each call."""
        with pytest.raises(RejectError, match=says):
            decorate(function)

    @pytest.mark.parametrize("function", [lambda *a: None, lambda a=1: None, lambda: None])
    def test_what_can(self, function: Any) -> None:
        """Defaults and *arguments will do."""
        every(1)(function)

    def test_a_function_that_reads_what_it_writes(self) -> None:
        """It would go round for ever; the error says what to write, also where the stream was left out."""
        with pytest.raises(RejectError, match='stream="derived"'):
            on_stream("readings")
        with pytest.raises(RejectError, match="for ever"):
            on_stream("a", stream="a")

    @pytest.mark.parametrize("wrong", [5, None, "", "a b", "Readings"])
    def test_streams(self, wrong: Any) -> None:
        """A name that no table can have, or that another spelling of `readings` is."""
        with pytest.raises(RejectError):
            on_stream("readings", stream=wrong)
        with pytest.raises(RejectError):
            on_stream(wrong, stream="b")


class TestMessage:
    def test_text_and_json(self) -> None:
        """The payload as it is wanted."""
        assert Message("a", "ü".encode(), 1).text() == "ü"
        assert Message("a", b'{"a": [1, 2.5, null]}', 1).json() == {"a": [1, 2.5, None]}

    @pytest.mark.parametrize("payload", [b"\xff", b"{", b"", b"[" * 100_000])
    def test_nonsense(self, payload: bytes) -> None:
        """The error quotes payload and topic."""
        with pytest.raises(RejectError, match="on topic a/b"):
            Message("a/b", payload, 1).json()


class TestChains:
    def test_a_chain_is_no_circle(self) -> None:
        """Any number of functions one behind the other, and two into one."""
        chain = {f"f{i}": Declaration(f"s{i + 1}", reads=f"s{i}") for i in range(20)}
        wide = {f"w{i}{j}": Declaration(f"w{i + 1}", reads=f"w{i}") for i in range(16) for j in range(4)}
        assert (
            cycle_text({**chain, **wide, "g": Declaration("s5", reads="s1"), "t": Declaration("s0", topic="a")}) == ""
        )

    @pytest.mark.parametrize("length", [1, 2, 3, 10])
    def test_a_circle_is_named(self, length: int) -> None:
        """Whatever its length, all its functions are in the error, and no others."""
        circle = {f"f{i}": Declaration(f"s{(i + 1) % length}", reads=f"s{i}") for i in range(length)}
        text = cycle_text({"bystander": Declaration("s0", reads="x"), **circle})
        assert all(f"{name} (" in text for name in circle)
        assert "bystander" not in text


def message(topic: str = "a", payload: bytes = b"") -> Deliver:
    """A message."""
    return Deliver(topic, payload, 1)


class TestMailboxes:
    def test_the_oldest_is_dropped(self) -> None:
        """Over the bound in number the oldest goes, and is counted."""
        box = Mailbox()
        for number in range(MESSAGES_MAX + 3):
            box.put(message(payload=str(number).encode()))
        assert (len(box), box.missed) == (MESSAGES_MAX, 3)
        first = box.take()
        assert isinstance(first, Deliver)
        assert first.payload == b"3"

    def test_bytes_are_bounded_too(self) -> None:
        """A few large ones are dropped before there are many."""
        box = Mailbox()
        for _ in range(10):
            box.put(Rows("s", 1, bytes(WAITING_BYTES_MAX // 4)))
        assert (len(box), box.missed) == (4, 6)
        while box.take() is not None:
            pass
        assert box._bytes == 0

    def test_each_function_gets_its_own(self) -> None:
        """By topic or by stream; what nobody wants is nobody's."""
        boxes = Mailboxes()
        one, two = boxes.open("one", topic="a/+"), boxes.open("two", topic="a/b")
        reader = boxes.open("reader", reads="events")
        assert boxes.filters == ("a/+", "a/b")
        assert boxes.message(message("a/b"))
        assert boxes.message(message("a/c"))
        assert not boxes.message(message("b"))
        boxes.rows(Rows("events", 1, b""))
        boxes.rows(Rows("others", 1, b""))
        assert [len(one), len(two), len(reader)] == [2, 1, 1]
        assert (boxes.reads("events"), boxes.reads("others")) == (True, False)

    def test_a_message_over_its_limit_is_missed(self) -> None:
        """It is not kept, and counted."""
        boxes = Mailboxes()
        box = boxes.open("one", topic="a")
        boxes.message(message("a", bytes(MESSAGE_BYTES_MAX + 1)))
        assert (len(box), box.missed) == (0, 1)

    def test_a_function_that_changed_its_topic(self) -> None:
        """Its mailbox stays, and takes the new topic only."""
        boxes = Mailboxes()
        box = boxes.open("one", topic="a")
        boxes.message(message("a"))
        assert boxes.open("one", reads="s") is box
        assert not boxes.message(message("a"))
        assert (len(box), boxes.filters) == (1, ())

    def test_the_network_thread_and_the_main_thread(self) -> None:
        """Put and taken by two threads at once: nothing is doubled, and what is not taken was missed or waits."""
        boxes = Mailboxes()
        box = boxes.open("one", topic="a")
        count, taken = 5000, []

        def put() -> None:
            for number in range(count):
                boxes.message(message("a", str(number).encode()))

        thread = threading.Thread(target=put)
        thread.start()
        while thread.is_alive():
            taken.append(boxes.take(box))
        thread.join()
        numbers = [int(each.payload) for each in taken if isinstance(each, Deliver)]
        assert numbers == sorted(set(numbers))
        assert len(numbers) + len(box) + box.missed == count
