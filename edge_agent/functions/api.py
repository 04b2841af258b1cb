"""What the author of a function uses: a trigger as decorator, and a type for those who make many rows at once.

    @every(0.5)
    def tank():
        return {"level_m": 1.25}

    @on_topic("sensors/+/temperature")
    def temperature(message):
        return {message.topic.split("/")[1]: float(message.text())}

    @on_stream("readings", stream="alarms")
    def watch(rows):
        return [{"name": row["name"], "value": row["value"]} for row in rows if row["value"] > 90]

`rows.py` says what a function may return. Its name in the tables is its name in the module; its version is the digest
of its file.

**Delivery**: what a call returned counts as one: when one of its values fits no column, none of its rows is sent. A
message, or the rows of another function, are given to a function at most once: not again after it failed or crashed.
**Bounds**: an interval of 1 ms to a day; messages wait as `mailbox.py` says; rows and bytes as in `contract/limits.py`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from edge_agent.contract import limits
from edge_agent.contract.errors import LimitError, RejectError, quoted
from edge_agent.contract.names import check_stream
from edge_agent.contract.streams import READINGS

from .topic_filter import check_filter

__all__ = ["Declaration", "Message", "Readings", "declaration_of", "every", "on_stream", "on_topic", "readings"]

INTERVAL_MIN_S = 0.001
INTERVAL_MAX_S = 86_400.0
_CODE_TYPES = "Bhi"
_ATTRIBUTE = "__edgewater__"
_VARIABLE_ARGUMENTS = 0x04
"""CO_VARARGS of a code object: the function has `*arguments`."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Declaration:
    """When to call a function, and where its rows go: one of `interval_s`, `topic` (a filter), `reads` (a stream) and
    `http` (it is a WSGI application) is given."""

    stream: str = READINGS
    interval_s: float = 0.0
    topic: str = ""
    reads: str = ""
    http: bool = False

    @property
    def trigger(self) -> str:
        """As its author wrote it, without the stream it writes."""
        if self.http:
            return "HTTP"
        if self.topic:
            return f'on_topic("{self.topic}")'
        return f'on_stream("{self.reads}")' if self.reads else f"every({self.interval_s:g})"


@dataclass(frozen=True, slots=True)
class Message:
    """An MQTT message; `time_us` is when the agent received it, in microseconds since 1970-01-01 UTC."""

    topic: str
    payload: bytes
    time_us: int

    def text(self) -> str:
        """The payload as text. RejectError when it is not UTF-8."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError as error:
            raise RejectError(
                f"payload {quoted(self.payload)} on topic {self.topic} is not UTF-8 text: {error.reason}"
            ) from None

    def json(self) -> Any:
        """The payload as JSON: a dict, list, text, number, bool or None. RejectError when it is not JSON."""
        import json

        try:
            return json.loads(self.text())
        except (ValueError, RecursionError) as error:
            raise RejectError(f"payload {quoted(self.payload)} on topic {self.topic} is not JSON: {error}") from None


@dataclass(frozen=True, slots=True)
class Readings:
    """Rows as columns: row i is (ts[i], names[codes[i]], values[i]); made by `readings`."""

    ts: array[int]
    names: tuple[str, ...]
    codes: array[int]
    values: array[float]


def every(seconds: float, stream: str = READINGS) -> Callable[[F], F]:
    """Call the decorated function each `seconds` (0.001 to 86,400), and send its rows to `stream`.

    Calls never overlap: while one takes longer than `seconds`, the calls it delays are left out and counted.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise RejectError(f"every({quoted(seconds)}): give a number of seconds, as @every(10)")
    if not INTERVAL_MIN_S <= seconds <= INTERVAL_MAX_S:
        raise RejectError(f"every({seconds}): give {INTERVAL_MIN_S} to {INTERVAL_MAX_S:g} seconds")
    return _declared(Declaration(_checked_stream(stream), interval_s=float(seconds)), arguments=0)


def on_topic(topic: str, stream: str = READINGS) -> Callable[[F], F]:
    """Call the decorated function with a `Message` for each MQTT message on `topic` (a filter with `+` and `#`) at the
    agent's own broker, and send its rows to `stream`."""
    return _declared(Declaration(_checked_stream(stream), topic=check_filter(topic)), arguments=1)


def on_stream(reads: str, stream: str = READINGS) -> Callable[[F], F]:
    """Call the decorated function with the rows of each batch that another function of this device put into the stream
    `reads`, once the spool has accepted it, and send its rows to `stream`, another one.

    The rows are a list of dicts: `ts` (whole microseconds since 1970-01-01 UTC) and the columns of the stream.
    """
    if not isinstance(reads, str):
        raise RejectError(f'on_stream({quoted(reads)}): give the name of a stream, as @on_stream("readings")')
    declaration = Declaration(_checked_stream(stream), reads=_checked_stream(reads))
    if declaration.reads == declaration.stream:
        raise RejectError(
            f"a function on_stream({quoted(reads)}) cannot write {stream} too: it would read its own rows for ever; "
            f'give it a stream of its own, as @on_stream("{reads}", stream="derived")'
        )
    return _declared(declaration, arguments=1)


def _checked_stream(name: object) -> str:
    if not isinstance(name, str):
        raise RejectError(f'stream {quoted(name)} is no text; give a name, as stream="events"')
    if name != READINGS and name.lower() == READINGS:
        raise RejectError(
            f"stream {quoted(name)} would land in the table of {READINGS}; write {READINGS}, or rename it"
        )
    return check_stream(name)


def _declared(declaration: Declaration, *, arguments: int) -> Callable[[F], F]:
    def declare(function: F) -> F:
        name = getattr(function, "__name__", quoted(function))
        thing: object = function
        if not callable(thing) or isinstance(thing, type):
            raise RejectError(f"{name} is no function; put @{declaration.trigger} above a def")
        if declaration_of(function) is not None:
            raise RejectError(f"function {name} has two triggers; write a function for each")
        _check_arguments(function, name, declaration, arguments)
        setattr(function, _ATTRIBUTE, declaration)
        return function

    return declare


def _check_arguments(function: Callable[..., Any], name: str, declaration: Declaration, wanted: int) -> None:
    code = getattr(function, "__code__", None)
    if code is None:
        return
    least = code.co_argcount - len(getattr(function, "__defaults__", None) or ())
    if least <= wanted and (wanted <= code.co_argcount or code.co_flags & _VARIABLE_ARGUMENTS):
        return
    if declaration.topic:
        call = f"def {name}(message)"
    else:
        call = f"def {name}(rows)" if declaration.reads else f"def {name}()"
    raise RejectError(
        f"function {name} takes {code.co_argcount} arguments, @{declaration.trigger} calls it with {wanted}; "
        f"write {call}"
    )


def declaration_of(value: object) -> Declaration | None:
    """What a decorator of this module said of `value`, or None for anything not decorated."""
    try:
        found = getattr(value, _ATTRIBUTE, None)
    except Exception:  # noqa: BLE001 - a proxy in a user's module (Flask's `request`) may raise anything
        return None
    return found if isinstance(found, Declaration) else None


def readings(*, ts: array[int], names: Sequence[str], codes: array[int], values: array[float]) -> Readings:
    """Many rows at once, without Python touching each: `ts` array('q') of microseconds since 1970-01-01 UTC,
    `values` array('d'), `codes` array('B'), ('h') or ('i') of indices into `names`; all three of equal length.

    Raises RejectError for other types, unequal lengths or a code outside `names`.
    """
    for label, column, allowed in (("ts", ts, "q"), ("codes", codes, _CODE_TYPES), ("values", values, "d")):
        if getattr(column, "typecode", None) not in tuple(allowed):
            raise RejectError(f"readings: {label} is {quoted(column)}; use an array of type {' or '.join(allowed)}")
    if not len(ts) == len(codes) == len(values):
        raise RejectError(
            f"readings: {len(ts)} ts, {len(codes)} codes and {len(values)} values; give equal numbers of each"
        )
    if len(names) > limits.DICTIONARY_ENTRIES_MAX:
        raise LimitError("readings names", len(names), limits.DICTIONARY_ENTRIES_MAX, "return fewer rows at once")
    if len(codes) and not (min(codes) >= 0 and max(codes) < len(names)):
        raise RejectError(f"readings: codes from {min(codes)} to {max(codes)} for {len(names)} names")
    return Readings(ts, tuple(checked_name(name) for name in names), codes, values)


def checked_name(name: object) -> str:
    """`name`, when it can name a reading: text of 1 byte to STRING_BYTES_MAX bytes of UTF-8; RejectError otherwise."""
    if not isinstance(name, str) or not name:
        raise RejectError(f"reading name {quoted(name)} is not allowed; use text that is not empty")
    try:
        size = len(name) if name.isascii() else len(name.encode())
    except UnicodeEncodeError:
        raise RejectError(f"reading name {quoted(name)} has a lone surrogate, which is not UTF-8") from None
    if size > limits.STRING_BYTES_MAX:
        raise LimitError("reading name bytes", size, limits.STRING_BYTES_MAX, "shorten it")
    return name
