"""Topic filters, by the grammar of MQTT 3.1.1, section 4.7: levels between `/`, `+` for one level, `#` for the rest.

A function may not read below `edgewater/`, where devices and bridges speak to each other, nor everything at once.

**Delivery**: pure. **Bounds**: FILTER_BYTES_MAX of UTF-8.
"""

from __future__ import annotations

from edge_agent.contract.errors import LimitError, RejectError, quoted

__all__ = ["check_filter", "check_topic", "matches"]

FILTER_BYTES_MAX = 1024
_OURS = "edgewater"


def _checked_text(text: object, what: str) -> str:
    if not isinstance(text, str) or not text:
        raise RejectError(f"{what} {quoted(text)} is not allowed; use text that is not empty, as sensors/kitchen")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise RejectError(f"{what} {quoted(text)} has a lone surrogate, which is not UTF-8") from None
    if size > FILTER_BYTES_MAX:
        raise LimitError(f"{what} bytes", size, FILTER_BYTES_MAX, "shorten it")
    if "\0" in text:
        raise RejectError(f"{what} {quoted(text)} holds a NUL character, which MQTT forbids")
    return text


def check_filter(text: object) -> str:
    """`text`, if a function may subscribe to it; RejectError otherwise."""
    checked = _checked_text(text, "topic filter")
    levels = checked.split("/")
    for number, level in enumerate(levels):
        if "#" in level and (level != "#" or number != len(levels) - 1):
            raise RejectError(f"topic filter {quoted(checked)}: '#' stands alone and last, as in sensors/#")
        if "+" in level and level != "+":
            raise RejectError(f"topic filter {quoted(checked)}: '+' stands for one whole level, as in sensors/+/state")
    if levels[0] == _OURS:
        raise RejectError(f"topic filter {quoted(checked)}: topics below {_OURS}/ carry batches; use others")
    if levels[0] == "$share":
        raise RejectError(
            f"topic filter {quoted(checked)}: shared subscriptions are not for functions; drop $share/..."
        )
    if all(level in ("+", "#") for level in levels):
        raise RejectError(
            f"topic filter {quoted(checked)} takes in every message at the broker, batches too; "
            "name at least one level, as in sensors/#"
        )
    return checked


def check_topic(text: object) -> str:
    """`text`, if a message may be published to it; RejectError otherwise."""
    checked = _checked_text(text, "topic")
    if "+" in checked or "#" in checked:
        raise RejectError(f"topic {quoted(checked)}: '+' and '#' belong in filters; name the topic in full")
    return checked


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a message on `topic` is one for `topic_filter`; topics below `edgewater/` are none for any."""
    levels, wanted = topic.split("/"), topic_filter.split("/")
    if levels[0] == _OURS or (levels[0].startswith("$") and wanted[0] != levels[0]):
        return False
    for number, level in enumerate(wanted):
        if level == "#":
            return True
        if number >= len(levels) or level not in ("+", levels[number]):
            return False
    return len(levels) == len(wanted)
