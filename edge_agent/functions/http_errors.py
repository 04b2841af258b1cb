"""WSGI middleware: errors of an HTTP app become JSON, and a caller never sees a traceback.

- An exception that leaves the app, or that Flask made its plain 500 of, is answered with 400 and what was wrong when it
  is the caller's mistake (`http_blame.py` says when), else with 500 and an id; the traceback with that id is in the log
  only.
- An error answer (status 400 and above) in HTML, to a caller who did not ask for text/html by name, keeps status and
  headers and becomes {"error": its text}.
- An error answer whose text holds a traceback becomes a 500 with an id.
- Everything else, so all JSON of the app's own, passes untouched.

**Delivery**: an answer whose first byte is sent stays as it is; an exception after that is logged, and the connection
is cut. **Bounds**: of an error answer HELD_BYTES_MAX are held back to be looked at, a longer one passes as it is; one
traceback a second is logged, further ones as one line each.
"""

from __future__ import annotations

import contextlib
import html
import json
import logging
import re
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any

from .http_blame import MARK, Own, callers_mistake, values_of

__all__ = ["Counts", "JsonErrors", "json_answer"]

HELD_BYTES_MAX = 64 * 1024
TEXT_CHARACTERS_MAX = 500
_BODY_BYTES_MAX = 1 << 20
_TRACEBACK_INTERVAL_S = 1.0
_TRACEBACK = b"Traceback (most recent call last)"
_DEFAULT_PAGE = b"<title>500 Internal Server Error</title>"
"""Of werkzeug's page for an exception that nobody handled."""
_INVISIBLE = re.compile(r"(?is)<(head|title|script|style)\b.*?</\1\s*>|<!.*?>")
_PARAGRAPH = re.compile(r"(?is)<p\b[^>]*>(.*?)</p\s*>")
_TAG = re.compile(r"(?s)<[^>]*>")

log = logging.getLogger("edgewater.functions.http")

Headers = list[tuple[str, str]]
Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None
StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
Tell = Callable[[str, str], None]
"""(text, place) of something that went wrong in the app."""


@dataclass(slots=True)
class Counts:
    """Of one app since its process began: requests, and errors by whose they are. Threads share it."""

    requests: int = 0
    errors_4xx: int = 0
    errors_5xx: int = 0
    failing: bool = False
    """Whether there was a 5xx, and no good answer since."""
    running: dict[int, float] = field(default_factory=dict)
    """Thread -> monotonic seconds at which the request it works on began."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, status: int) -> None:
        """One request more, with this status."""
        with self._lock:
            self.requests += 1
            self.errors_4xx += 400 <= status < 500
            self.errors_5xx += status >= 500
            self.failing = status >= 500 or (self.failing and status >= 400)


class _Exchange:
    """One request under way, and what the app has said so far."""

    __slots__ = ("environ", "error", "exc_info", "headers", "mistake", "own", "status", "written")

    def __init__(self, environ: Environ, own: Own) -> None:
        self.environ = environ
        self.own = own
        self.mistake: tuple[str, str] | None = None
        self.status = ""
        self.headers: Headers = []
        self.exc_info: ExcInfo = None
        self.error: BaseException | None = None
        self.written = bytearray()

    def start_response(self, status: str, headers: Headers, exc_info: ExcInfo = None) -> Callable[[bytes], object]:
        """As the app calls it; nothing is sent yet."""
        self.status, self.headers, self.exc_info = status, list(headers), exc_info
        return self.written.extend

    def raised(self, error: BaseException) -> None:
        """The app failed with `error`; judged here and now, while Flask's `request` still stands for this request."""
        self.error = error
        try:
            self.mistake = callers_mistake(error, values_of(self.environ, self.body()), self.own)
        except Exception:  # noqa: BLE001 - looking at an app's values runs its code; then in doubt it is the app's
            self.mistake = None

    @property
    def code(self) -> int:
        digits = self.status[:3]
        return int(digits) if digits.isascii() and digits.isdigit() else 500

    @property
    def line(self) -> str:
        """For the log: method and path, without what would break a line."""
        return ascii(f"{self.environ.get('REQUEST_METHOD')} {self.environ.get('PATH_INFO')}")[1:-1][:200]

    def content_type(self) -> str:
        return next((value.lower() for name, value in self.headers if name.lower() == "content-type"), "")

    def body(self) -> bytes:
        """What the caller sent, read again; nothing where the server's stream cannot be read twice."""
        stream = self.environ.get("wsgi.input")
        try:
            stream.seek(0)  # type: ignore[union-attr]  # None and streams without seek are told apart below
            data = stream.read(_BODY_BYTES_MAX)  # type: ignore[union-attr]
        except (AttributeError, OSError, ValueError):
            return b""
        return data if isinstance(data, bytes) else b""


_current: ContextVar[_Exchange | None] = ContextVar("edgewater_exchange", default=None)


def json_answer(code: int, text: str, **more: str) -> tuple[str, Headers, bytes]:
    """(status, headers, body) of an error."""
    body = json.dumps({"error": text, **more}).encode() + b"\n"
    phrase = HTTPStatus(code).phrase if code in HTTPStatus._value2member_map_ else "Error"
    return f"{code} {phrase}", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))], body


def asks_for_html(accept: str) -> bool:
    """Whether an Accept header names HTML, as browsers' do; `*/*`, as curl and libraries send, does not."""
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        if kind in ("text/html", "application/xhtml+xml"):
            return not any(re.fullmatch(r"q\s*=\s*0(\.0*)?", piece) for piece in parameters)
    return False


def text_of_html(page: str) -> str:
    """What a page says: its paragraphs, or all of its text when it has none."""
    visible = _INVISIBLE.sub(" ", page)
    paragraphs = _PARAGRAPH.findall(visible)
    text = html.unescape(_TAG.sub(" ", " ".join(paragraphs) if paragraphs else visible))
    return " ".join(text.split())[:TEXT_CHARACTERS_MAX]


class JsonErrors:
    """The middleware around `app`; `own` tells the app's files, `tell` the agent what went wrong."""

    def __init__(self, app: App, *, own: Own, counts: Counts, tell: Tell) -> None:
        self._app = app
        self._own = own
        self._counts = counts
        self._tell = tell
        self._traceback_at_s = float("-inf")
        self._flask_seen = False

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        exchange = _Exchange(environ, self._own)
        environ[MARK] = exchange
        self._watch_flask()
        thread = threading.get_ident()
        self._counts.running[thread] = time.monotonic()
        token = _current.set(exchange)
        try:
            result = self._app(environ, exchange.start_response)
        except BaseException as error:  # noqa: BLE001 - an app may raise anything, also SystemExit; its caller is answered
            exchange.status = ""
            if exchange.error is not error:
                exchange.raised(error)
            self._counts.running.pop(thread, None)
            return self._finish(exchange, b"", start_response)
        finally:
            _current.reset(token)
        if exchange.status and exchange.code < 400 and not exchange.written and type(result) in (list, tuple):
            self._counts.running.pop(thread, None)
            self._start(exchange, start_response)
            return result
        return self._stream(exchange, result, start_response)

    def _start(self, exchange: _Exchange, start_response: StartResponse) -> None:
        self._counts.answered(exchange.code)
        if exchange.exc_info:
            start_response(exchange.status, exchange.headers, exchange.exc_info)
        else:
            start_response(exchange.status, exchange.headers)

    def _stream(self, exchange: _Exchange, result: Iterable[bytes], start_response: StartResponse) -> Iterator[bytes]:
        """The app's answer, held back while it may have to be replaced."""
        begun = False
        held = bytearray()
        try:
            for chunk in result:
                if begun:
                    yield chunk
                    continue
                if not exchange.status:
                    if chunk:
                        raise AssertionError("the app sent a body before it called start_response")
                    continue
                held += exchange.written + chunk
                exchange.written.clear()
                if exchange.code < 400 or len(held) > HELD_BYTES_MAX:
                    self._start(exchange, start_response)
                    begun = True
                    yield bytes(held)
            if not exchange.status:
                raise AssertionError("the app did not call start_response")
        except (Exception, SystemExit) as error:  # as above; GeneratorExit is the server's
            if begun:
                self._log(exchange, error, secrets.token_hex(4))
                raise
            exchange.status = ""
            exchange.raised(error)
        finally:
            self._counts.running.pop(threading.get_ident(), None)
            close = getattr(result, "close", None)
            if close is not None:
                with contextlib.suppress(Exception):
                    close()
        if not begun:
            yield from self._finish(exchange, bytes(held + exchange.written), start_response)

    def _finish(self, exchange: _Exchange, body: bytes, start_response: StartResponse) -> list[bytes]:
        """The answer that is whole in `body`, or in its place the one that the caller should see."""
        replaced = self._replaced(exchange, body)
        if replaced is None:
            self._start(exchange, start_response)
            return [body] if body else []
        exchange.status, headers, body = replaced
        made = {"content-length", "content-type", "content-encoding", "transfer-encoding"}
        exchange.headers = [one for one in exchange.headers if one[0].lower() not in made] + headers
        exchange.exc_info = None
        self._start(exchange, start_response)
        return [] if exchange.environ.get("REQUEST_METHOD") == "HEAD" else [body]

    def _replaced(self, exchange: _Exchange, body: bytes) -> tuple[str, Headers, bytes] | None:
        kind = exchange.content_type()
        wants_html = asks_for_html(str(exchange.environ.get("HTTP_ACCEPT", "")))
        error = exchange.error
        if error is not None:
            unhandled = not exchange.status or _DEFAULT_PAGE in body
            if unhandled or (exchange.code >= 500 and "json" not in kind and not wants_html):
                if not exchange.status:
                    exchange.headers = []
                return self._judged(exchange, error)
            self._log(exchange, error, "handled by the app")
        if exchange.code < 400:
            return None
        if _TRACEBACK in body:
            name = secrets.token_hex(4)
            log.error("%s: the app's answer held a traceback (id %s):\n%s", exchange.line, name,
                      body.decode("utf-8", "replace")[:HELD_BYTES_MAX])  # fmt: skip
            return json_answer(500, "internal error", id=name)
        if "html" in kind and not wants_html:
            return json_answer(exchange.code, self._text(exchange, body))
        return None

    def _text(self, exchange: _Exchange, body: bytes) -> str:
        if exchange.code == 400 and "json" in str(exchange.environ.get("CONTENT_TYPE", "")).lower():
            values = values_of(exchange.environ, exchange.body())
            if values.not_json:
                return f"the body is not JSON: {values.not_json}"
        return text_of_html(body.decode("utf-8", "replace")) or exchange.status[4:] or "error"

    def _judged(self, exchange: _Exchange, error: BaseException) -> tuple[str, Headers, bytes]:
        """400 for the caller's mistake, else 500 with an id that finds the traceback in the log."""
        if exchange.mistake is not None:
            text, place = exchange.mistake
            log.info("%s: answered 400: %s (%s)", exchange.line, text, place)
            return json_answer(400, text)
        name = secrets.token_hex(4)
        self._log(exchange, error, name)
        return json_answer(500, "internal error", id=name)

    def _log(self, exchange: _Exchange, error: BaseException, name: str) -> None:
        now_s = time.monotonic()
        text = f"{exchange.line}: {type(error).__name__}: {error} (id {name})"
        steps = traceback.extract_tb(error.__traceback__)
        place = next((step for step in reversed(steps) if self._own(step.filename)), steps[-1] if steps else None)
        self._tell(" ".join(text.split()), f"{place.filename}:{place.lineno}" if place else "")
        if now_s - self._traceback_at_s >= _TRACEBACK_INTERVAL_S:
            self._traceback_at_s = now_s
            log.error("%s", text, exc_info=error)
        else:
            log.error("%s", text)

    # -- Flask -------------------------------------------------------------------------------------------------

    def _watch_flask(self) -> None:
        """Hear of exceptions that Flask turns into its 500, once Flask is there; it is not imported for it."""
        if self._flask_seen or "flask" not in sys.modules:
            return
        signal = getattr(sys.modules["flask"], "got_request_exception", None)
        if signal is not None:
            signal.connect(_flask_raised)
            self._flask_seen = True


def _flask_raised(sender: Any, exception: Exception, **_: object) -> None:
    exchange = _current.get()
    if exchange is not None:
        exchange.raised(exception)
        logger = getattr(sender, "logger", None)
        if isinstance(logger, logging.Logger) and _is_not_ours not in logger.filters:
            logger.addFilter(_is_not_ours)


def _is_not_ours(record: logging.LogRecord) -> bool:
    """Keep Flask from logging an exception a second time, without its id: JsonErrors logs it, or tells the caller."""
    exchange = _current.get()
    return exchange is None or not record.exc_info or record.exc_info[1] is not exchange.error
