"""Functions of a real agent with a broker: on_topic and on_stream, over reconnects, kills and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.contract import wire
from edge_agent.functions.row_values import rows_of_body
from tests.kit.mqtt_client import MqttClient
from tests.kit.processes import Product, edgewater
from tests.kit.services import Server
from tests.kit.wait import until
from tests.kit.watermark_responder import WatermarkResponder

DEVICE = "shed-3"
CHAIN = """
from edge_agent import every, on_stream, on_topic

@on_topic("sensors/+/temperature")
def temperature(message):
    return {message.topic.split("/")[1]: float(message.text())}

@on_stream("readings", stream="events")
async def warm(rows):
    return [{"what": row["name"], "warm": row["value"] > 30, "exact": 2**60 + 1} for row in rows]

@on_stream("events", stream="counts")
def count(rows):
    return {"events": len(rows)}
"""


@pytest.fixture(params=["embedded_mqtt", "mosquitto"])
def broker(request: pytest.FixtureRequest) -> Server:
    """The embedded broker, then Mosquitto."""
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def responder(broker: Any) -> Iterator[WatermarkResponder]:
    """A bridge of the least kind at the broker."""
    with WatermarkResponder(broker.port) as found:
        yield found


@pytest.fixture
def client(broker: Any) -> Iterator[MqttClient]:
    """Somebody who publishes."""
    with MqttClient("127.0.0.1", broker.port, "sensor") as found:
        yield found


def agent(tmp_path: Path, port: int, *texts: str) -> Product:
    """An agent with function files of these texts."""
    files = []
    for number, text in enumerate(texts):
        files.append(tmp_path / f"functions_{number}.py")
        files[-1].write_text(text)
    command = edgewater(
        "agent", "run", *files, "--device", DEVICE, "--mqtt", f"mqtt://127.0.0.1:{port}", "--dir", tmp_path / "spool",
        "--run-dir", tmp_path / "run", "--stall-s", "0.5", "--drain-timeout-s", "20",
    )  # fmt: skip
    return Product(tmp_path / "run", f"agent-{DEVICE}", command, end_timeout_s=30)


def rows(responder: WatermarkResponder, stream: str) -> list[dict[str, Any]]:
    """The rows of a stream that have arrived."""
    found: list[dict[str, Any]] = []
    for message in list(responder.accepted):
        header, body = wire.decode_header(message)
        if header.stream == stream:
            raw = wire._raw_body(header, body)
            found += rows_of_body(raw, header.rows)
    return found


def states(product: Product) -> dict[str, dict[str, Any]]:
    """The functions by name."""
    return {state["name"]: state for state in (product.status() or {"functions": []})["functions"]}


def listening(product: Product, *names: str) -> None:
    """Wait until these functions run and the agent is connected."""

    def ready() -> bool:
        found = states(product)
        return all(found.get(name, {}).get("state") == "running" for name in names) and bool(
            (product.status() or {}).get("bridge_answered")
        )

    until(ready, 30, f"{names} to run: {product.tail()}")


def test_a_message_goes_through_a_chain(
    tmp_path: Path, broker: Any, responder: WatermarkResponder, client: MqttClient
) -> None:
    """A message becomes a reading, the reading a row with columns of its own, and that row another: all arrive."""
    with agent(tmp_path, broker.port, CHAIN) as product:
        listening(product, "temperature", "warm", "count")

        def arrived() -> bool:
            # Published again until the broker has the subscription, which comes a moment after the function runs.
            client.publish("sensors/kitchen/temperature", b"31.5")
            return bool(rows(responder, "counts"))

        until(arrived, 30, "a row of the last function")
        client.publish("sensors/kitchen/humidity", b"no business of the function's")
        client.publish("edgewater/ack/shed-9", b"nor this")
        assert product.terminate() == 0
    readings, events = rows(responder, "readings"), rows(responder, "events")
    assert {(row["name"], row["value"]) for row in readings} == {("kitchen", 31.5)}
    assert events[0] == {"ts": events[0]["ts"], "what": "kitchen", "warm": True, "exact": 2**60 + 1}
    assert states(product)["temperature"]["failed"] == 0
    assert states(product)["warm"]["trigger"] == 'on_stream("readings")'


def test_topics_are_subscribed_again_after_a_reconnect(
    tmp_path: Path, broker: Any, responder: WatermarkResponder
) -> None:
    """The broker is killed and comes back: the function hears messages again."""
    with agent(tmp_path, broker.port, CHAIN) as product:
        listening(product, "temperature")
        broker.kill()
        broker.start()
        until(lambda: (product.status() or {}).get("connections", 0) >= 2, 60, "the agent's return")
        with MqttClient("127.0.0.1", broker.port, "sensor-2") as client:

            def arrived() -> bool:
                client.publish("sensors/attic/temperature", b"7")
                return any(row["name"] == "attic" for row in rows(responder, "readings"))

            until(arrived, 60, "a message after the reconnect")
        assert product.terminate() == 0


def test_a_message_is_given_once_to_a_function_that_crashes(
    tmp_path: Path, broker: Any, responder: WatermarkResponder, client: MqttClient
) -> None:
    """A function that a message kills comes back without that message, and hears the next; the lost one is counted."""
    text = """
import os
from edge_agent import on_topic

@on_topic("work/#")
def worker(message):
    if message.payload == b"die":
        os._exit(9)
    return {"done": message.json()}
"""
    with agent(tmp_path, broker.port, text) as product:
        listening(product, "worker")

        def first() -> bool:
            client.publish("work/now", b"1")
            return bool(rows(responder, "readings"))

        until(first, 30, "the first row")
        client.publish("work/now", b"die")
        until(lambda: states(product)["worker"]["starts"] == 2, 30, "the second start")
        listening(product, "worker")
        client.publish("work/now", b"2")
        until(lambda: any(row["value"] == 2.0 for row in rows(responder, "readings")), 30, "the message after")
        until(lambda: states(product)["worker"]["missed"] == 1, 30, "the count of what was lost")
        assert states(product)["worker"]["starts"] == 2
        client.publish("work/now", b"{")
        until(lambda: "is not JSON" in states(product)["worker"]["last_error"], 30, "the error")
        client.publish("work/now", b"3")
        until(lambda: states(product)["worker"]["last_error"] == "", 30, "the error to go with its cause")
        assert product.terminate() == 0


def test_a_flood_of_messages_is_bounded(
    tmp_path: Path, broker: Any, responder: WatermarkResponder, client: MqttClient
) -> None:
    """A function that never returns: messages wait up to their bound, the rest is missed, and others go on."""
    text = """
import time
from edge_agent import every, on_topic

@on_topic("flood")
def stuck(message):
    time.sleep(600)

@every(0.05)
def alive():
    return 1
"""
    with agent(tmp_path, broker.port, text) as product:
        listening(product, "stuck", "alive")

        def waits() -> bool:
            client.publish("flood", b"x")
            return states(product)["stuck"]["waiting"] > 0

        until(waits, 30, "the function to be busy")
        for _ in range(1500):
            client.publish("flood", b"x" * 100, qos=0, wait=False)
        until(lambda: states(product)["stuck"]["missed"] > 0, 30, "messages that are missed")
        assert states(product)["stuck"]["waiting"] == 1000
        seen = len(rows(responder, "readings"))
        until(lambda: len(rows(responder, "readings")) > seen + 3, 30, "the other function's rows")
        assert product.terminate() == 0


def test_circles_over_files_are_refused(tmp_path: Path, broker: Any, responder: WatermarkResponder) -> None:
    """Two files whose functions would feed each other: the second one is not run, and says why."""
    one = 'from edge_agent import on_stream\n@on_stream("a", stream="b")\ndef one(rows): pass\n'
    two = 'from edge_agent import on_stream\n@on_stream("b", stream="a")\ndef two(rows): pass\n'
    with agent(tmp_path, broker.port, one, two) as product:
        until(lambda: sorted(state["state"] for state in states(product).values()) == ["running", "stopped"], 30)
        stopped = next(state for state in states(product).values() if state["state"] == "stopped")
        assert "circle" in stopped["last_error"]
        assert product.terminate() == 0


def test_reports_say_what_troubles_the_device(tmp_path: Path, broker: Any, responder: WatermarkResponder) -> None:
    """The first report comes on connect; a function's problem follows at once, not ten seconds later."""
    text = "from edge_agent import every\n@every(0.1)\ndef broken():\n    raise ValueError('no sensor')\n"
    with agent(tmp_path, broker.port, text) as product:
        until(lambda: responder.reports, 30, "a report")
        until(lambda: any("no sensor" in report.problem for report in responder.reports), 9, "the problem")
        assert product.terminate() == 0
    assert "functions_0.py:4" in responder.reports[-1].problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def broken(:\n", "functions_0.py:1: SyntaxError"),
        ("import edge_agent\nx = 1 / 0\n", "functions_0.py:2: ZeroDivisionError"),
        ("import edge_agent\nimport nothing_like_it\n", "functions_0.py:2: ModuleNotFoundError"),
        ("x = 1\n", "@every(10)"),
        ("from edge_agent import every\n@every(0)\ndef f(): pass\n", "functions_0.py:2"),
        ("from edge_agent import on_topic\n@on_topic('a/#/b')\ndef f(m): pass\n", "'#' stands alone"),
        ("import os\nos._exit(3)\n", "ended with status 3"),
        ("raise SystemExit('bye')\n", "SystemExit: bye"),
    ],
)
def test_a_file_that_cannot_be_loaded_ends_the_agent(
    tmp_path: Path, embedded_mqtt: Any, text: str, message: str
) -> None:
    """Nothing else would ever run: the agent ends with status 1, and says file and line of the cause."""
    product = agent(tmp_path, embedded_mqtt.port, text)
    product.start()
    assert product.wait(30) == 1
    assert message in product.tail().splitlines()[-1]
    assert "Traceback" not in product.tail()


def test_one_file_that_can_be_loaded_is_enough(tmp_path: Path, broker: Any, responder: WatermarkResponder) -> None:
    """Beside a file that fails when it is run, the other goes on."""
    good = "from edge_agent import every\n@every(0.1)\ndef good(): return 1\n"
    with agent(tmp_path, broker.port, "raise OSError('no bus')\n", good) as product:
        until(lambda: rows(responder, "readings"), 30, "rows of the good file")
        until(lambda: any("no bus" in state["last_error"] for state in states(product).values()), 30, "the error")
        assert product.terminate() == 0
