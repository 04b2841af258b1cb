"""Patterns that match topics, and templates that cut names out of them."""

from __future__ import annotations

import pytest

from edge_agent.contract.errors import RejectError
from stream_jobs.mapping.topics import Template, matches


@pytest.mark.parametrize(
    ("pattern", "topic", "found"),
    [
        ("a/+", "a/b", True), ("a/+", "a/b/c", False), ("a/+", "a", False), ("a/+", "a/", True),
        ("a/#", "a", True), ("a/#", "a/b/c", True), ("a/#", "ab", False), ("#", "a/b", True), ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False), ("$SYS/#", "$SYS/x", True), ("#/set", "a/b/set", True), ("#/set", "set", True),
        ("#/set", "a/reset", False), ("+/+/#/v", "a/b/v", True), ("+/+/#/v", "a/v", False), ("a.b", "axb", False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, topic: str, found: bool) -> None:
    """As MQTT has it, with # in front as ours."""
    assert matches(pattern, topic) is found


@pytest.mark.parametrize(
    ("template", "name"),
    [("{1}", "b"), ("{-1}", "c"), ("{1:}", "b-c"), ("{:-1}", "a-b"), ("{0}_{field:x.y}", "a_7"), ("fixed", "fixed")],
)
def test_templates(template: str, name: str) -> None:
    """Levels from the front and the end, several levels, fields, and plain text."""
    assert Template(template).fill("a/b/c", {"x.y": 7}.get) == name


@pytest.mark.parametrize("text", ["", "{}", "{-}", "{x}", "{1:2:3}", "{field:}", "{", "}", "{{1}}", "x" * 257])
def test_what_is_no_template(text: str) -> None:
    """Each is refused with what may be written."""
    with pytest.raises(RejectError, match="template"):
        Template(text)
