"""The desired state that a machine is sent, and the servers it may reach: pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.model.custody import Where
from sandbox.model.dav import Collection, Password
from sandbox.model.endpoints import Endpoint
from sandbox.model.keys import ExportedKeys
from sandbox.model.profile import Profile

# One loopback address of the guest for each server name (127.0.9.1, .2, ...).
_LISTEN = "127.0.9.{}"
# Where the guest's GnuPG finds its agent when the private key stays on the host.
_AGENT = "/run/mailbox/agent.sock"


def endpoints(profile: Profile) -> tuple[Endpoint, ...]:
    """The servers that the profile names: the whole of what its machine may reach."""
    account = profile.account
    return (account.imap, account.smtp, *(each.endpoint for each in account.collections))


def listen_addresses(profile: Profile) -> dict[str, str]:
    """Server name to the guest's loopback address that stands for it."""
    names = dict.fromkeys(endpoint.host for endpoint in endpoints(profile))
    return {host: _LISTEN.format(index) for index, host in enumerate(names, start=1)}


def forwards(profile: Profile) -> list[dict[str, Any]]:
    """The forwards that the warden asks for, one for each server and port."""
    listen = listen_addresses(profile)
    wanted = {(each.host, each.port): each for each in endpoints(profile)}
    return [
        {
            "name": each.host,
            "listen": listen[each.host],
            "port": each.port,
            "connect_host": each.target[0],
            "connect_port": each.target[1],
        }
        for each in wanted.values()
    ]


def held_on_host(profile: Profile) -> bool:
    """Whether the profile has a private key and its machine must not."""
    return profile.settings.custody.where is Where.HOST and bool(profile.keys.private)


def agent_forward(profile: Profile, socket: Path) -> dict[str, str] | None:
    """The forward of the guest's GnuPG to the filter in front of a key on the host."""
    return {"listen": _AGENT, "connect": str(socket)} if held_on_host(profile) else None


def hostname(name: str) -> str:
    """A host name (RFC 1123 label) for the machine of a profile."""
    label = "".join(char if char.isascii() and char.isalnum() else "-" for char in name)
    return label.strip("-")[:63] or "mailbox"


def desired_state(
    profile: Profile,
    *,
    blank: bool,
    password: str,
    dav_password: str,
    keys: Sequence[ExportedKeys],
    public_keys: Mapping[str, str],
    time_zone: str,
    keyboard: str,
    smime: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The desired state (version 1, docs/adding-a-client.md). It carries secrets: memory only."""
    display, account = profile.settings.display, profile.account
    own = {each.fingerprint: _own_key(each) for each in keys}
    return {
        "version": 1,
        "profile": {"name": profile.name, "colour": profile.colour},
        "volume": {"blank": blank},
        "hosts": listen_addresses(profile),
        "time_zone": time_zone if display.time_zone == "host" else display.time_zone,
        "keyboard": keyboard if display.keyboard == "host" else display.keyboard,
        "language": display.language,
        "account": _account(profile, password),
        "calendars": _collections(profile, account.calendars, password, dav_password),
        "address_books": _collections(profile, account.address_books, password, dav_password),
        "ca": list(account.ca),
        "openpgp": {
            "custody": "host" if held_on_host(profile) else "guest",
            "agent": _AGENT if held_on_host(profile) else None,
            "key": own.get(profile.keys.fingerprint or ""),
            "retired": [own[each] for each in profile.keys.retired],
            "forgotten": list(profile.keys.forgotten),
            "correspondents": [
                {
                    "fingerprint": each.fingerprint,
                    "addresses": list(each.addresses),
                    "public": public_keys[each.fingerprint],
                }
                for each in profile.keys.correspondents
            ],
        },
        "smime": smime,
        "policy": {"remote_content": profile.settings.policy.remote_content},
        "marionette": profile.settings.policy.marionette,
    }


def _account(profile: Profile, password: str) -> dict[str, Any]:
    account = profile.account
    return {
        "address": account.address,
        "display_name": account.display_name,
        "signature": account.signature,
        "incoming": {"type": "imap", **_server(account.imap, account.login, password)},
        "outgoing": {"type": "smtp", **_server(account.smtp, account.login, password)},
    }


def _server(endpoint: Endpoint, login: str, password: str) -> dict[str, Any]:
    return {
        "host": endpoint.host,
        "port": endpoint.port,
        "security": str(endpoint.security),
        "login": login,
        "password": password,
    }


def _collections(
    profile: Profile, collections: tuple[Collection, ...], mail: str, own: str
) -> list[dict[str, str]]:
    return [
        {
            "url": each.url,
            "name": each.name or profile.name,
            "login": each.login or profile.account.login,
            "password": own if each.password is Password.OWN else mail,
        }
        for each in collections
    ]


def _own_key(keys: ExportedKeys) -> dict[str, Any]:
    return {
        "fingerprint": keys.fingerprint,
        "secret": keys.secret or None,
        "passphrase": keys.passphrase or None,
        "public": keys.public,
    }
