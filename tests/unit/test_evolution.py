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


WISH = {
    "url": "https://dav.kunde.test:8443/anna/b%C3%BCro/",
    "name": "Büro",
    "login": "anna",
    "password": "geheim-0420",
}
WITH_COLLECTIONS = {**DESIRED, "calendars": [WISH], "address_books": [WISH]}


def test_calendars_and_address_books_are_sources(sources: ModuleType) -> None:
    files = sources.sources(WITH_COLLECTIONS)
    added = sorted(set(files) - set(sources.sources(DESIRED)))
    book, calendar = (parsed(files[name]) for name in added)
    for source in (book, calendar):
        login = source["Authentication"]
        assert (login["Host"], login["Port"], login["User"]) == ("dav.kunde.test", "8443", "anna")
        assert source["Security"]["Method"] == "tls"
        assert source["WebDAV Backend"]["ResourcePath"] == "/anna/b%C3%BCro/"
        assert source["Data Source"]["DisplayName"] == "Büro"
    assert calendar["Data Source"]["Parent"] == "caldav-stub"
    assert (calendar["Calendar"]["BackendName"], calendar["Calendar"]["Color"]) == (
        "caldav",
        "#2a7f62",
    )
    assert book["Data Source"]["Parent"] == "carddav-stub"
    assert book["Address Book"]["BackendName"] == "carddav"


def test_each_source_has_its_password_and_no_file_has(sources: ModuleType) -> None:
    files, passwords = sources.sources(WITH_COLLECTIONS), sources.passwords(WITH_COLLECTIONS)
    assert "geheim" not in "".join(files.values())
    assert {f"sources/{uid}.source" for uid in passwords} <= set(files)
    assert sorted(passwords.values()) == ["geheim-0420"] * 2 + ["geheim-4711"] * 2


def test_a_source_is_the_same_until_place_or_login_change(sources: ModuleType) -> None:
    def uids(**changes: str) -> set[str]:
        return set(sources.passwords({**WITH_COLLECTIONS, "calendars": [{**WISH, **changes}]}))

    assert uids(name="other", password="other") == uids()
    assert uids(url="https://dav.kunde.test/other/") != uids()
    assert uids(login="other") != uids()


def test_what_is_named_no_more_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "secret-tool").write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    (tools / "secret-tool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    session = load("evolution_session", tmp_path)
    session._write_account(WITH_COLLECTIONS)
    before = set((tmp_path / ".config/evolution/sources").iterdir())
    session._write_account({**WITH_COLLECTIONS, "calendars": []})
    (gone,) = before - set((tmp_path / ".config/evolution/sources").iterdir())
    assert gone.name.startswith("mailbox-calendar-")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert len(asked) == 1 and asked[0].startswith("clear ") and gone.stem in asked[0]


def collections_of(entry: Any) -> list[str]:
    """What the base says of a desired state with this calendar."""
    check = guest_module("base", "desired", {})
    return list(check._collections({"calendars": [entry]}, "calendars"))


@pytest.mark.parametrize(
    "entry",
    [
        3,
        {},
        {**WISH, "url": "http://dav.kunde.test/a/"},
        {**WISH, "url": "https://dav.kunde.test"},
        {**WISH, "url": "https://dav.kunde.test/a b"},
        {**WISH, "login": None},
        {**WISH, "password": 1},
    ],
)
def test_a_malformed_calendar_is_refused_in_the_guest(entry: Any) -> None:
    assert collections_of(entry)
    assert not collections_of(WISH)


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


def test_where_the_keys_are(tmp_path: Path) -> None:
    keys = load("evolution_keys", tmp_path)
    home, state, own = tmp_path / "home", tmp_path / "state", {"fingerprint": "A" * 40}

    def folder(custody: str, key: object) -> Path:
        wish = {"custody": custody, "key": key}
        return Path(keys.of(wish, home, state, {}).folder)

    assert folder("guest", own) == folder("host", None) == home / ".gnupg"
    assert folder("host", own) == state / "gnupg"


OWN_SIGNED = (
    f"ENC_TO 1 18 0\nENC_TO 2 18 0\nDECRYPTION_OKAY\nGOODSIG X me\nVALIDSIG S 2026 1 0 {'A' * 40}"
)


@pytest.mark.parametrize(
    ("status", "recipients", "good"),
    [
        (OWN_SIGNED, 2, True),
        (OWN_SIGNED, 1, False),
        (OWN_SIGNED.replace("A" * 40, "B" * 40), 2, False),
        (OWN_SIGNED.replace("GOODSIG", "BADSIG"), 2, False),
        (OWN_SIGNED.replace("DECRYPTION_OKAY", "DECRYPTION_FAILED"), 2, False),
        (OWN_SIGNED + f"\nVALIDSIG S 2026 1 0 {'B' * 40}", 2, False),
        ("", 0, False),
    ],
)
def test_what_gnupg_says_of_a_good_mail(
    status: str, recipients: int, good: bool, tmp_path: Path
) -> None:
    keys = load("evolution_keys", tmp_path)
    lines = [line.split() for line in status.splitlines()]
    assert keys.is_good(lines, "A" * 40, recipients) is good


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
