"""Choosing one of several endpoints."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from edge_agent.contract.balancing import STRATEGIES, Endpoint, balancer, parse_endpoints
from edge_agent.contract.errors import RejectError, SettingsError

THREE = (Endpoint("a", 5), Endpoint("b", 1), Endpoint("c", 1))


def picks(strategy: str, count: int = 7000) -> Counter[str]:
    """How often each endpoint is picked."""
    chooser = balancer(strategy, THREE, random.Random(7))
    return Counter(chooser.pick().url for _ in range(count))


def test_random_and_round_robin_are_even_and_weighted_follows_the_weights() -> None:
    """Shares over 7000 picks: a third each, exactly a third each, and 5 : 1 : 1."""
    assert all(abs(n - 2333) < 200 for n in picks("random").values())
    assert set(picks("round-robin", 6999).values()) == {2333}
    assert picks("weighted") == {"a": 5000, "b": 1000, "c": 1000}


def test_weighted_never_starves_the_light_ones() -> None:
    """Within any 7 picks each endpoint of weights 5, 1, 1 has its turn."""
    chooser = balancer("weighted", THREE, random.Random(1))
    found = [chooser.pick().url for _ in range(70)]
    assert all(set(found[i : i + 14]) == {"a", "b", "c"} for i in range(56))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_excluded_endpoints_are_left_out_until_nothing_else_is_left(strategy: str) -> None:
    """A failed broker is avoided; when all failed, one of them is tried anyway."""
    chooser = balancer(strategy, THREE, random.Random(3))
    assert {chooser.pick({"a", "b"}).url for _ in range(20)} == {"c"}
    assert chooser.pick({"a", "b", "c"}).url in "abc"


def test_endpoints_are_read_from_one_line_of_text() -> None:
    """`url;weight=N,url` gives endpoints; anything else is an error that shows the form."""
    assert parse_endpoints("mqtt://a:1;weight=2, mqtt://b") == (Endpoint("mqtt://a:1", 2.0), Endpoint("mqtt://b"))
    for wrong in ("a;weight=x", "a;w=1", "a;weight=-1"):
        with pytest.raises(RejectError, match="weight=N"):
            parse_endpoints(wrong)


def test_no_endpoint_twice_and_no_unknown_strategy() -> None:
    """Doubles would get a double share without saying so."""
    with pytest.raises(SettingsError, match="twice"):
        balancer("random", (Endpoint("a"), Endpoint("a")), random.Random())
    with pytest.raises(SettingsError, match="least"):
        balancer("least", THREE, random.Random())
    with pytest.raises(SettingsError, match="0 endpoints"):
        balancer("random", (), random.Random())
