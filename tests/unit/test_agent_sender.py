"""The sender between functions and broker, turn by turn; and the settings of the agent."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent import Connector, sources_of
from edge_agent.agent_settings import AgentSettings, checked, default_device, parse_priorities
from edge_agent.contract import watermarks
from edge_agent.contract.balancing import parse_endpoints
from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import SettingsError, StopError
from edge_agent.contract.names import check_device
from edge_agent.contract.reports import Report, decode_report
from edge_agent.contract.settings import load
from edge_agent.functions.process import Source
from edge_agent.mqtt import Address, Connected, Disconnected, Received, RoomAgain, SubscriptionAnswered, parse_url
from edge_agent.reconnect import Reconnect
from edge_agent.sender import INBOX_MAX, Sender, Submitted
from edge_agent.spool import SpoolSettings
from edge_agent.uplink import Uplink, UplinkSettings
from tests.kit.spooled import batch, open_spool
from tests.kit.uplink_world import PlayedConnection


class Bench:
    """A sender with a spool on disk and a played connection."""

    def __init__(self, directory: Path, settings: SpoolSettings) -> None:
        self.clock = ManualClock()
        self.answers: list[tuple[object, str]] = []
        self.published: list[tuple[str, bytes]] = []
        self.reports: list[Report] = []
        self.subscriptions: list[tuple[str, str]] = []
        self.connections: list[PlayedConnection] = []
        self.spool = open_spool(directory, settings=settings, clock=self.clock)
        self.sender = Sender(
            self.spool,
            Uplink(UplinkSettings(), random.Random(1), lambda: b"noncenon"),
            Reconnect(parse_endpoints("mqtt://user:secret@a"), "random", random.Random(1)),
            connect=self.connect,
            clock=self.clock,
            answer=lambda token, refused: self.answers.append((token, refused)),
            subscribed=lambda topic_filter, refused: self.subscriptions.append((topic_filter, refused)),
        )

    def connect(self, url: str, deliver: Any) -> PlayedConnection:
        """A connection that keeps what is published."""
        self.connections.append(PlayedConnection(url, self.carry))
        return self.connections[-1]

    def carry(self, topic: str, payload: bytes) -> None:
        """Keep a message; reports apart."""
        if "/report/" in topic:
            self.reports.append(decode_report(payload))
        else:
            self.published.append((topic, payload))

    def connected(self) -> PlayedConnection:
        """Begin a connection, and let a bridge answer its hello."""
        self.sender.turn([])
        connection = self.connections[-1]
        self.sender.turn([Connected(connection)])
        answer = watermarks.encode(watermarks.make_watermarks(b"noncenon", (), 0))
        self.sender.turn([Received(connection, answer)])
        return connection

    def batches(self) -> int:
        """Messages published as batches."""
        return sum("/batch/" in topic for topic, _ in self.published)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A sender over a spool without compression."""
    found = Bench(tmp_path, SpoolSettings(compress=False))
    yield found
    found.spool.close()


class TestSender:
    def test_an_answer_comes_after_the_commit(self, bench: Bench) -> None:
        """When a batch is answered for, another reader of the file sees it."""
        bench.sender.turn([Submitted("a", batch()), Submitted("b", batch())])
        assert bench.answers == [("a", ""), ("b", "")]
        with sqlite3.connect(bench.spool._file.path) as reader:
            assert reader.execute("SELECT count(*) FROM messages").fetchone() == (2,)
        reader.close()

    def test_a_refusal_for_good_is_answered_with_its_reason(self, bench: Bench) -> None:
        """A batch that can never be accepted does not wait, and does not hinder its neighbour."""
        bench.sender.turn([Submitted("bad", batch(priority=9)), Submitted("good", batch())])
        answers = dict(bench.answers)
        assert "priority 9" in answers["bad"]
        assert answers["good"] == ""

    def test_a_full_disk_lets_the_batch_wait(self, bench: Bench) -> None:
        """While the disk is full nobody is answered; when it is not any more, everything is accepted in order."""
        bench.sender.turn([Submitted(0, batch())])
        (pages,) = bench.spool._run("PRAGMA page_count").fetchone()
        bench.spool._run(f"PRAGMA max_page_count = {pages}")
        bench.sender.turn([Submitted(1, batch(pad=100_000))])
        bench.sender.turn([Submitted(2, batch(pad=100_000))])
        assert bench.answers == [(0, "")]
        assert "free space" in bench.sender.status.last_error
        bench.spool._run("PRAGMA max_page_count = 1000000")
        bench.clock.advance(1.0)
        bench.sender.turn([])
        assert bench.answers == [(0, ""), (1, ""), (2, "")]

    def test_batches_are_sent_once_a_bridge_has_answered(self, bench: Bench) -> None:
        """Before, they wait in the spool; then they go out in the turn in which they are accepted."""
        bench.sender.turn([Submitted(0, batch())])
        assert bench.batches() == 0
        bench.connected()
        assert bench.batches() == 1
        bench.sender.turn([Submitted(1, batch())])
        assert bench.batches() == 2
        assert bench.sender.status.rows_sent == 2

    def test_a_repeated_message_is_no_new_row(self, bench: Bench) -> None:
        """What is sent again after a reconnect is counted as such, not as rows."""
        connection = bench.connected()
        bench.sender.turn([Submitted(0, batch())])
        bench.sender.turn([Disconnected(connection, "cut")])
        bench.clock.advance(60)
        connection = bench.connected()
        hello = watermarks.decode_hello(bench.published[-1][1])
        marks = tuple((held.epoch, 0) for held in hello.epochs)
        answer = watermarks.encode(watermarks.make_watermarks(b"noncenon", marks, 0))
        bench.sender.turn([Received(connection, answer)])
        assert bench.batches() == 2
        assert (bench.sender.status.rows_sent, bench.sender.status.messages_resent) == (1, 1)

    def test_events_of_an_earlier_connection_are_late(self, bench: Bench) -> None:
        """A connection that has ended has nothing to say about the next one."""
        first = bench.connected()
        bench.sender.turn([Disconnected(first, "cut")])
        bench.clock.advance(60)
        bench.connected()
        bench.sender.turn([Disconnected(first, "again"), Connected(first)])
        assert bench.sender.status.connected_url == "mqtt://user:secret@a"
        assert len(bench.connections) == 2

    def test_a_problem_goes_when_its_cause_does(self, bench: Bench) -> None:
        """A lost connection is told until the next one, a full disk until there is room; the other stays meanwhile."""
        connection = bench.connected()
        assert bench.sender.status.last_error == ""
        bench.sender.turn([Submitted(0, batch())])
        (pages,) = bench.spool._run("PRAGMA page_count").fetchone()
        bench.spool._run(f"PRAGMA max_page_count = {pages}")
        bench.sender.turn([Submitted(1, batch(pad=100_000))])
        assert "free space" in bench.sender.status.last_error
        bench.sender.turn([Disconnected(connection, "cut")])
        assert "cut" in bench.sender.status.last_error
        bench.clock.advance(60)
        connection = bench.connected()
        assert "free space" in bench.sender.status.last_error
        bench.spool._run("PRAGMA max_page_count = 1000000")
        bench.clock.advance(1)
        bench.sender.turn([])
        assert bench.sender.status.last_error == ""
        bench.sender.turn([Received(connection, b"nonsense")])
        assert "watermarks" in bench.sender.status.last_error
        bench.sender.turn([Received(connection, watermarks.encode(watermarks.make_watermarks(b"noncenon", (), 0)))])
        assert bench.sender.status.last_error == ""

    def test_reports(self, bench: Bench) -> None:
        """One on connect, one every ten seconds, one when the problem changes; not more often than once a second."""
        bench.sender.turn([Submitted(0, batch(rows=3))])
        assert bench.reports == []
        bench.connected()
        (first,) = bench.reports
        assert (first.backlog_batches, first.problem, first.time_us) == (1, "", bench.clock.time_us())
        assert first.backlog_bytes == bench.spool.bytes > 0
        for _ in range(99):
            bench.clock.advance(0.1)
            bench.sender.turn([])
        assert len(bench.reports) == 1
        bench.clock.advance(0.2)
        bench.sender.turn([])
        assert len(bench.reports) == 2
        bench.sender.functions_problem = "function tank: no sensor"
        bench.sender.turn([])
        bench.clock.advance(1.1)
        bench.sender.turn([])
        assert bench.reports[2].problem == "function tank: no sensor"
        for number in range(100):
            bench.sender.functions_problem = f"function tank: {number}" + "x" * 1000
            bench.clock.advance(0.1)
            bench.sender.turn([])
        assert 10 <= len(bench.reports) <= 14

    def test_topics_are_asked_for_once_on_each_connection(self, bench: Bench) -> None:
        """Also those that are wanted later, and all of them again on the next connection; a refusal is told on."""
        bench.sender.want(("a/+",))
        connection = bench.connected()
        bench.sender.want(("a/+", "b"))
        for _ in range(3):
            bench.sender.turn([])
        assert connection.asked == ["a/+", "b"]
        bench.sender.turn(
            [SubscriptionAnswered(connection, 1, "Not authorized"), SubscriptionAnswered(connection, 2, "")]
        )
        assert bench.subscriptions == [("a/+", "Not authorized"), ("b", "")]
        bench.sender.turn([Disconnected(connection, "cut")])
        bench.clock.advance(60)
        assert bench.connected().asked == ["a/+", "b"]

    def test_nonsense_on_the_ack_topic(self, bench: Bench) -> None:
        """Bytes that are no watermarks are noted and ignored."""
        connection = bench.connected()
        bench.sender.turn([Received(connection, b"nonsense")])
        assert "watermarks" in bench.sender.status.last_error

    def test_a_full_queue_drops_hints_only(self, bench: Bench) -> None:
        """The network thread never waits to say that there is room again."""
        connection = bench.connected()
        for _ in range(INBOX_MAX + 10):
            bench.sender.deliver(RoomAgain(connection))

    def test_idle(self, bench: Bench) -> None:
        """Idle is: all handed over is accepted, and all accepted is durable."""
        connection = bench.connected()
        assert bench.sender.idle
        bench.sender.submit(Submitted(0, batch()))
        assert not bench.sender.idle
        bench.sender.turn(bench.sender._take())
        assert not bench.sender.idle
        (epoch,) = bench.spool.epochs()
        answer = watermarks.encode(watermarks.make_watermarks(b"noncenon", ((epoch.epoch, 1),), 0))
        bench.sender.turn([Received(connection, answer)])
        bench.clock.advance(1)
        bench.sender.turn([])
        assert bench.sender.idle

    def test_a_damaged_spool_ends_the_thread_with_its_reason(self, bench: Bench) -> None:
        """What a person has to mend stops the sender; the agent reports it."""
        bench.sender.start()
        bench.spool._run("DROP TABLE messages")
        bench.sender.submit(Submitted(0, batch()))
        bench.sender._thread.join(10)
        assert isinstance(bench.sender.failure, StopError)


class TestUrls:
    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("mqtt://h", Address("h", 1883, False, None, None)),
            ("mqtt://h:77/", Address("h", 77, False, None, None)),
            ("mqtts://h", Address("h", 8883, True, None, None)),
            ("mqtt://me:a%40b@[::1]:5", Address("::1", 5, False, "me", "a@b")),
        ],
    )
    def test_addresses(self, url: str, address: Address) -> None:
        """Scheme, host, port with its default, user and password (percent-encoded)."""
        assert parse_url(url) == address

    @pytest.mark.parametrize("url", ["", "h:1883", "http://h", "mqtt://", "mqtt://h:0", "mqtt://h:x", "mqtt://h/topic"])
    def test_other_urls(self, url: str) -> None:
        """Everything else is an error that quotes it."""
        with pytest.raises(SettingsError, match="mqtt://host:port"):
            parse_url(url)

    def test_a_password_is_not_shown(self) -> None:
        """Neither in an error nor in a connection's name."""
        with pytest.raises(SettingsError) as raised:
            parse_url("mqtt://me:secret@h:x")
        assert "secret" not in str(raised.value)
        connection = Connector(AgentSettings(), "pump-7", lambda topic, payload: None)(
            "mqtt://me:secret@h:1", lambda event: None
        )
        assert connection.name == "mqtt://h:1"


class TestSettings:
    def test_the_default_device_is_a_device_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever the host is called, its device has an allowed name."""
        for name in ("pi", "my host.local", "größe", "x" * 300, ""):
            monkeypatch.setattr("socket.gethostname", lambda name=name: name)
            assert check_device(default_device())

    def test_priorities(self) -> None:
        """Streams with their priorities; a wrong one is named."""
        assert parse_priorities("alarms=0, readings=2") == {"alarms": 0, "readings": 2}
        assert parse_priorities("") == {}
        for wrong in ("alarms", "alarms=4", "alarms=-1", "a b=1"):
            with pytest.raises(SettingsError, match="stream_priorities"):
                parse_priorities(wrong)

    def test_relations_are_checked(self) -> None:
        """A window of half the spool or more leaves nothing that could be dropped."""
        with pytest.raises(SettingsError, match="twice"):
            checked(
                load(
                    AgentSettings,
                    "agent",
                    environment={},
                    flags={"spool_bytes_max": 8 << 20, "unacked_bytes_max": 5 << 20},
                )
            )
        assert checked(AgentSettings(stream_priorities="a=3")) == {"a": 3}

    def test_sources(self, tmp_path: Path) -> None:
        """Files in order, then built-ins; `host` when nothing is named; what does not exist is an error."""
        path = tmp_path / "f.py"
        path.write_text("")
        assert sources_of([], "") == [Source("host", builtin=True)]
        assert sources_of([str(path)], "") == [Source(str(path))]
        assert sources_of([str(path)], "host") == [Source(str(path)), Source("host", builtin=True)]
        with pytest.raises(SettingsError, match="no built-in"):
            sources_of([], "none")
        with pytest.raises(StopError, match="does not exist"):
            sources_of([str(tmp_path / "g.py")], "")
