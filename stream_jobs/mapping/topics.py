"""Topics of foreign devices: patterns that match them, and templates that cut names out of them.

A pattern is an MQTT filter, in which `#` may also stand before other levels and then means any number of levels:
`#/set` is every topic that ends in `set`. A template is text with `{1}` (level 1, counted from 0), `{-1}` (the last
level), `{1:}` or `{1:-1}` (several, joined by "-"), `{field:a.b}` (a field of the payload).

**Delivery**: pure. **Bounds**: MQTT's 65,535 bytes of a topic; TEMPLATE_CHARACTERS_MAX.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from edge_agent.contract import limits
from edge_agent.contract.errors import RejectError, quoted

__all__ = ["Template", "device_name", "matches", "pattern"]

TEMPLATE_CHARACTERS_MAX = 256
_PART = re.compile(r"\{([^{}]*)\}")
_LEVELS = re.compile(r"(-?\d{1,3})?(:)?(-?\d{1,3})?\Z")
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")

Field = Callable[[str], object]
"""Path of a field -> its value in the payload, or None."""


@lru_cache(maxsize=1024)
def pattern(text: str) -> re.Pattern[str]:
    """The pattern as a regular expression for whole topics; RejectError when it is none."""
    levels = text.split("/")
    if not text or any(("+" in level or "#" in level) and len(level) > 1 for level in levels):
        raise RejectError(f"topic {quoted(text)}: + and # stand for whole levels, as in zigbee2mqtt/+ or tele/#")
    if levels.count("#") > 1:
        raise RejectError(f"topic {quoted(text)}: only one # is allowed")
    found = ""
    for position, level in enumerate(levels):
        last = position == len(levels) - 1
        if level == "#":
            # MQTT: `a/#` is `a` too; a `#` before other levels takes its own separator with it.
            if last and position:
                found = found.removesuffix("/") + "(?:/.*)?"
            else:
                found += ".*" if last else "(?:.*/)?"
        else:
            found += ("[^/]*" if level == "+" else re.escape(level)) + ("" if last else "/")
    return re.compile(found, re.DOTALL)


def matches(text: str, topic: str) -> bool:
    """Whether the pattern takes the topic; like MQTT, a wildcard in front does not take topics that begin with `$`."""
    if topic.startswith("$") and text[:1] in ("+", "#"):
        return False
    return pattern(text).fullmatch(topic) is not None


class Template:
    """A name put together from levels of the topic and fields of the payload."""

    def __init__(self, text: str) -> None:
        """RejectError for text in which a `{...}` is neither levels nor a field."""
        if not 1 <= len(text) <= TEMPLATE_CHARACTERS_MAX:
            raise RejectError(f"template {quoted(text)}: use 1 to {TEMPLATE_CHARACTERS_MAX} characters")
        self.text = text
        self.fields: tuple[str, ...] = ()
        self._parts: list[str | slice | int | tuple[str]] = []
        at = 0
        for match in _PART.finditer(text):
            self._literal(text[at : match.start()])
            self._placeholder(match.group(1))
            at = match.end()
        self._literal(text[at:])

    def _literal(self, text: str) -> None:
        if "{" in text or "}" in text:
            raise RejectError(f"template {quoted(self.text)}: a brace without its partner")
        if text:
            self._parts.append(text)

    def _placeholder(self, inside: str) -> None:
        if inside.startswith("field:") and inside != "field:":
            path = inside.removeprefix("field:")
            self.fields += (path,)
            self._parts.append((path,))
            return
        match = _LEVELS.match(inside)
        if match is None or not inside or (match.group(1) is None and match.group(2) is None):
            raise RejectError(
                f"template {quoted(self.text)}: {{{inside}}} is not {{1}} (a level of the topic, from 0), "
                "{1:} (several levels) or {field:a.b}"
            )
        first, colon, last = match.groups()
        if colon is None:
            self._parts.append(int(first))
        else:
            self._parts.append(slice(int(first) if first else None, int(last) if last else None))

    def fill(self, topic: str, field: Field) -> str:
        """The name; RejectError where the topic has no such level or the payload no such field."""
        found = ""
        levels = topic.split("/")
        for part in self._parts:
            if isinstance(part, str):
                found += part
            elif isinstance(part, int):
                if not -len(levels) <= part < len(levels):
                    raise RejectError(f"topic has {len(levels)} levels; {self.text} asks for level {part}")
                found += levels[part]
            elif isinstance(part, slice):
                found += "-".join(levels[part])
            else:
                found += self._of_field(part[0], field)
        return found

    @staticmethod
    def _of_field(path: str, field: Field) -> str:
        value = field(path)
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise RejectError(f"field {path} is {quoted(value)}; a name needs text or a whole number there")
        return str(value)


def device_name(text: str) -> str:
    """`text` as the id of a device: what an id may not hold becomes "-", and what is too long is cut."""
    found = _NOT_IN_A_NAME.sub("-", text)[: limits.DEVICE_ID_CHARACTERS_MAX]
    if not found:
        raise RejectError("the device's name is empty; see the mapping's `device`")
    return "-" if found == "." else "--" if found == ".." else found
