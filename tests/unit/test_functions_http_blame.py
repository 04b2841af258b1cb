"""Whose mistake an exception is: each view below fails in one way, and its name says whose fault that is."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from flask import Flask, jsonify, request

from edge_agent.functions.http_blame import callers_mistake, values_of
from edge_agent.functions.http_errors import Counts, JsonErrors

SETTINGS = {"limit": 3}
KINDS = {"volt": 1}
app = Flask(__name__)


def add(a: Any, b: Any) -> Any:
    """Uses values of the request as arguments."""
    return a + b


def caller_key(data: Any) -> Any:
    """No such key in the JSON."""
    return data["b"]


def caller_argument(data: Any) -> Any:
    """The wrong type, one call deeper."""
    return add(data["a"], "text")


def caller_assigned() -> Any:
    """Text that is no number, in a name assigned from one assigned from the request."""
    data = request.get_json()
    text = str(data["text"]).strip()
    return int(text)


def caller_loop() -> Any:
    """A member of a list in the JSON has no such key."""
    return [item["n"] for item in request.get_json()["items"]]


def caller_value() -> Any:
    """A value that the app does not know."""
    return KINDS[request.get_json()["text"]]


def caller_list() -> Any:
    """An index beyond a list of the JSON."""
    return request.get_json()["items"][7]


def caller_method() -> Any:
    """A method that a value of the JSON has not."""
    return request.get_json()["a"].upper()


def caller_unpack() -> Any:
    """A list of another length than expected."""
    first, second = request.get_json()["items"]
    return first, second


def caller_iterate() -> Any:
    """A number where a list was expected."""
    return sum(x for x in request.get_json()["a"])


def caller_division() -> Any:
    """A divisor of zero."""
    return 1 / request.get_json()["zero"]


def caller_query() -> Any:
    """A query parameter that is no number."""
    return int(request.args["n"])


def caller_library() -> Any:
    """A library function written in Python refuses a value of the request."""
    return uuid.UUID(request.get_json()["text"])


def caller_loads() -> Any:
    """The body is parsed by the app itself, and is no JSON of the kind it says."""
    return json.loads(request.get_json()["text"])


def caller_time() -> Any:
    """A time that is none."""
    return datetime.strptime(request.get_json()["text"], "%Y")  # noqa: DTZ007 - fails


def caller_raise() -> Any:
    """The app checks the request, and raises."""
    data = request.get_json()
    if data["a"] < 10:
        raise ValueError("a must be 10 at least")
    return data


def bug_settings() -> Any:
    """A key of the app's own, beside data of the request."""
    data = request.get_json()
    return data["a"] + SETTINGS["nothing"]


def bug_other_type() -> Any:
    """No exception that says a value was not as expected."""
    data = request.get_json()
    raise RuntimeError(f"cannot open {data['a']}")


def bug_library() -> Any:
    """A library fails with a value that is not the request's."""
    data = request.get_json()
    return [data["a"], json.loads("{")]


def bug_upstream() -> Any:
    """The answer of another service, asked for with the request's data, is no JSON."""
    reply = Upstream(request.get_json()["text"])
    return reply.json()


def bug_arithmetic() -> Any:
    """Zero by the app's own doing."""
    zero = len("")
    return 1 / zero


def bug_returned() -> Any:
    """The app returns what Flask cannot send."""
    request.get_json()
    return None


def bug_jsonify() -> Any:
    """The app makes an answer of an object that is no JSON."""
    request.get_json()
    return jsonify(object())


class Upstream:
    """As a library's response object."""

    def __init__(self, url: str) -> None:
        self.url = url

    def json(self) -> Any:
        """Fails deep in the library."""
        return json.loads("<html>")


BODY = {"a": 3, "text": "volt?", "items": [{"n": 1}, {}, {"n": 3}], "zero": 0}
VIEWS = [value for name, value in list(globals().items()) if name.startswith(("caller_", "bug_"))]
for view in VIEWS:
    takes_data = view.__code__.co_argcount == 1
    app.add_url_rule(
        f"/{view.__name__}", view.__name__, (lambda view=view: view(request.get_json())) if takes_data else view,
        methods=["POST"],
    )  # fmt: skip


def post(application: Any, path: str, body: bytes) -> tuple[str, bytes]:
    """One request through the middleware: (status, body)."""
    started: list[str] = []
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": path, "QUERY_STRING": "n=x", "SERVER_NAME": "x", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json", "SERVER_PROTOCOL": "HTTP/1.1",
    }  # fmt: skip
    guarded = JsonErrors(
        application, own=lambda file: file == __file__, counts=Counts(), tell=lambda _text, _place: None
    )

    def start_response(status: str, *_: Any) -> Any:
        started.append(status)

    found = b"".join(guarded(environ, start_response))
    return started[0], found


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
def test_whose_mistake_it_is(view: Callable[..., Any]) -> None:
    """Views named caller_ are answered with 400 and a sentence, views named bug_ with 500 and an id."""
    status, body = post(app, f"/{view.__name__}", json.dumps(BODY).encode())
    document = json.loads(body)
    if view.__name__.startswith("caller_"):
        assert status == "400 Bad Request", document
        assert document["error"] != "internal error"
    else:
        assert status == "500 Internal Server Error", document
        assert document["error"] == "internal error"


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (caller_key, "missing key 'b'"),
        (caller_value, "unknown value 'volt?'"),
        (caller_list, "missing item: list index out of range"),
        (caller_raise, "a must be 10 at least"),
        (caller_method, "wrong type: 'int' object has no attribute 'upper'"),
    ],
)
def test_what_the_caller_is_told(view: Callable[..., Any], text: str) -> None:
    """One sentence about the value."""
    assert json.loads(post(app, f"/{view.__name__}", json.dumps(BODY).encode())[1]) == {"error": text}


def test_plain_wsgi() -> None:
    """Without a framework the environ is the request."""

    def application(environ: Any, start_response: Any) -> list[bytes]:
        data = json.loads(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [str(data["a"] + data["nothing"]).encode()]

    assert post(application, "/", json.dumps(BODY).encode())[0] == "400 Bad Request"
    status, body = post(application, "/", b"{")
    assert (status, json.loads(body)["error"][:9]) == ("400 Bad Request", "Expecting")


def test_what_is_no_json_is_told() -> None:
    """`values_of` says why a body is no JSON, and takes forms, queries and paths apart."""
    environ = {"PATH_INFO": "/items/x7", "QUERY_STRING": "n=5", "CONTENT_TYPE": "x-www-form-urlencoded"}
    found = values_of(environ, b"name=edge&unit=")
    assert found.not_json.startswith("Expecting value")
    assert all(found.holds(text) for text in ("x7", "5", "n", "edge", "unit", b"name=edge&unit="))
    assert not found.holds("y")
    assert values_of({}, b"[" * 100_000).too_deep


def test_many_values_are_bounded() -> None:
    """Of a large body PARTS_MAX values are looked at."""
    found = values_of({}, json.dumps(list(range(50_000))).encode())
    assert len(found.scalars) < 10_100


def test_an_error_without_a_place() -> None:
    """An exception that was never raised is nobody's mistake but the app's."""
    assert callers_mistake(KeyError("a"), values_of({}, b"{}"), lambda _file: True) is None
