"""The test kit for functions, and that it does what the process of a function does."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_agent import FunctionKit
from edge_agent.contract.clock import ManualClock
from edge_agent.contract.errors import EdgewaterError, RejectError, StopError
from edge_agent.functions import frames
from edge_agent.functions.child import Runner
from edge_agent.functions.loader import load_file
from edge_agent.functions.row_values import rows_of_body

Make = Callable[..., FunctionKit]
HEAD = "from edge_agent import every, on_stream, on_topic, readings\n"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Kits of files with these texts."""

    def made(*texts: str, **options: Any) -> FunctionKit:
        paths = []
        for number, text in enumerate(texts):
            paths.append(tmp_path / f"kit_functions_{number}.py")
            paths[-1].write_text(HEAD + text)
        return FunctionKit(*paths, **options)

    return made


class TestTime:
    def test_timers_are_called_at_their_times(self, make: Make) -> None:
        """Each call has the time at which it was due; the first is due at once."""
        kit = make("@every(2)\ndef a(): return 1\n@every(3)\ndef b(): return 2\n")
        start = kit.time_us
        kit.advance(6)
        found = [(row["name"], (row["ts"] - start) / 1e6) for row in kit.rows()]
        assert sorted(found) == [("a", 0), ("a", 2), ("a", 4), ("a", 6), ("b", 0), ("b", 3), ("b", 6)]
        assert kit.time_us == start + 6_000_000

    def test_nothing_before_the_time_moves(self, make: Make) -> None:
        """Loading calls nothing."""
        kit = make("@every(1)\ndef a(): return 1\n")
        assert kit.rows() == []
        kit.advance(0)
        assert len(kit.rows()) == 1
        kit.advance(0.5)
        assert len(kit.rows()) == 1

    @pytest.mark.parametrize("seconds", [-1, float("nan")])
    def test_time_does_not_go_back(self, make: Make, seconds: float) -> None:
        """Nor anywhere that is no number."""
        with pytest.raises(RejectError, match="go back"):
            make("@every(1)\ndef a(): return 1\n").advance(seconds)

    def test_state_is_new_in_each_kit(self, make: Make) -> None:
        """A file is run anew for each kit, so that tests do not meet."""
        text = "count = 0\n@every(1)\ndef a():\n    global count\n    count += 1\n    return count\n"
        for _ in range(2):
            kit = make(text)
            kit.advance(1)
            assert [row["value"] for row in kit.rows()] == [1, 2]


class TestMessages:
    def test_payloads(self, make: Make) -> None:
        """Bytes as they are, text as UTF-8, the rest as JSON; the answer says how many functions heard it."""
        kit = make('@on_topic("a/#", stream="s")\ndef f(m): return {"t": m.topic, "p": m.text(), "at": m.time_us}\n')
        kit.advance(1)
        for payload in (b"x", "ü", 1.5, {"a": [None]}, None):
            assert kit.publish("a/b", payload) == 1
        assert kit.publish("b", b"") == 0
        assert [row["p"] for row in kit.rows("s")] == ["x", "ü", "1.5", '{"a": [null]}', "null"]
        assert {row["at"] for row in kit.rows("s")} == {kit.time_us}

    @pytest.mark.parametrize(("topic", "payload"), [("a/#", b""), ("", b""), ("a", object()), ("a", {1j: 2})])
    def test_what_cannot_be_published(self, make: Make, topic: str, payload: Any) -> None:
        """An error, and no call."""
        with pytest.raises(EdgewaterError):
            make('@on_topic("#/a"[1:] + "a", stream="s")\ndef f(m): return {"a": 1}\n').publish(topic, payload)

    def test_chains_run(self, make: Make) -> None:
        """Rows of one function are given to those that read its stream, in order, over two files."""
        kit = make(
            '@on_topic("a")\ndef f(m): return float(m.text())\n',
            '@on_stream("readings", stream="two")\ndef g(rows): return [{"x": r["value"] * 2} for r in rows]\n'
            '@on_stream("two", stream="three")\ndef h(rows):\n    for r in rows:\n        yield {"x": r["x"] + 1}\n',
        )
        kit.publish("a", "5")
        kit.publish("a", "6")
        assert [row["x"] for row in kit.rows("three")] == [11.0, 13.0]
        assert kit.functions == ("f", "g", "h")
        kit.clear()
        assert kit.rows("three") == []

    def test_async_functions(self, make: Make) -> None:
        """A coroutine runs to its end, an async generator too; both keep one event loop."""
        text = (
            "import asyncio\nloops = set()\n"
            '@on_topic("a")\nasync def f(m):\n    await asyncio.sleep(0)\n'
            "    loops.add(id(asyncio.get_running_loop()))\n"
            "    return len(loops)\n"
            '@on_topic("b", stream="s")\nasync def g(m):\n    for x in "ab":\n        await asyncio.sleep(0)\n'
            '        yield {"x": x}\n'
        )
        with make(text) as kit:
            kit.publish("a", b"")
            kit.publish("a", b"")
            kit.publish("b", b"")
            assert [row["value"] for row in kit.rows()] == [1.0, 1.0]
            assert [row["x"] for row in kit.rows("s")] == ["a", "b"]


class TestErrors:
    def test_an_error_is_raised_as_it_is(self, make: Make) -> None:
        """The very exception, with what the agent would say as a note; the next call comes as if nothing had been."""
        kit = make("@every(1)\ndef a():\n    raise KeyError('sensor')\n")
        with pytest.raises(KeyError) as raised:
            kit.advance(0)
        (note,) = raised.value.__notes__
        assert "function a: KeyError: 'sensor'" in note
        assert "kit_functions_0.py:4" in note
        with pytest.raises(KeyError):
            kit.advance(1)

    def test_a_wrong_value_has_the_functions_line(self, make: Make) -> None:
        """Of a value that no column holds the place is that of the function."""
        kit = make('@every(1, stream="s")\ndef a():\n    return {"x": [1]}\n')
        with pytest.raises(RejectError, match="column 'x' of function a") as raised:
            kit.advance(0)
        assert "kit_functions_0.py:2)" in raised.value.__notes__[0]

    def test_what_the_agent_would_refuse(self, make: Make, tmp_path: Path) -> None:
        """Circles over files, two functions of one name, no file, a file that is none."""
        a_to_b = '@on_stream("a", stream="b")\ndef f(rows): pass\n'
        with pytest.raises(RejectError, match="circle"):
            make(a_to_b, '@on_stream("b", stream="a")\ndef g(rows): pass\n')
        with pytest.raises(RejectError, match="rename one"):
            make(a_to_b, a_to_b)
        with pytest.raises(RejectError, match="needs a function file"):
            FunctionKit()
        with pytest.raises(StopError, match="does not exist"):
            FunctionKit(tmp_path / "missing.py")
        with pytest.raises(SyntaxError):
            make("def broken(:\n")


class TestSources:
    def test_a_module(self) -> None:
        """A module that is imported already is a source too."""
        from edge_agent.functions import host

        kit = FunctionKit(host)
        kit.advance(0.2)
        assert {row["name"] for row in kit.rows()} > {"load_1m"}

    def test_the_application(self, make: Make) -> None:
        """A WSGI application is found, beside functions or alone, and called by nobody else."""
        text = "def app(environ, start_response):\n    return [b'hello']\n"
        kit = make(text + "@every(1)\ndef a(): return 1\n")
        assert kit.app is not None
        assert kit.app({}, None) == [b"hello"]
        assert kit.functions == ("a",)
        assert make(text).app is not None

    @pytest.mark.parametrize(
        "text",
        ["app = 5\n", "def app(): pass\n", "class app: pass\n", "application = None\n", "@every(1)\ndef app(): pass\n"],
    )
    def test_what_is_no_application(self, make: Make, text: str) -> None:
        """Another thing of that name is left alone."""
        assert make(text + "@every(1)\ndef a(): return 1\n").app is None

    def test_the_applications_name(self, tmp_path: Path) -> None:
        """It is called as its file, or with .app where a function has that name."""
        path = tmp_path / "pump_page.py"
        path.write_text("def application(environ, start_response): return []\n")
        assert list(load_file(path).functions) == ["pump_page"]
        path.write_text(HEAD + "def app(environ, start_response): return []\n@every(1)\ndef pump_page(): pass\n")
        assert list(load_file(path).functions) == ["pump_page", "pump_page.app"]

    def test_a_name_that_would_hide_a_module(self, tmp_path: Path) -> None:
        """json.py would break whoever imports json."""
        path = tmp_path / "json.py"
        path.write_text(HEAD + "@every(1)\ndef a(): pass\n")
        with pytest.raises(RejectError, match=r"my_json\.py"):
            load_file(path)

    def test_proxies_in_a_module(self, make: Make) -> None:
        """An object that raises whatever one asks it, as Flask's request does, is no function."""
        text = "class P:\n    def __getattr__(self, name): raise RuntimeError(name)\np = P()\n"
        assert make(text + "@every(1)\ndef a(): return 1\n").functions == ("a",)


class AgentOfOneProcess:
    """The channel of a runner: gives messages, answers batches, takes the time."""

    def __init__(self, clock: ManualClock, things: list[Any], end_s: float) -> None:
        self.clock, self.things, self.end_s = clock, things, end_s
        self.sent: list[Any] = []
        self.owed = 0

    def send(self, message: Any) -> None:
        """Keep it; a batch is owed an answer."""
        self.sent.append(message)
        self.owed += isinstance(message, frames.Batch)

    def receive(self, timeout_s: float) -> Any:
        """An answer, a message whose time has come, Stop at the end, or nothing after `timeout_s`."""
        if self.owed:
            self.owed -= 1
            return frames.Answer()
        now_s = self.clock.monotonic_s()
        next_s = self.things[0][0] if self.things else self.end_s
        if next_s - now_s <= timeout_s:
            self.clock.advance(max(0.0, next_s - now_s))
            return self.things.pop(0)[1] if self.things else frames.Stop()
        self.clock.advance(max(0.0, timeout_s))
        return None


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ('@every(0.5, stream="s")\ndef f(): return {"a": 1, "b": "x"}\n', "s"),
        ('@every(0.3)\ndef f(): return 2.5\n', "readings"),
        ('@on_topic("t/+", stream="s")\ndef f(m): return [{"a": m.topic}, {"b": m.json()}]\n', "s"),
        ('@on_topic("t/+")\nasync def f(m): return [("a", m.json()), (5, "b", 1)]\n', "readings"),
    ],
)  # fmt: skip
def test_kit_and_process_give_the_same_rows(make: Make, tmp_path: Path, text: str, stream: str) -> None:
    """The same file over the same seconds and messages: the rows of the kit are those that the process sends."""
    kit = make(text, start_us=ManualClock().time_us())
    messages = [(0.7, "t/a", b"1"), (1.4, "t/b", b"2"), (1.9, "u", b"3")]
    clock = ManualClock()
    things = [
        (at_s, frames.Deliver(topic, payload, 0)) for at_s, topic, payload in messages if topic.startswith("t/")
    ] if "on_topic" in text else []  # fmt: skip
    channel = AgentOfOneProcess(clock, things, 2.05)
    path = tmp_path / "kit_functions_0.py"
    runner = Runner(channel, frames.Load(False, str(path), "", 1000, 0.2), load_file(path), clock)  # type: ignore[arg-type]
    runner.run()
    sent = [
        row for each in channel.sent if isinstance(each, frames.Batch) for row in rows_of_body(each.body, each.rows)
    ]
    at_s = 0.0
    for next_s, topic, payload in messages:
        kit.advance(next_s - at_s)
        kit.publish(topic, payload)
        at_s = next_s
    kit.advance(2.05 - at_s)
    assert sent
    assert [{**row, "ts": 0} for row in kit.rows(stream)] == [{**row, "ts": 0} for row in sent]
    for mine, theirs in zip(kit.rows(stream), sent, strict=True):
        assert abs(mine["ts"] - theirs["ts"]) <= 1
    assert len([each for each in channel.sent if isinstance(each, frames.Taken)]) == (
        2 if things or "topic" in text else 0
    )


def test_a_module_made_by_hand() -> None:
    """A module without a file is one of version nothing."""
    from edge_agent import every

    module = types.ModuleType("by_hand")

    def tank() -> float:
        return 4.0

    tank.__module__ = "by_hand"
    module.tank = every(1)(tank)  # type: ignore[attr-defined]
    kit = FunctionKit(module)
    kit.advance(0)
    assert kit.rows()[0]["value"] == 4.0
