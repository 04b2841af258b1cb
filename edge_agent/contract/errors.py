"""Errors, named after what the caller must do.

    EdgewaterError
    |-- RetryError            try the same again later; nothing was changed for good
    |-- RejectError           this input can never succeed; put it aside with its reason, go on with the next
    |   |-- LimitError        a value is over its limit (both numbers and the next step in the message)
    |   +-- DecodeError       these bytes are not what they should be
    +-- StopError             this process cannot go on; a person has to act
        |-- SettingsError     a setting has a wrong name or value
        +-- FencedError       somebody newer has taken over what this process worked on

**Delivery**: an error never acknowledges anything. **Bounds**: messages quote at most 200 characters of a value, and
never the user and password of a URL.
"""

from __future__ import annotations

import re

__all__ = [
    "DecodeError",
    "EdgewaterError",
    "FencedError",
    "LimitError",
    "RejectError",
    "RetryError",
    "SettingsError",
    "StopError",
    "quoted",
    "redacted",
]

_QUOTED_CHARACTERS_MAX = 200
# Up to the last @ before the next URL: a password may hold anything, commas and slashes too. Not what help texts have.
_CREDENTIALS = re.compile(r"://(?!\[user:password@\])(?:(?!://).)*@", re.DOTALL)
# What stands where a port belongs and is none may be the start of a password whose @ was lost ("host:port" is ours).
_NO_PORT = re.compile(r"(://[^/\s:@,\[\]'\"]+):(?!(?:[0-9]+|port)(?:[^\w]|$)|\*)[^\s'\"]+")


def _redacted(text: str) -> str:
    return _NO_PORT.sub(r"\1:***", _CREDENTIALS.sub("://***@", text))


def redacted(url: str) -> str:
    """One or more URLs with *** in place of user and password; for messages, logs and status files."""
    if "://" not in url and "@" in url:
        return "***@" + url.rpartition("@")[2]
    return _redacted(url)


def quoted(value: object) -> str:
    """`repr(value)`, cut to 200 characters, with control characters escaped (repr does that) and URLs redacted."""
    text = _redacted(repr(value))
    if len(text) <= _QUOTED_CHARACTERS_MAX:
        return text
    return text[: _QUOTED_CHARACTERS_MAX - 3] + "..."


class EdgewaterError(Exception):
    """Base of all errors that Edgewater raises on purpose; its text is meant for the person who reads it."""


class RetryError(EdgewaterError):
    """Transient: the same call may succeed later."""


class RejectError(EdgewaterError):
    """Permanent for this input: repeating it cannot help."""


class LimitError(RejectError):
    """`value` of `name` exceeds `limit`; `next_step` says what to do about it."""

    def __init__(self, name: str, value: float, limit: float, next_step: str) -> None:
        super().__init__(f"{name} of {value} exceeds its limit of {limit}; {next_step}")
        self.name = name
        self.value = value
        self.limit = limit


class DecodeError(RejectError):
    """Bytes that are not what their place promises."""


class StopError(EdgewaterError):
    """This process must end; the message says what a person has to do."""


class SettingsError(StopError):
    """A setting has an unknown name or a value outside its bounds."""


class FencedError(StopError):
    """Another process has taken over; discard the state held in memory and load it again."""
