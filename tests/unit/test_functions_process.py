"""Frames, the runner in a function's process, and the supervisor in the agent's, without processes where possible."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract import limits
from edge_agent.contract.clock import ManualClock, SystemClock
from edge_agent.contract.errors import DecodeError, LimitError
from edge_agent.functions import frames
from edge_agent.functions.api import declaration_of, every
from edge_agent.functions.child import IN_HAND_MAX, Runner, place_of
from edge_agent.functions.loader import Declared, Program
from edge_agent.functions.process import RESTART_MAX_S, FunctionProcess, Source, restart_pause_s
from edge_agent.functions.row_values import rows_of_body
from edge_agent.functions.rows import ReadingsCollector
from edge_agent.functions.supervisor import FUNCTIONS_MAX, Supervisor, Token
from tests.kit.wait import until


class TestFrames:
    def test_frames_in_pieces(self) -> None:
        """Frames are found whatever the pieces in which they arrive."""
        data = frames.encode(frames.Batch("readings", 2, b"body")) + frames.encode(frames.Report(1, 2, 3))
        for size in (1, 3, 7, len(data)):
            reader = frames.FrameReader()
            found = [frame for at in range(0, len(data), size) for frame in reader.feed(data[at : at + size])]
            assert [frames.decode_from_function(frame) for frame in found] == [
                frames.Batch("readings", 2, b"body"), frames.Report(1, 2, 3),
            ]  # fmt: skip

    def test_a_length_over_the_limit_is_refused_at_once(self) -> None:
        """Four bytes that announce 2 GB are enough: nothing of that size is ever buffered."""
        with pytest.raises(DecodeError, match="2147483648"):
            frames.FrameReader().feed(struct.pack("<I", 1 << 31))

    def test_a_frame_over_the_limit_is_not_sent(self) -> None:
        """The sender's side has the same limit."""
        with pytest.raises(LimitError):
            frames.encode(frames.Batch("readings", 1, bytes(limits.FUNCTION_FRAME_BYTES_MAX)))

    @pytest.mark.parametrize(
        "data", [b"", b"\x00", b"\xc1", b"\x91\xa4load", b"\x94\xa5batch\x01\x01\x01", b"\xff" * 9]
    )
    def test_other_bytes_are_no_message(self, data: bytes) -> None:
        """What a function's process may send is one of four messages, or an error."""
        with pytest.raises(DecodeError):
            frames.decode_from_function(data)


Script = Callable[["PlayedChannel", float], "frames.FromAgent | None"]


class PlayedChannel:
    """The agent as the runner sees it: `script` says what it receives, in turn; time passes when it waits."""

    def __init__(self, clock: ManualClock, script: Script) -> None:
        self.clock = clock
        self.sent: list[frames.FromFunction] = []
        self._script = script

    def send(self, message: frames.FromFunction) -> None:
        """Keep it."""
        self.sent.append(message)

    def receive(self, timeout_s: float) -> frames.FromAgent | None:
        """What the script says, or nothing after `timeout_s`."""
        message = self._script(self, timeout_s)
        if message is None:
            assert timeout_s < 50, "waits for an answer that never comes"
            self.clock.advance(max(0.0, timeout_s))
        return message

    def of(self, kind: type[Any]) -> list[Any]:
        """The messages of one kind that were sent."""
        return [message for message in self.sent if isinstance(message, kind)]


def runner(
    call: Callable[[], Any],
    script: Script,
    *,
    interval_s: float = 1.0,
    batch_rows: int = 1000,
    flush_interval_s: float = 0.2,
) -> tuple[Runner, PlayedChannel]:
    """A runner of `call` over a played channel."""
    every(interval_s)(call)
    declaration = declaration_of(call)
    assert declaration is not None
    clock = ManualClock()
    channel = PlayedChannel(clock, script)
    load = frames.Load(False, "tank.py", "", batch_rows, flush_interval_s)
    program = Program({"tank": Declared(call, declaration)}, bytes(8))
    return Runner(channel, load, program, clock), channel  # type: ignore[arg-type]


def answering(stop_at_s: float, answers: bool = True) -> Script:
    """Answers every batch, and stops at a time."""
    state = {"answered": 0, "stopped": False}

    def script(channel: PlayedChannel, timeout_s: float) -> frames.FromAgent | None:
        if answers and state["answered"] < len(channel.of(frames.Batch)):
            state["answered"] += 1
            return frames.Answer()
        wait_s = stop_at_s - channel.clock.monotonic_s()
        if wait_s <= timeout_s and not state["stopped"]:
            state["stopped"] = True
            channel.clock.advance(max(0.0, wait_s))
            return frames.Stop()
        return None

    return script


class TestRunner:
    def test_it_calls_at_its_interval(self) -> None:
        """Calls at 0, 1, 2, ... and each batch leaves flush_interval_s after its first row."""
        calls: list[float] = []

        def tank() -> dict[str, float]:
            calls.append(channel.clock.monotonic_s())
            return {"level": 1.0}

        found, channel = runner(tank, answering(4.5))
        found.run()
        assert calls == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0])
        assert [message.rows for message in channel.of(frames.Batch)] == [1] * 5
        assert channel.of(frames.Report)[-1] == frames.Report(5, 0, 0)

    def test_rows_are_gathered(self) -> None:
        """Many calls within flush_interval_s make one batch."""
        found, channel = runner(lambda: {"level": 1.0}, answering(1.0), interval_s=0.01)
        found.run()
        sizes = [message.rows for message in channel.of(frames.Batch)]
        assert sum(sizes) == channel.of(frames.Report)[-1].calls
        assert len(sizes) == 5

    def test_what_is_gathered_is_sent_before_the_end(self) -> None:
        """After Stop there is no further call; rows that wait are sent, and answered for, before the process ends."""
        found, channel = runner(lambda: {"level": 1.0}, answering(0.05), flush_interval_s=60)
        found.run()
        assert [message.rows for message in channel.of(frames.Batch)] == [1]

    def test_calls_that_are_late_are_left_out(self) -> None:
        """A call that takes three intervals is followed by one at the next multiple; the rest is counted as missed."""

        def slow() -> None:
            channel.clock.advance(3.5)

        found, channel = runner(slow, answering(7.9))
        found.run()
        assert channel.of(frames.Report)[-1] == frames.Report(2, 0, 6)

    def test_back_pressure_stops_the_calls(self) -> None:
        """With two batches unanswered the function waits: it is not called, and nothing grows."""
        calls = []

        def tank() -> list[tuple[str, int]]:
            calls.append(1)
            return [("level", 1)]

        found, channel = runner(tank, answering(0.0, answers=False), interval_s=0.01, batch_rows=1)
        with pytest.raises(AssertionError, match="never comes"):
            found.call(), found.call(), found.call()
        assert len(channel.of(frames.Batch)) == 2
        assert len(calls) == 3

    def test_an_exception_is_told_with_its_place(self) -> None:
        """A call that fails is counted and told with its text; the next call comes as if nothing had been."""

        def broken() -> dict[str, float]:
            if channel.clock.monotonic_s() < 0.5:
                raise ValueError("no sensor")
            return {"level": 1.0}

        found, channel = runner(broken, answering(1.5))
        found.run()
        (failed,) = channel.of(frames.Failed)
        assert failed.text == "ValueError: no sensor"
        assert Path(__file__).name in failed.place
        assert not failed.loading
        assert channel.of(frames.Report)[-1] == frames.Report(2, 1, 0)
        assert len(channel.of(frames.Batch)) == 1

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
    def test_what_would_end_a_program_ends_no_function(self, error: BaseException) -> None:
        """sys.exit() in a function is a failed call like any other."""

        def leaving() -> None:
            raise error

        found, channel = runner(leaving, answering(1.5))
        found.run()
        assert channel.of(frames.Failed)[0].text.startswith(type(error).__name__)
        assert channel.of(frames.Report)[-1] == frames.Report(2, 2, 0, failing=True)

    def test_an_exception_that_cannot_say_what_it_is(self) -> None:
        """Its name is told then."""

        class BrokenError(Exception):
            def __str__(self) -> str:
                raise ValueError

        def failing() -> None:
            raise BrokenError

        found, channel = runner(failing, answering(0.5))
        found.run()
        assert "BrokenError, which cannot" in channel.of(frames.Failed)[0].text

    def test_many_exceptions_are_told_once_a_second(self) -> None:
        """A function that fails a hundred times a second fills neither socket nor log; its number is reported."""

        def broken() -> None:
            raise ValueError

        found, channel = runner(broken, answering(3.05), interval_s=0.01)
        found.run()
        assert len(channel.of(frames.Failed)) == 4
        assert channel.of(frames.Report)[-1].failed > 200

    def test_a_wrong_value_is_told(self) -> None:
        """A value that no column holds is told by its name."""
        found, channel = runner(lambda: {"level": "high"}, answering(0.5))
        found.run()
        assert "'high' of 'level'" in channel.of(frames.Failed)[0].text

    def test_a_refusal_is_told(self) -> None:
        """A batch that the agent refuses for good counts as a failure, and frees its place."""
        found, channel = runner(lambda: {"level": 1}, lambda channel, timeout_s: frames.Answer("too long"))
        found.call()
        found.flush()
        found._receive(0)
        assert found._unanswered == 0
        assert channel.of(frames.Failed)[0].text == "too long"

    def test_the_place_is_in_the_users_file(self) -> None:
        """Of a failure inside a library the place is the user's line that called it."""
        with pytest.raises(TypeError) as raised:
            int.from_bytes("x", "big")  # type: ignore[arg-type]
        assert place_of(raised.value, __file__).startswith(f"{__file__}:")


def supervisor(sources: list[Source], submit: Callable[[Token, frames.Batch], None]) -> Supervisor:
    """A supervisor of real processes."""
    return Supervisor(
        sources, lambda token, name, version, batch: submit(token, batch), SystemClock(), batch_rows=10,
        flush_interval_s=0.01,
    )  # fmt: skip


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Callable[..., tuple[Supervisor, list[frames.Batch]]]]:
    """Runs files of functions, answering every batch; all processes are gone afterwards."""
    made: list[Supervisor] = []

    def run(*texts: str) -> tuple[Supervisor, list[frames.Batch]]:
        sources = []
        for number, text in enumerate(texts):
            path = tmp_path / f"functions_{number}.py"
            path.write_text("from edge_agent import every\nimport os\n" + text)
            sources.append(Source(str(path)))
        taken: list[frames.Batch] = []

        def submit(token: Token, batch: frames.Batch) -> None:
            taken.append(batch)
            found.answer(token, "")

        found = supervisor(sources, submit)
        made.append(found)
        return found, taken

    yield run
    for found in made:
        found.close()


def readings_of(result: Any) -> tuple[int, bytes]:
    """Rows and body of a batch of readings."""
    made = ReadingsCollector(1000, "tank")
    list(made.add(result, 1))
    return made.take()


def polled(found: Supervisor, condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Poll until the condition holds."""

    def once() -> bool:
        found.poll(0.02)
        return bool(condition())

    until(once, timeout_s, "the condition of the supervisor")


TANK = "@every(0.01)\ndef tank(): return {'level': 1}\n"


class TestSupervisor:
    def test_each_function_has_a_process(self, supervised: Any) -> None:
        """Two functions of one file and one of another: three processes, each with its version."""
        found, taken = supervised(TANK + "@every(0.01)\ndef pump(): return {'on': 1}\n", "@every(1)\ndef fan(): pass\n")
        polled(
            found, lambda: len(found.functions) == 3 and all(f.state == "running" for f in found.functions) and taken
        )
        names = {state["name"]: state for state in found.states()}
        assert set(names) == {"tank", "pump", "fan"}
        assert names["tank"]["version"] == names["pump"]["version"] != names["fan"]["version"]
        assert len({state["pid"] for state in names.values()}) == 3

    def test_a_killed_process_is_started_again(self, supervised: Any) -> None:
        """After kill -9 the function comes back by itself, and its rows with it."""
        found, taken = supervised(TANK)
        polled(found, lambda: taken)
        os.kill(found.functions[0].process.pid, signal.SIGKILL)
        polled(found, lambda: found.functions[0].starts == 2 and found.functions[0].state == "running")
        seen = len(taken)
        polled(found, lambda: len(taken) > seen)

    def test_a_broken_file_says_where(self, supervised: Any) -> None:
        """A file that cannot be loaded is told with file and line, and tried again; its neighbour runs."""
        found, taken = supervised("def broken(:\n", TANK)
        polled(found, lambda: taken and found.functions[0].state == "waiting")
        assert "functions_0.py:3" in found.functions[0].last_error
        assert "SyntaxError" in found.functions[0].last_error

    def test_two_functions_of_one_name(self, supervised: Any) -> None:
        """The second of two functions with one name is not run, since their rows could not be told apart."""
        found, taken = supervised(TANK, TANK)
        polled(found, lambda: sorted(f.state for f in found.functions) == ["running", "stopped"] and taken)
        assert any("rename" in f.problem for f in found.functions)

    def test_more_functions_than_an_agent_has(self, supervised: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """Those over the limit are not run, and it is said for as long as that is so."""
        monkeypatch.setattr("edge_agent.functions.supervisor.FUNCTIONS_MAX", 1)
        found, _ = supervised(TANK + "@every(1)\ndef pump(): pass\n")
        polled(found, lambda: found.functions[0].calls > 100)
        assert [function.name for function in found.functions] == ["tank"]
        assert "pump is not run" in found.problem

    def test_stopping_sends_what_is_gathered(self, supervised: Any) -> None:
        """On stop each process sends its rows and ends by itself; none is left."""
        found, taken = supervised("@every(60)\ndef tank(): return {'level': 1}\n")
        found.functions[0].flush_interval_s = 60.0
        polled(found, lambda: found.functions[0].calls)
        found.stop()
        polled(found, lambda: found.ended, 5.0)
        assert [batch.rows for batch in taken] == [1]
        assert found.functions[0].state == "stopped"

    def test_a_function_that_does_not_stop_is_killed(self, supervised: Any) -> None:
        """A call that never returns ends with its process, two seconds after stop."""
        found, _ = supervised("@every(1)\ndef stuck():\n    while True: pass\n")
        polled(found, lambda: found.functions[0].state == "running")
        found.stop()
        polled(found, lambda: found.ended, 10.0)

    def test_what_it_started_is_killed_with_it(self, supervised: Any, tmp_path: Path) -> None:
        """A process that a function has started does not outlive it."""
        text = (
            "import subprocess, pathlib\n@every(60)\ndef parent():\n"
            "    child = subprocess.Popen(['sleep', '600'])\n"
            f"    pathlib.Path({str(tmp_path / 'pid')!r}).write_text(f'{{child.pid}}.')\n"
            "    while True: pass\n"
        )
        found, _ = supervised(text)
        polled(found, lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("."))
        child = int((tmp_path / "pid").read_text()[:-1])
        found.functions[0].kill()
        polled(found, lambda: found.functions[0].starts > 1)
        until(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text(), 5)

    def test_it_reads_no_more_than_two_batches(self, tmp_path: Path) -> None:
        """While batches are not answered the function waits; answers let it go on, in order."""
        path = tmp_path / "flood.py"
        path.write_text("from edge_agent import every\n@every(0.001)\ndef flood(): return [('a', 1)] * 100\n")
        waiting: list[Token] = []
        found = supervisor([Source(str(path))], lambda token, batch: waiting.append(token))
        try:
            polled(found, lambda: len(waiting) == 2)
            for _ in range(20):
                found.poll(0.01)
            assert len(waiting) == 2
            found.answer(waiting.pop(0), "")
            polled(found, lambda: len(waiting) == 2)
        finally:
            found.close()


class TestMessages:
    def test_large_messages_wait_for_room_in_the_socket(self, supervised: Any) -> None:
        """Messages larger than the socket's buffer arrive whole and in order, and the agent never waits for them."""
        found, taken = supervised(
            "from edge_agent import on_topic\n@on_topic('big', stream='s')\n"
            "def sizes(m): return {'size': len(m.payload), 'end': m.payload[-3:].decode()}\n"
        )
        polled(found, lambda: found.functions[0].state == "running")
        for number in range(30):
            found.message("big", bytes(600_000) + f"{number:03}".encode())
        missed = found.states()[0]["missed"]
        polled(found, lambda: sum(batch.rows for batch in taken) + missed == 30)
        rows = [row for batch in taken for row in rows_of_body(batch.body, batch.rows)]
        assert {row["size"] for row in rows} == {600_003}
        assert [row["end"] for row in rows] == [f"{number:03}" for number in range(missed, 30)]
        assert found.states()[0]["waiting"] == 0

    def test_no_more_than_so_many_are_at_a_function(self, supervised: Any, tmp_path: Path) -> None:
        """While a function is busy the rest waits here, where it is bounded."""
        found, _ = supervised(
            "import pathlib, time\nfrom edge_agent import on_topic\n@on_topic('a')\ndef slow(m):\n"
            f"    while not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.01)\n"
        )
        polled(found, lambda: found.functions[0].state == "running")
        for _ in range(IN_HAND_MAX + 5):
            found.message("a", b"")
        polled(found, lambda: found.functions[0].in_hand == IN_HAND_MAX)
        assert found.states()[0]["waiting"] == 5
        (tmp_path / "go").touch()
        polled(found, lambda: found.functions[0].in_hand == 0 and not found.states()[0]["waiting"])
        polled(found, lambda: found.states()[0]["calls"] == IN_HAND_MAX + 5)

    def test_rows_go_to_those_that_read_them_once_accepted(self, supervised: Any) -> None:
        """Before the answer nobody sees them; of a refused batch nobody ever does."""
        found, taken = supervised(
            "from edge_agent import on_stream\n@on_stream('readings', stream='seen')\n"
            "def seen(rows): return [{'v': row['value']} for row in rows]\n"
        )
        polled(found, lambda: found.functions[0].state == "running")
        batch = frames.Batch("readings", *readings_of({"a": 1.5}))
        found.answer((found.functions[0], 99, batch), "refused")
        found.answer((found.functions[0], 99, batch), "")
        polled(found, lambda: taken)
        assert [rows_of_body(each.body, each.rows)[0]["v"] for each in taken] == [1.5]

    def test_a_refused_topic_is_the_functions_error(self, supervised: Any) -> None:
        """It is told until the broker takes the subscription, and other functions do not have it."""
        found, _ = supervised("from edge_agent import on_topic\n@on_topic('a')\ndef hear(m): pass\n", TANK)
        polled(found, lambda: all(function.state == "running" for function in found.functions))
        found.subscribed("a", "Not authorized")
        polled(found, lambda: "Not authorized" in found.problem)
        errors = {state["name"]: state["last_error"] for state in found.states()}
        assert "refuses the subscription to a" in errors["hear"]
        assert errors["tank"] == ""
        found.subscribed("a", "")
        polled(found, lambda: found.problem == "")

    def test_filters_are_wanted_as_functions_come(self, tmp_path: Path) -> None:
        """Whenever a function with a topic is loaded, all topics are asked for."""
        wanted: list[tuple[str, ...]] = []
        path = tmp_path / "hearing.py"
        path.write_text(
            "from edge_agent import on_topic\n@on_topic('a')\ndef f(m): pass\n@on_topic('b/#')\ndef g(m): pass\n"
        )
        found = Supervisor(
            [Source(str(path))], lambda *_: None, SystemClock(), batch_rows=1, flush_interval_s=0.01, want=wanted.append
        )
        try:
            polled(found, lambda: len(wanted) == 2)
            assert wanted == [("a",), ("a", "b/#")]
        finally:
            found.close()


class TestUnloadable:
    def test_none_of_all(self, supervised: Any) -> None:
        """When every source fails at its first start, all causes are told with file and line."""
        found, _ = supervised("1 / 0\n", "import os\nos._exit(7)\n")
        polled(found, lambda: found.unloadable)
        assert "functions_0.py:3: ZeroDivisionError" in found.unloadable
        assert "ended with status 7" in found.unloadable

    def test_one_that_loads_is_enough(self, supervised: Any) -> None:
        """Then the agent goes on, and tries the others again."""
        found, _ = supervised("1 / 0\n", TANK)
        polled(found, lambda: found.functions[0].starts > 1 and found.functions[1].state == "running")
        assert found.unloadable == ""


class TestProtocolBreach:
    def test_taken_without_being_given(self) -> None:
        """A process that has taken more than it was given is ended."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            function = FunctionProcess(Source("x"), "x", 1, 1, start_process=lambda: (None, ours))  # type: ignore[arg-type, return-value]
            function.start(0.0)
            theirs.sendall(frames.encode(frames.Taken()))
            with pytest.raises(DecodeError, match="not given"):
                function.receive()

    @pytest.mark.parametrize(
        "data",
        [struct.pack("<I", 1 << 31), b"\x01\x00\x00\x00\xc1", frames.encode(frames.Batch("readings", 1, b"")) * 3],
    )
    def test_a_process_that_breaks_the_protocol_is_ended(self, data: bytes) -> None:
        """A frame over the limit, no message, a third unanswered batch: an error, and the kill follows."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            function = FunctionProcess(Source("x"), "x", 1, 1, start_process=lambda: (None, ours))  # type: ignore[arg-type, return-value]
            function.start(0.0)
            theirs.sendall(data)
            with pytest.raises(DecodeError):
                function.receive()
        ours.close()

    def test_answers_of_an_earlier_run_are_dropped(self) -> None:
        """An answer for a batch of a process that has ended does not free a place of the next one."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            function = FunctionProcess(Source("x"), "x", 1, 1, start_process=lambda: (None, ours))  # type: ignore[arg-type, return-value]
            function.start(0.0)
            function.unanswered = 1
            function.answer(function.run_number - 1, "")
            assert function.unanswered == 1

    def test_pauses_between_starts(self) -> None:
        """0.2 s, doubled, up to the longest."""
        assert [restart_pause_s(failures) for failures in (1, 2, 3)] == [0.2, 0.4, 0.8]
        assert restart_pause_s(1000) == RESTART_MAX_S
        assert FUNCTIONS_MAX * 2 < 1024
