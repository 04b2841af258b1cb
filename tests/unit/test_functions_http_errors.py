"""The middleware around WSGI apps: what passes, what becomes JSON, and what the log gets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from edge_agent.functions.http_errors import HELD_BYTES_MAX, Counts, JsonErrors, asks_for_html, text_of_html

HTML = [("Content-Type", "text/html; charset=utf-8")]


class Caller:
    """Calls an app through the middleware as a server does."""

    def __init__(self, app: Any) -> None:
        self.counts = Counts()
        self.told: list[tuple[str, str]] = []
        self.app = JsonErrors(
            app, own=lambda file: file == __file__, counts=self.counts, tell=lambda *one: self.told.append(one)
        )
        self.closed = False

    def get(self, method: str = "GET", **environ: Any) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body)."""
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start_response(status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> Any:
            started.append((status, headers))

        found: Iterable[bytes] = self.app(
            {"REQUEST_METHOD": method, "PATH_INFO": "/x", "wsgi.input": io.BytesIO(), **environ}, start_response
        )
        body = b"".join(found)
        (status, headers) = started[0]
        assert len(started) == 1
        return int(status[:3]), {name.lower(): value for name, value in headers}, body


def answering(status: str, headers: list[tuple[str, str]], *chunks: bytes) -> Any:
    """An app that always answers the same."""

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response(status, headers)
        return list(chunks)

    return app


def failing(_environ: Any, _start_response: Any) -> list[bytes]:
    """Always raises."""
    raise RuntimeError("no sensor")


def test_good_answers_pass() -> None:
    """Status, headers and chunks are the app's, and a list stays a list, so that the server knows its length."""
    caller = Caller(answering("200 OK", HTML, b"<p>", b"hello"))
    assert caller.get() == (200, {"content-type": HTML[0][1]}, b"<p>hello")
    found = caller.app({"REQUEST_METHOD": "GET"}, lambda *_: None)
    assert found == [b"<p>", b"hello"]
    assert (caller.counts.requests, caller.counts.errors_4xx, caller.counts.running) == (2, 0, {})


def test_its_own_json_passes_untouched() -> None:
    """An error that the app answers in JSON is not touched, whatever it looks like."""
    caller = Caller(answering("422 Unprocessable", [("Content-Type", "application/json")], b'{"why": ', b'"b"}'))
    assert caller.get()[2] == b'{"why": "b"}'
    assert caller.counts.errors_4xx == 1


def test_html_errors_become_json() -> None:
    """Status and other headers stay; the text of the page is what is told."""
    page = b"<!doctype html><html><title>404 Not Found</title><h1>Not Found</h1><p>No such &lt;thing&gt;.</p>"
    app = answering("404 NOT FOUND", [*HTML, ("Content-Length", str(len(page))), ("Allow", "GET")], page)
    status, headers, body = Caller(app).get(HTTP_ACCEPT="*/*")
    assert (status, headers["allow"], headers["content-type"]) == (404, "GET", "application/json")
    assert json.loads(body) == {"error": "No such <thing>."}
    assert int(headers["content-length"]) == len(body)
    assert Caller(app).get("HEAD")[2] == b""
    assert Caller(app).get(HTTP_ACCEPT="text/html")[2] == page


def test_a_text_that_a_flask_view_returns() -> None:
    """`return "a is missing", 400` is HTML to Flask; its text is kept."""
    assert json.loads(Caller(answering("400 BAD REQUEST", HTML, b"a is missing")).get()[2]) == {"error": "a is missing"}


def test_an_empty_page() -> None:
    """Without a text the reason is told."""
    assert json.loads(Caller(answering("403 FORBIDDEN", HTML)).get()[2]) == {"error": "FORBIDDEN"}


def test_plain_text_passes() -> None:
    """Text that is no HTML is the app's own choice."""
    assert Caller(answering("404 Not Found", [("Content-Type", "text/plain")], b"no")).get()[2] == b"no"


def test_a_long_error_page_passes() -> None:
    """Beyond HELD_BYTES_MAX nothing is held back."""
    page = b"x" * (HELD_BYTES_MAX + 1)
    assert Caller(answering("500 Oh", HTML, page, b"end")).get()[2] == page + b"end"


def test_an_exception_is_an_id(caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets an id, the log the traceback with it, the agent the place."""

    def app(_environ: Any, _start_response: Any) -> list[bytes]:
        raise RuntimeError("secret")

    caller = Caller(app)
    status, _, body = caller.get()
    assert status == 500
    assert b"secret" not in body
    assert json.loads(body)["id"] in caplog.text
    assert "Traceback" in caplog.text
    assert (caller.counts.errors_5xx, len(caller.told)) == (1, 1)
    assert __file__ in caller.told[0][1]


def test_many_exceptions_are_few_tracebacks(caplog: pytest.LogCaptureFixture) -> None:
    """One traceback a second, one line for each of the others."""
    caller = Caller(failing)
    with caplog.at_level(logging.ERROR):
        for _ in range(50):
            assert caller.get()[0] == 500
    assert len(caplog.records) == 50
    assert sum(record.exc_info is not None for record in caplog.records) <= 2


def test_an_exception_before_the_first_byte() -> None:
    """A generator that fails before it has said anything is answered like any other."""

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        raise RuntimeError
        yield b""

    assert Caller(app).get()[0] == 500


def test_an_exception_after_the_first_byte_cuts_the_answer() -> None:
    """What is sent is sent: the exception goes to the server, which closes the connection."""

    def app(_environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"begun"
        raise RuntimeError("late")

    caller = Caller(app)
    with pytest.raises(RuntimeError):
        caller.get()
    assert caller.told[0][0].endswith(")")
    assert caller.counts.running == {}


def test_an_app_that_breaks_the_protocol() -> None:
    """No start_response, or a body before it, is the app's mistake."""
    assert Caller(lambda _environ, _start_response: [b"x"]).get()[0] == 500
    assert Caller(lambda _environ, _start_response: []).get()[0] == 500
    assert Caller(lambda _environ, _start_response: None).get()[0] == 500


def test_the_old_write_callable() -> None:
    """Bytes written by what start_response returns come first."""

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(b"one ")
        return [b"two"]

    assert Caller(app).get()[2] == b"one two"


def test_the_answer_is_closed() -> None:
    """`close` of what the app returned is called once, also after a failure."""
    closed = []

    class Answer:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"

        def close(self) -> None:
            closed.append(1)

    def app(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return Answer()

    Caller(app).get()
    assert closed == [1]


def test_a_traceback_in_an_answer_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """Also one that the app sends itself, as a debugger's page does."""
    page = b"<pre>Traceback (most recent call last): secret</pre>"
    status, _, body = Caller(answering("500 Oh", HTML, page)).get(HTTP_ACCEPT="text/html")
    assert status == 500
    assert b"secret" not in body
    assert json.loads(body)["id"] in caplog.text
    assert "secret" in caplog.text


def test_lines_of_the_log_cannot_be_forged(caplog: pytest.LogCaptureFixture) -> None:
    """A path with a line break stays on its line."""
    Caller(failing).get(PATH_INFO="/x\nERROR forged")
    assert "\nERROR forged" not in caplog.text


def test_flask_handlers_and_its_log(caplog: pytest.LogCaptureFixture) -> None:
    """An app's own error handler answers; Flask's own line with the traceback is left out where ours stands."""
    from flask import Flask

    app = Flask("own_handler")

    @app.get("/x")
    def fails() -> str:
        raise RuntimeError("inside")

    status, _, body = Caller(app).get(SERVER_NAME="x", SERVER_PORT="80", **{"wsgi.url_scheme": "http"})
    assert status == 500
    assert caplog.text.count("Traceback") == 1
    assert json.loads(body)["id"] in caplog.text
    app = Flask("own_handler")
    app.add_url_rule("/x", view_func=fails)
    app.register_error_handler(500, lambda _error: ({"mine": True}, 503))
    status, _, body = Caller(app).get(SERVER_NAME="x", SERVER_PORT="80", **{"wsgi.url_scheme": "http"})
    assert (status, json.loads(body)) == (503, {"mine": True})


@pytest.mark.parametrize(
    ("accept", "asks"),
    [
        ("", False), ("*/*", False), ("application/json", False), ("text/*", False), ("text/html", True),
        ("application/json, text/html;q=0.9", True), ("text/html;q=0, */*", False), ("TEXT/HTML", True),
        ("application/xhtml+xml,*/*;q=0.8", True), (";;,,q=", False),
    ],
)  # fmt: skip
def test_who_asks_for_html(accept: str, asks: bool) -> None:
    """Those who name it."""
    assert asks_for_html(accept) is asks


def test_text_of_html() -> None:
    """Paragraphs, else everything that can be seen."""
    assert text_of_html("<title>t</title><style>p{}</style><h1>Big</h1> & <b>bold</b>") == "Big & bold"
    assert text_of_html("<h1>t</h1><p>one</p><p class=x>two <i>three</i></p>") == "one two three"
    assert text_of_html("<p>" + "x" * 5000 + "</p>") == "x" * 500
    assert text_of_html("") == ""
