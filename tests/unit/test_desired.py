"""The desired state a machine is sent, and what its warden lets through."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.lifecycle.desired import desired_state, forwards, hostname, listen_addresses
from sandbox.model.dav import Collection, Password
from sandbox.model.endpoints import Endpoint, Security
from sandbox.model.keys import ExportedKeys
from sandbox.model.profile import Display, Policy, Profile
from tests.unit.fakes import BERT, OWN
from tests.unit.test_profile import PROFILE

KEYS = ExportedKeys(OWN, "secret", "passphrase", "public")


def state(
    profile: Profile = PROFILE, *, keys: tuple[ExportedKeys, ...] = (KEYS,), blank: bool = False
) -> dict:
    return desired_state(
        profile,
        blank=blank,
        password="pw",
        dav_password="own-pw",
        keys=keys,
        public_keys={BERT: "public of bert"},
        time_zone="Europe/Berlin",
        keyboard="de",
    )


def with_account(**changes: object) -> Profile:
    return replace(PROFILE, account=replace(PROFILE.account, **changes))


def test_it_says_all_that_the_contract_names() -> None:
    assert state() == {
        "version": 1,
        "profile": {"name": "clientA", "colour": "#2a7f62"},
        "volume": {"blank": False},
        "hosts": {"imap.kunde.test": "127.0.9.1", "smtp.kunde.test": "127.0.9.2"},
        "time_zone": "Europe/Berlin",
        "keyboard": "de",
        "language": "en",
        "account": {
            "address": "anna@kunde.test",
            "display_name": "Anna",
            "signature": "",
            "incoming": {
                "type": "imap",
                "host": "imap.kunde.test",
                "port": 993,
                "security": "tls",
                "login": "anna@kunde.test",
                "password": "pw",
            },
            "outgoing": {
                "type": "smtp",
                "host": "smtp.kunde.test",
                "port": 465,
                "security": "tls",
                "login": "anna@kunde.test",
                "password": "pw",
            },
        },
        "calendars": [],
        "address_books": [],
        "ca": [],
        "openpgp": {
            "custody": "guest",
            "agent": None,
            "key": {
                "fingerprint": OWN,
                "secret": "secret",
                "passphrase": "passphrase",
                "public": "public",
            },
            "retired": [],
            "forgotten": [],
            "correspondents": [
                {
                    "fingerprint": BERT,
                    "addresses": ["bert@partner.test"],
                    "public": "public of bert",
                }
            ],
        },
        "smime": None,
        "policy": {"remote_content": False},
        "marionette": False,
    }


def test_without_a_key_it_says_so() -> None:
    without = replace(PROFILE, keys=replace(PROFILE.keys, fingerprint=None))
    assert state(without, keys=())["openpgp"]["key"] is None


def test_retired_keys_come_too_and_are_not_the_own_one() -> None:
    old = ExportedKeys(BERT, "old secret", "passphrase", "old public")
    keys = replace(PROFILE.keys, retired=(BERT,))
    said = state(replace(PROFILE, keys=keys), keys=(KEYS, old))["openpgp"]
    assert said["key"]["fingerprint"] == OWN
    assert said["retired"] == [
        {
            "fingerprint": BERT,
            "secret": "old secret",
            "passphrase": "passphrase",
            "public": "old public",
        }
    ]
    alone = state(replace(PROFILE, keys=replace(keys, fingerprint=None)), keys=(old,))["openpgp"]
    assert alone["key"] is None and alone["retired"] == said["retired"]


def test_a_blank_volume_is_named() -> None:
    assert state(blank=True)["volume"] == {"blank": True}


def test_the_profile_overrules_the_host() -> None:
    display = Display("us", "fr", "Asia/Tokyo")
    policy = Policy(remote_content=True, marionette=True)
    settings = replace(PROFILE.settings, display=display, policy=policy)
    said = state(replace(PROFILE, settings=settings))
    assert (said["keyboard"], said["language"], said["time_zone"]) == ("us", "fr", "Asia/Tokyo")
    assert said["policy"] == {"remote_content": True} and said["marionette"] is True


def test_one_address_for_each_name_and_one_forward_for_each_port() -> None:
    host = "mail.kunde.test"
    profile = with_account(imap=Endpoint(host, 993), smtp=Endpoint(host, 587, Security.STARTTLS))
    assert listen_addresses(profile) == {host: "127.0.9.1"}
    assert [(each["listen"], each["port"]) for each in forwards(profile)] == [
        ("127.0.9.1", 993),
        ("127.0.9.1", 587),
    ]


def test_a_detour_changes_only_where_the_host_connects() -> None:
    imap = replace(PROFILE.account.imap, connect=("127.0.0.1", 10993))
    first, second = forwards(with_account(imap=imap))
    assert first == {
        "name": "imap.kunde.test",
        "listen": "127.0.9.1",
        "port": 993,
        "connect_host": "127.0.0.1",
        "connect_port": 10993,
    }
    assert second["connect_host"] == "smtp.kunde.test"
    assert state(with_account(imap=imap))["hosts"]["imap.kunde.test"] == "127.0.9.1"


WORK = Collection("https://dav.kunde.test:8443/anna/work/", connect=("127.0.0.1", 5232))
BOOK = Collection("https://imap.kunde.test/books/1/", "Customers", "anna", Password.OWN)


def test_calendars_and_address_books_come_with_their_logins() -> None:
    said = state(with_account(calendars=(WORK,), address_books=(BOOK,)))
    assert said["calendars"] == [
        {"url": WORK.url, "name": "clientA", "login": "anna@kunde.test", "password": "pw"}
    ]
    assert said["address_books"] == [
        {"url": BOOK.url, "name": "Customers", "login": "anna", "password": "own-pw"}
    ]


def test_their_servers_are_reached_and_no_others() -> None:
    profile = with_account(calendars=(WORK, replace(WORK, url=f"{WORK.url}2/")))
    profile = replace(profile, account=replace(profile.account, address_books=(BOOK,)))
    assert state(profile)["hosts"] == {
        "imap.kunde.test": "127.0.9.1",
        "smtp.kunde.test": "127.0.9.2",
        "dav.kunde.test": "127.0.9.3",
    }
    assert [(each["listen"], each["port"], each["connect_host"]) for each in forwards(profile)] == [
        ("127.0.9.1", 993, "imap.kunde.test"),
        ("127.0.9.2", 465, "smtp.kunde.test"),
        ("127.0.9.3", 8443, "127.0.0.1"),
        ("127.0.9.1", 443, "imap.kunde.test"),
    ]


def test_a_warden_is_told_no_secret() -> None:
    assert "pw" not in str(forwards(PROFILE)) and "pass" not in str(forwards(PROFILE))


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True))
def test_every_name_makes_a_host_name(name: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", hostname(name))


@pytest.mark.parametrize(("name", "host"), [("a.b_c", "a-b-c"), ("a-", "a"), ("Kunde1", "Kunde1")])
def test_what_a_host_name_cannot_hold_becomes_a_dash(name: str, host: str) -> None:
    assert hostname(name) == host
