"""What a mapping says, checked: which topics, and how a payload of each becomes rows.

A mapping has rules; the first whose pattern takes a topic counts, and a topic without one is passed over. A mapping
that a user writes out has one rule; the presets have several.

**Delivery**: pure. **Bounds**: those that `declared.py` checks.
"""

from __future__ import annotations

from collections.abc import Mapping as Map
from dataclasses import dataclass, field

from edge_agent.contract.streams import READINGS

from .topics import Template, matches

__all__ = ["ColumnRule", "Mapping", "Rule"]


@dataclass(frozen=True, slots=True)
class ColumnRule:
    """A column of a stream other than readings: its name, its type, and the field it comes from."""

    name: str
    type: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How payloads of the topics that `topic` takes become rows."""

    topic: str
    device: Template
    time: str = ""
    timezone: str = "UTC"
    reading: Template = field(default_factory=lambda: Template("{-1}"))
    """The name of a plain value's reading."""
    fields: tuple[str, ...] = ()
    """The fields that become readings; none: every number and boolean."""
    ignore: tuple[str, ...] = ()
    """Fields left out, with all that is below them."""
    names: Map[str, str] = field(default_factory=dict)
    """Field -> the name of its reading, where it is another."""
    values: Map[str, float] = field(default_factory=dict)
    """Text -> the number it stands for."""
    columns: tuple[ColumnRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """One `[[mappings]]` table. `topic` is the MQTT filter that is subscribed to."""

    name: str
    topic: str
    stream: str = READINGS
    preset: str = ""
    ignore_topics: tuple[str, ...] = ()
    rules: tuple[Rule, ...]
    place: str = ""
    """File and line, for people."""

    @property
    def function(self) -> str:
        """What stands in the `function` column of its rows."""
        return f"mapping.{self.name}"

    def rule_for(self, topic: str) -> Rule | None:
        """The rule that counts for the topic, or None where it is passed over."""
        if not matches(self.topic, topic) or any(matches(text, topic) for text in self.ignore_topics):
            return None
        return next((rule for rule in self.rules if matches(rule.topic, topic)), None)
