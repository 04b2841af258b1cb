"""The agent as a process, with a broker and the least of a bridge: what its spool accepted arrives, whatever dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract import wire
from edge_agent.contract.wire import Kind
from edge_agent.spool import read_ledger
from tests.kit.mosquitto import free_port, listens
from tests.kit.processes import Product, edgewater
from tests.kit.required import mosquitto_binary, requires
from tests.kit.services import Server
from tests.kit.wait import until
from tests.kit.watermark_responder import WatermarkResponder

DEVICE = "pump-7"
COUNTING = """
from edge_agent import every

count = 0

@every(0.02)
def counting():
    global count
    count += 10
    return [("count", number) for number in range(count - 10, count)]
"""
CRASH_POINTS = [
    "agent.spool.before_commit:3",
    "agent.spool.after_commit:3",
    "agent.send.before:3",
    "agent.send.after:3",
    "agent.trim.before:2",
    "agent.trim.after:2",
]


@pytest.fixture(params=["embedded_mqtt", "mosquitto"])
def broker(request: pytest.FixtureRequest) -> Server:
    """The embedded broker, then Mosquitto."""
    found: Server = request.getfixturevalue(request.param)
    return found


class Agent(Product):
    """An agent process with a function that counts, and its spool."""

    def __init__(self, tmp_path: Path, urls: str, *options: str, file: str | None = COUNTING) -> None:
        self.spool = tmp_path / "spool"
        files = []
        if file is not None:
            files = [tmp_path / "counting.py"]
            files[0].write_text(file)
        command = edgewater(
            "agent", "run", *files, "--device", DEVICE, "--mqtt", urls, "--dir", self.spool,
            "--run-dir", tmp_path / "run", "--ledger", "true", "--stall-s", "0.5", "--drain-timeout-s", "20", *options,
        )  # fmt: skip
        super().__init__(tmp_path / "run", f"agent-{DEVICE}", command, end_timeout_s=30)

    def until_accepted(self, rows: int) -> dict[str, Any]:
        """Wait until this process's spool has accepted so many rows; its status."""

        def enough() -> dict[str, Any] | None:
            status = self.status()
            return status if status is not None and status["rows_accepted"] >= rows else None

        return until(enough, 30, f"{rows} rows accepted: {self.tail()}")

    def ledger(self) -> list[bytes]:
        """What its spool accepted, over all starts."""
        return sorted(read_ledger(self.spool))


@pytest.fixture
def responder(broker: Any) -> Iterator[WatermarkResponder]:
    """A bridge of the least kind at the broker."""
    with WatermarkResponder(broker.port) as found:
        yield found


def url(broker: Any) -> str:
    """As the agent takes it."""
    return f"mqtt://127.0.0.1:{broker.port}"


def test_what_was_accepted_arrives(tmp_path: Path, broker: Any, responder: WatermarkResponder) -> None:
    """Rows of a function go through spool and broker in order; on SIGTERM the agent drains and ends with status 0."""
    with Agent(tmp_path, url(broker)) as agent:
        agent.until_accepted(300)
        assert agent.terminate() == 0
        status = agent.status()
    assert status is not None
    assert responder.accepted
    assert sorted(responder.accepted) == agent.ledger()
    assert status["rows_accepted"] == status["rows_sent"] == status["rows_durable"] == responder.rows
    assert (status["spool_batches"], status["unacked_bytes"], status["functions"][0]["failed"]) == (0, 0, 0)
    header = wire.message_header(responder.accepted[0])
    assert (header.device, header.stream, header.function) == (DEVICE, "readings", "counting")


def test_the_built_in_function(tmp_path: Path, broker: Any, responder: WatermarkResponder) -> None:
    """Without a file the agent measures this machine."""
    with Agent(tmp_path, url(broker), file=None) as agent:
        agent.until_accepted(20)
        assert agent.terminate() == 0
    header, body = wire.decode_header(responder.accepted[-1])
    names = next(column for column in wire.decode_columns(header, body) if column.name == "name").names
    assert header.function == "host"
    assert {"load_1m", "memory_used_bytes", "cpu_percent"} <= set(names)


def test_a_broker_that_is_killed_loses_nothing(tmp_path: Path, broker: Any, responder: WatermarkResponder) -> None:
    """kill -9 of the broker, twice, with batches under way: what it had acknowledged and lost is sent again."""
    with Agent(tmp_path, url(broker)) as agent:
        for round_ in (1, 2):
            agent.until_accepted(200 * round_)
            broker.kill()
            agent.until_accepted(200 * round_ + 100)
            broker.start()
        until(lambda: (agent.status() or {}).get("bridge_answered"), 60, "the agent's return")
        assert agent.terminate() == 0
    assert sorted(responder.accepted) == agent.ledger()


def test_an_agent_that_is_killed_loses_nothing(tmp_path: Path, broker: Any, responder: WatermarkResponder) -> None:
    """kill -9 of the agent, three times: each start makes a new epoch, drains the old ones, and closes each of them."""
    agent = Agent(tmp_path, url(broker))
    for _ in range(3):
        agent.start()
        agent.until_accepted(150)
        agent.kill()
    with agent:
        agent.until_accepted(50)
        assert agent.terminate() == 0
    accepted = agent.ledger()
    assert sorted(responder.accepted) == accepted
    epochs = {wire.message_header(message).epoch for message in accepted}
    assert len(epochs) == 4
    assert {epoch for _, epoch in responder.closed} == epochs - {max(epochs)}


@pytest.mark.parametrize("point", CRASH_POINTS)
def test_a_crash_at_any_point_loses_nothing(tmp_path: Path, embedded_mqtt: Any, point: str) -> None:
    """Killed before or after a commit, a send, a trim: after a restart everything accepted has arrived once."""
    with WatermarkResponder(embedded_mqtt.port) as responder:
        agent = Agent(tmp_path, url(embedded_mqtt))
        agent.environment["EDGEWATER_CRASH_POINT"] = point
        agent.start()
        assert agent.wait(30) == -signal.SIGKILL
        del agent.environment["EDGEWATER_CRASH_POINT"]
        with agent:
            agent.until_accepted(50)
            assert agent.terminate() == 0
        assert sorted(responder.accepted) == agent.ledger()


def test_a_crash_while_closing_an_epoch(tmp_path: Path, embedded_mqtt: Any) -> None:
    """Killed between the close record and forgetting the epoch: the close is sent again, and harmless."""
    with WatermarkResponder(embedded_mqtt.port) as responder:
        agent = Agent(tmp_path, url(embedded_mqtt))
        with agent:
            agent.until_accepted(50)
            assert agent.terminate() == 0
        agent.environment["EDGEWATER_CRASH_POINT"] = "agent.close"
        agent.start()
        assert agent.wait(30) == -signal.SIGKILL
        del agent.environment["EDGEWATER_CRASH_POINT"]
        with agent:
            agent.until_accepted(20)
            until(lambda: responder.closed, 20, "a close record")
            assert agent.terminate() == 0
        assert sorted(responder.accepted) == agent.ledger()


def test_without_a_bridge_the_batches_wait(tmp_path: Path, embedded_mqtt: Any) -> None:
    """Nobody answers: the agent says how many batches wait, ends with status 3, and a later start sends them."""
    agent = Agent(tmp_path, url(embedded_mqtt), "--drain-timeout-s", "0.5")
    with agent:
        agent.until_accepted(50)
        assert agent.terminate() == 3
    assert "batches wait in the spool" in agent.tail()
    with WatermarkResponder(embedded_mqtt.port) as responder:
        with agent:
            agent.until_accepted(20)
            until(lambda: responder.closed, 20, "the earlier epoch to be drained")
        assert {wire.message_header(message).kind for message in responder.accepted} == {Kind.BATCH}


def test_a_second_signal_ends_the_waiting(tmp_path: Path, embedded_mqtt: Any) -> None:
    """Somebody who presses Ctrl-C twice does not want to wait for the drain."""
    agent = Agent(tmp_path, url(embedded_mqtt), "--drain-timeout-s", "600")
    with agent:
        agent.until_accepted(50)
        agent.signal(signal.SIGINT)
        until(lambda: (agent.status() or {}).get("state") == "draining", 20, "the drain")
        agent.signal(signal.SIGINT)
        assert agent.wait(10) == 3


def test_functions_die_with_the_agent(tmp_path: Path, embedded_mqtt: Any) -> None:
    """kill -9 of the agent takes its functions along, also one that is busy."""
    busy = "from edge_agent import every\n@every(0.01)\ndef busy():\n    while True: pass\n"
    agent = Agent(tmp_path, url(embedded_mqtt), file=busy)
    agent.start()
    status = until(
        lambda: next((s for s in [agent.status()] if s and s["functions"][0]["state"] == "running"), None), 20
    )
    pid = status["functions"][0]["pid"]
    agent.kill()

    def gone() -> bool:
        try:
            return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
        except FileNotFoundError:
            return True

    until(gone, 5, "the function's process to end")


def test_another_broker_is_tried(tmp_path: Path, embedded_mqtt: Any) -> None:
    """Of two brokers one is down: the agent goes to the other."""
    urls = f"mqtt://127.0.0.1:{free_port()};weight=100,{url(embedded_mqtt)};weight=1"
    with WatermarkResponder(embedded_mqtt.port) as responder:
        with Agent(tmp_path, urls, "--balancing", "weighted") as agent:
            until(lambda: responder.accepted, 20, "a batch")
            assert agent.terminate() == 0
        assert sorted(responder.accepted) == agent.ledger()


def test_mqtt_5(tmp_path: Path, mosquitto: Any) -> None:
    """The newer protocol carries the same."""
    with WatermarkResponder(mosquitto.port) as responder:
        with Agent(tmp_path, mosquitto.url, "--mqtt-version", "5") as agent:
            agent.until_accepted(100)
            assert agent.terminate() == 0
        assert sorted(responder.accepted) == agent.ledger()


def test_a_full_spool_lets_functions_wait(tmp_path: Path, embedded_mqtt: Any) -> None:
    """Without a bridge a spool with policy reject fills up to its bound, then functions wait; nothing is dropped."""
    file = (
        "import os\nfrom array import array\nfrom edge_agent import every, readings\n@every(0.001)\ndef flood():\n"
        "    noise = array('d', os.urandom(80000))\n"
        "    return readings(ts=array('q', bytes(80000)), names=['a'], codes=array('B', bytes(10000)), values=noise)\n"
    )
    agent = Agent(tmp_path, url(embedded_mqtt), "--spool-bytes-max", str(8 << 20), "--drain-timeout-s", "0", file=file)
    with agent:
        full = until(
            lambda: next((s for s in [agent.status()] if s and "spool_bytes_max" in s["last_error"]), None), 40
        )
        later = until(lambda: next((s for s in [agent.status()] if s and s["at"] > full["at"] + 1), None), 20)
        assert later["rows_accepted"] == full["rows_accepted"]
        assert later["batches_dropped"] == 0
        assert 7 << 20 < later["spool_bytes"] <= 8 << 20
        with WatermarkResponder(embedded_mqtt.port):
            agent.until_accepted(full["rows_accepted"] + 100_000)
        assert agent.terminate() == 0


def test_tls(tmp_path: Path) -> None:
    """An mqtts URL is checked against the system's authorities: with the broker's it connects, without it never."""
    requires("mosquitto")
    binary, openssl = mosquitto_binary(), shutil.which("openssl")
    if binary is None or openssl is None:
        pytest.skip("openssl is missing (apt-get install openssl)")
    certificate, key, configuration = (tmp_path / name for name in ("broker.crt", "broker.key", "mosquitto.conf"))
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    plain, secure = free_port(), free_port()
    configuration.write_text(
        f"user root\nallow_anonymous true\nlistener {plain} 127.0.0.1\nlistener {secure} 127.0.0.1\n"
        f"certfile {certificate}\nkeyfile {key}\n"
    )
    broker = subprocess.Popen([binary, "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        until(lambda: listens("127.0.0.1", plain) and listens("127.0.0.1", secure), 10, "mosquitto's ports")
        agent = Agent(tmp_path, f"mqtts://localhost:{secure}")
        with WatermarkResponder(plain) as responder:
            with agent:
                until(lambda: "certificate" in (agent.status() or {}).get("last_error", ""), 20, "a refusal")
                agent.kill()
            agent.environment["SSL_CERT_FILE"] = str(certificate)
            with agent:
                agent.until_accepted(50)
                assert agent.terminate() == 0
            assert sorted(responder.accepted) == agent.ledger()
    finally:
        broker.terminate()
        broker.wait(10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mqtt", "http://x"], "is not mqtt://host:port"),
        (["--device", "a b"], "device name"),
        (["--spool-policy", "drop"], "use one of reject"),
        (["--functions", "hots"], "no built-in function hots"),
        (["missing.py"], "does not exist"),
        (["--stream-priorities", "a=9"], "stream=0 to stream=3"),
        (["--spool-bytes-max", "8388608", "--unacked-bytes-max", "8388608"], "twice unacked_bytes_max"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path: Path, options: list[str], message: str) -> None:
    """What cannot work is said in one line before anything starts, status 1."""
    agent = Product(tmp_path / "run", "agent", edgewater("agent", "run", "--dir", tmp_path / "spool", *options))
    agent.start()
    assert agent.wait(20) == 1
    assert message in agent.tail()
    assert agent.tail().count("\n") == 1


def test_two_agents_cannot_share_a_spool(tmp_path: Path, embedded_mqtt: Any) -> None:
    """The second one ends at once and says why."""
    with Agent(tmp_path, url(embedded_mqtt), "--drain-timeout-s", "0") as agent:
        agent.ready()
        second = Product(tmp_path / "second", "second", agent.command)
        second.start()
        assert second.wait(20) == 1
        assert "in use by another process" in second.tail()


def test_the_agent_is_small(tmp_path: Path, embedded_mqtt: Any) -> None:
    """At most 30 MB (PSS) with the spool open, connected, and a TLS context loaded."""
    urls = f"{url(embedded_mqtt)},mqtts://127.0.0.1:{free_port()}"
    with WatermarkResponder(embedded_mqtt.port), Agent(tmp_path, urls) as agent:
        agent.until_accepted(500)
        until(lambda: (agent.status() or {}).get("bridge_answered"), 30, "an answer")
        rollup = Path(f"/proc/{agent.pid}/smaps_rollup").read_text()
        pss_kib = int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:")))
        print(f"agent PSS {pss_kib} KiB, pid {os.getpid()}")
        assert pss_kib <= 30 * 1024
        assert agent.terminate() == 0
