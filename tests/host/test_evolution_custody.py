"""What the image of Evolution does with keys, with the GnuPG of this computer."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from demo.correspondent import Person
from demo.guestcode import guest_module
from tests.host.conftest import need

Json = dict[str, Any]


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return guest_module("evolution", "evolution_keys", {})


@pytest.fixture(scope="module")
def anna() -> Iterator[Person]:
    need("gpg", "gpgconf")
    with Person("Anna Kundin", "anna@kunde.test") as person:
        yield person


@pytest.fixture(scope="module")
def bert() -> Iterator[Person]:
    """Somebody whose key also claims to be another's."""
    with Person("Bert Partner", "bert@partner.test") as person:
        loopback = ("--pinentry-mode", "loopback", "--passphrase", "")
        claim = ("--quick-add-uid", person.fingerprint, "Chefin <chefin@kunde.test>")
        person.gpg_command(*loopback, *claim)
        yield person


@pytest.fixture
def guest() -> Iterator[Path]:
    # Short, because GnuPG puts its sockets there.
    made = Path(tempfile.mkdtemp(prefix="evk-"))
    yield made
    for home in (made / ".gnupg", made / "gnupg"):
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
    shutil.rmtree(made, ignore_errors=True)


def wish(anna: Person, bert: Person, custody: str) -> Json:
    held = custody == "host"
    where = ["gpgconf", "--homedir", str(anna.home), "--list-dirs", "agent-extra-socket"]
    agent = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["gpgconf", "--homedir", anna.home, "--launch", "gpg-agent"], check=True)
    return {
        "custody": custody,
        "agent": agent if held else None,
        "key": {
            "fingerprint": anna.fingerprint,
            "secret": None if held else anna.secret_key(),
            "public": anna.public_key(),
        },
        "correspondents": [
            {
                "fingerprint": bert.fingerprint,
                "addresses": [bert.address],
                "public": bert.public_key(),
            }
        ],
    }


def request(anna: Person, *others: str) -> Json:
    found = [{"fingerprint": each, "addresses": []} for each in others]
    return {"own": anna.fingerprint, "correspondents": found}


def secrets_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.key") if path.is_file()]


@pytest.mark.parametrize("custody", ["guest", "host"])
def test_keys_serve_in_both_custodies(
    custody: str, program: ModuleType, guest: Path, anna: Person, bert: Person
) -> None:
    wished = wish(anna, bert, custody)
    keys = program.of(wished, guest, guest, os.environ)
    assert keys.apply(wished) == []
    assert keys.apply(wished) == []  # a second time changes nothing
    proven = dict(keys.check(request(anna, bert.fingerprint, "A" * 40)))
    assert (proven[anna.fingerprint], proven[bert.fingerprint]) == ("", "")
    assert "No public key" in proven["A" * 40]
    assert bool(secrets_in(guest)) is (custody == "guest")
    letter = bert.letter(anna, "Betreff", "Hallo").decode()
    armored = (
        letter[letter.index("-----BEGIN") : letter.index("-----END")] + "-----END PGP MESSAGE-----"
    )
    read = keys._gpg("--status-fd", "2", "--decrypt", data=armored)
    assert "Subject: Betreff" in read.stdout and "GOODSIG" in read.stderr
    assert "TRUST_FULLY" in read.stderr or "TRUST_ULTIMATE" in read.stderr


def test_a_name_that_was_not_accepted_does_not_count(
    program: ModuleType, guest: Path, anna: Person, bert: Person
) -> None:
    for custody in ("guest", "host"):
        wished = wish(anna, bert, custody)
        keys = program.of(wished, guest, guest, os.environ)
        keys.apply(wished)
        to_claimed = ("--recipient", "<chefin@kunde.test>", "--encrypt")
        assert keys._gpg(*to_claimed, data="x", check=False).returncode != 0
        to_accepted = ("--recipient", "<bert@partner.test>", "--encrypt")
        assert keys._gpg(*to_accepted, data="x", check=False).returncode == 0


def test_a_host_that_offers_no_key_is_a_warning(
    program: ModuleType, guest: Path, anna: Person, bert: Person
) -> None:
    wished = wish(anna, bert, "host") | {"agent": str(guest / "nobody")}
    keys = program.of(wished, guest, guest, os.environ)
    assert [code for code, _ in keys.apply(wished)] == ["key-away"]
    problem = dict(keys.check(request(anna)))[anna.fingerprint]
    assert "could not be signed and encrypted" in problem


def test_a_key_that_is_not_vouched_for_fails_the_proof(
    program: ModuleType, guest: Path, anna: Person, bert: Person
) -> None:
    wished = wish(anna, bert, "guest")
    keys = program.of(wished, guest, guest, os.environ)
    keys.apply(wished)
    with Person("Carla Fremd", "carla@partner.test") as carla:
        keys._gpg("--import", data=carla.public_key())
        problem = dict(keys.check(request(anna, carla.fingerprint)))[carla.fingerprint]
    assert "no assurance" in problem or "Unusable public key" in problem
