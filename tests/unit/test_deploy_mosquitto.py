"""Mosquitto's generated configuration."""

from __future__ import annotations

import pytest

from deploy.mosquitto import MosquittoSettings, mosquitto_configuration
from edge_agent.contract.errors import SettingsError
from edge_agent.contract.limits import BATCH_BYTES_MAX, HEADER_BYTES_MAX


def lines(settings: MosquittoSettings) -> dict[str, str]:
    """Option -> value."""
    text = mosquitto_configuration(settings)
    return dict(line.split(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_what_every_configuration_we_ship_must_say() -> None:
    """No Nagle delay, no persistence, bounded queues, and only this machine."""
    found = lines(MosquittoSettings(port=1884))
    assert found["set_tcp_nodelay"] == "true"
    assert found["persistence"] == "false"
    assert found["listener"] == "1884 127.0.0.1"
    assert int(found["max_queued_messages"]) > 0
    assert int(found["max_queued_bytes"]) > 0
    assert "user" not in found


def test_the_largest_batch_fits_the_packet_limit() -> None:
    """max_packet_size leaves room for the topic and MQTT's header beside the largest message."""
    assert int(lines(MosquittoSettings())["max_packet_size"]) > BATCH_BYTES_MAX + HEADER_BYTES_MAX + 1024


def test_a_system_user_is_named_when_asked_for() -> None:
    """Tests that run as root name `root`, so that a temporary folder can be read."""
    assert lines(MosquittoSettings(user="root"))["user"] == "root"


def test_anonymous_clients_from_other_machines_are_refused() -> None:
    """An open broker on all addresses is an error that says what to do."""
    with pytest.raises(SettingsError, match=r"allow_anonymous .* 0\.0\.0\.0 .* 127\.0\.0\.1"):
        mosquitto_configuration(MosquittoSettings(host="0.0.0.0"))
    assert lines(MosquittoSettings(host="0.0.0.0", allow_anonymous=False))["allow_anonymous"] == "false"
