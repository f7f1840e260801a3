"""A warden's configuration: forwards stay on the machine's own loopback addresses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.channel.config import LISTEN_NETWORK, MAX_FORWARDS, ForwardSpec, parse_config
from sandbox.channel.daemon import lock_file
from sandbox.model.errors import MailboxError

FORWARD = {
    "name": "imap.kunde.test",
    "listen": "127.0.9.1",
    "port": 993,
    "connect_host": "127.0.0.1",
    "connect_port": 10993,
}


def config(**changes: Any) -> bytes:
    fields = {
        "profile_id": "4f1c",
        "name": "clientA",
        "channel_socket": "/run/m/channel.sock",
        "control_socket": "/run/m/warden.sock",
        "hostname": "clientA",
        "log_file": "/run/m/warden.log",
        "connect_deadline_s": 300,
        "forwards": [FORWARD],
    }
    return json.dumps(fields | changes).encode()


def test_a_configuration_is_read() -> None:
    parsed = parse_config(config())
    assert parsed.forwards == (
        ForwardSpec("imap.kunde.test", "127.0.9.1", 993, "127.0.0.1", 10993),
    )
    assert lock_file(parsed.control_socket).name == "warden.sock.lock"


@pytest.mark.parametrize(
    "listen", ["0.0.0.0", "127.0.0.1", "127.0.9.0", "127.0.9.255", "", "::1", "localhost", 1, None]
)
def test_other_listen_addresses_are_refused(listen: object) -> None:
    with pytest.raises(MailboxError, match="configuration") as caught:
        parse_config(config(forwards=[FORWARD | {"listen": listen}]))
    assert str(LISTEN_NETWORK) in caught.value.details


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "x"},
        {"name": "a\nb"},
        {"hostname": "two words"},
        {"log_file": "relative"},
        {"connect_deadline_s": 0},
        {"connect_deadline_s": True},
        {"forwards": {}},
        {"forwards": [FORWARD, FORWARD]},
        {"forwards": [FORWARD | {"port": 0}]},
        {"forwards": [FORWARD | {"connect_port": "993"}]},
        {"forwards": [FORWARD | {"connect_host": "-oProxyCommand=x"}]},
        {"forwards": [FORWARD | {"password": "x"}]},
        {"forwards": [FORWARD | {"port": port} for port in range(1, MAX_FORWARDS + 2)]},
    ],
)
def test_faults_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(MailboxError):
        parse_config(config(**changes))


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(MailboxError) as caught:
        parse_config(config(name="", hostname="", more=1))
    assert len(caught.value.details.splitlines()) == 3


@given(st.binary(max_size=300))
def test_any_text_is_a_configuration_or_a_named_fault(text: bytes) -> None:
    with pytest.raises(MailboxError):
        parse_config(text)
