"""From the desired state to Evolution's files, and what the guest reads of GnuPG and the kernel."""

from __future__ import annotations

import configparser
import copy
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from demo.guestcode import guest_module
from sandbox.host.images import data_root

FOLDER = data_root() / "images/evolution/root/usr/lib/mailbox"

DESIRED: dict[str, Any] = {
    "profile": {"name": "kunde", "colour": "#2a7f62"},
    "account": {
        "address": "anna@kunde.test",
        "display_name": "Anna Kundin",
        "signature": "Anna\nKunde GmbH, Köln",
        "incoming": {
            "host": "imap.kunde.test",
            "port": 993,
            "security": "tls",
            "login": "anna",
            "password": "geheim-4711",
        },
        "outgoing": {
            "host": "smtp.kunde.test",
            "port": 587,
            "security": "starttls",
            "login": "anna",
            "password": "geheim-4711",
        },
    },
    "openpgp": {"key": {"fingerprint": "A" * 40}, "correspondents": []},
    "policy": {"remote_content": False},
    "marionette": False,
}


def load(name: str, tmp_path: Path) -> ModuleType:
    """A module of the guest, as the guest would import it."""
    return guest_module("evolution", name, {"MAILBOX_STATE_DIR": str(tmp_path)})


@pytest.fixture
def sources(tmp_path: Path) -> ModuleType:
    return load("evolution_sources", tmp_path)


def parsed(text: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_file(io.StringIO(text))
    return parser


def test_account_identity_and_transport_belong_together(sources: ModuleType) -> None:
    files = sources.sources(DESIRED)
    account = parsed(files["sources/mailbox-account.source"])
    identity = parsed(files["sources/mailbox-identity.source"])
    transport = parsed(files["sources/mailbox-transport.source"])
    assert account["Mail Account"]["IdentityUid"] == "mailbox-identity"
    assert identity["Mail Submission"]["TransportUid"] == "mailbox-transport"
    assert identity["Data Source"]["Parent"] == transport["Data Source"]["Parent"]
    assert account["Authentication"]["Host"] == "imap.kunde.test"
    assert (transport["Authentication"]["Host"], transport["Authentication"]["Port"]) == (
        "smtp.kunde.test",
        "587",
    )


def test_no_connection_without_protection(sources: ModuleType) -> None:
    files = sources.sources(DESIRED)
    methods = {
        name: parsed(files[f"sources/mailbox-{name}.source"])["Security"]["Method"]
        for name in ("account", "transport")
    }
    assert methods == {
        "account": "ssl-on-alternate-port",
        "transport": "starttls-on-standard-port",
    }
    unprotected = copy.deepcopy(DESIRED)
    unprotected["account"]["incoming"]["security"] = "none"
    with pytest.raises(KeyError):
        sources.sources(unprotected)


def test_mail_is_signed_and_encrypted_by_default_only_with_a_key(sources: ModuleType) -> None:
    def settings(desired: dict[str, Any]) -> configparser.SectionProxy:
        identity = sources.sources(desired)["sources/mailbox-identity.source"]
        return parsed(identity)["Pretty Good Privacy (OpenPGP)"]

    with_key = settings(DESIRED)
    assert with_key["KeyId"] == "A" * 40
    assert (with_key["SignByDefault"], with_key["EncryptByDefault"]) == ("true", "true")
    assert with_key["AlwaysTrust"] == "false"  # only keys that were vouched for
    without = settings({**DESIRED, "openpgp": {"key": None, "correspondents": []}})
    assert (without["SignByDefault"], without["EncryptByDefault"]) == ("false", "false")


def test_no_file_holds_a_password(sources: ModuleType) -> None:
    assert "geheim-4711" not in "".join(sources.sources(DESIRED).values())
    assert "geheim-4711" not in str(sources.settings(DESIRED))


@pytest.mark.parametrize(
    "name", ["a\nEnabled=false", "[Group]", " led", "tab\there", "back\\slash"]
)
def test_a_text_stays_one_line(sources: ModuleType, name: str) -> None:
    desired = copy.deepcopy(DESIRED)
    desired["account"]["display_name"] = name
    identity = sources.sources(desired)["sources/mailbox-identity.source"]
    lines = [line for line in identity.splitlines() if line.startswith("Name=")]
    assert len(lines) == 1
    assert len(identity.splitlines()) == len(
        sources.sources(DESIRED)["sources/mailbox-identity.source"].splitlines()
    )


def test_settings_of_the_person_stay(sources: ModuleType) -> None:
    before = ["[org/gnome/evolution/mail]", "layout=1", "image-loading-policy='always'", ""]
    after = parsed(sources.merged(before, sources.settings(DESIRED)))
    assert after["org/gnome/evolution/mail"]["layout"] == "1"
    assert after["org/gnome/evolution/mail"]["image-loading-policy"] == "'never'"
    again = sources.merged(
        sources.merged(before, sources.settings(DESIRED)).splitlines(), sources.settings(DESIRED)
    )
    assert parsed(again) == after


def test_windows_are_readable_by_programs_only_where_wished(sources: ModuleType) -> None:
    def wish(driven: bool) -> str:
        wished = sources.settings({**DESIRED, "marionette": driven})
        return str(wished["org/gnome/desktop/interface"]["toolkit-accessibility"])

    assert (wish(False), wish(True)) == ("false", "true")


@pytest.mark.parametrize(
    ("uid", "address"),
    [
        ("Bert Partner <bert@partner.test>", "bert@partner.test"),
        ("Bert <BERT@Partner.test>", "bert@partner.test"),
        ("bert@partner.test", "bert@partner.test"),
        ("Bert <x> (Büro) <bert@partner.test>", "bert@partner.test"),
    ],
)
def test_address_of_a_user_id(uid: str, address: str, tmp_path: Path) -> None:
    assert load("evolution_keys", tmp_path).address_of(uid) == address


def test_escapes_of_gnupgs_listing(tmp_path: Path) -> None:
    keys = load("evolution_keys", tmp_path)
    assert keys.unescaped(r"J\xc3\xb6rg\x3a <j@b.test>") == "Jörg: <j@b.test>"
    assert keys.unescaped("Jörg <j@b.test>") == "Jörg <j@b.test>"


def test_a_key_on_the_host_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    keys = load("evolution_keys", tmp_path)
    wish = {"key": {"fingerprint": "A" * 40, "secret": None}, "correspondents": []}
    with pytest.raises(keys.KeyFailureError, match="stays on the host"):
        keys.Keys(tmp_path, {}).apply(wish)
    assert not (tmp_path / ".gnupg").exists()


def test_a_connection_is_recognised(tmp_path: Path) -> None:
    session = load("evolution_session", tmp_path)
    line = "   0: 0100007F:8F3A 0109007F:03E1 01 00000000:00000000 00:00000000 00000000  1000 0 1"
    assert session.connected(line, "127.0.9.1", 993)
    assert not session.connected(line, "127.0.9.2", 993)
    assert not session.connected(line, "127.0.9.1", 465)
    assert not session.connected(line.replace(" 01 ", " 02 "), "127.0.9.1", 993)


def test_the_digest_ignores_the_state_of_the_volume(tmp_path: Path) -> None:
    session = load("evolution_session", tmp_path)
    blank = session._digest({**DESIRED, "volume": {"blank": True}})
    assert blank == session._digest({**DESIRED, "volume": {"blank": False}})
    assert blank != session._digest({**DESIRED, "policy": {"remote_content": True}})


def pinentry(tmp_path: Path, secret: bytes, *commands: str) -> list[str]:
    """The answers of the pinentry, with a keyring that holds `secret`."""
    keyring = tmp_path / "secret-tool"
    keyring.write_bytes(b"#!/bin/sh\nprintf %s '" + secret + b"'\n")
    keyring.chmod(0o755)
    text = (FOLDER / "pinentry_keyring.py").read_text()
    program = text.replace("/usr/bin/secret-tool", str(keyring))
    assert program != text
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="".join(f"{command}\n" for command in commands),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return done.stdout.splitlines()


def test_pinentry_answers_with_the_keyrings_passphrase(tmp_path: Path) -> None:
    said = pinentry(tmp_path, b"pw% x", "OPTION ttyname=/dev/null", "GETPIN", "BYE")
    assert said == ["OK at your service", "OK", "D pw%25 x", "OK", "OK"]


def test_pinentry_says_a_refused_passphrase_only_once(tmp_path: Path) -> None:
    said = pinentry(tmp_path, b"wrong", "GETPIN", "SETERROR Bad Passphrase", "GETPIN")
    assert [line.split()[0] for line in said] == ["OK", "D", "OK", "OK", "ERR"]


def test_pinentry_without_a_passphrase_gives_up(tmp_path: Path) -> None:
    assert pinentry(tmp_path, b"", "GETPIN")[-1].startswith("ERR")
