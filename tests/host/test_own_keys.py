"""A real GnuPG: own keys replaced, extended and revoked, and what is signed to tell of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.host.custody.keygrips import held_grips
from sandbox.host.gnupg import ProfileKeyring
from sandbox.host.own_keys import OwnKeyring
from sandbox.lifecycle import rings
from sandbox.lifecycle.forget_key import forget
from sandbox.lifecycle.house import House
from sandbox.lifecycle.keychange import follow_ring
from sandbox.lifecycle.onboard import KeyChoice, onboard
from sandbox.lifecycle.own_keys import Extension, Revocation, Rotation, extend, revoke, rotate
from sandbox.lifecycle.publish import publish
from sandbox.lifecycle.recover import Means, recover
from sandbox.model.errors import MailboxError
from sandbox.model.keydetails import Algorithm, Details, NewKey, Reason
from sandbox.model.openpgp import Keys
from sandbox.model.secrets import KEY_PASSPHRASE
from tests.host.conftest import need
from tests.host.test_gnupg import NEW, Home, never
from tests.unit.fakes import CODES, NAME, PASSWORD, World, make_house, make_wish

LONG_AGO = ("--faked-system-time", "20200101T000000!")


@pytest.fixture
def home() -> Iterator[Home]:
    need("gpg", "gpgconf")
    made = Home()
    yield made
    made.end()


@pytest.fixture
def house() -> Iterator[House]:
    """All in memory but the mailbox's key rings, which are GnuPG's."""
    need("gpg", "gpgconf")
    root = Path(tempfile.mkdtemp(prefix="own-"))
    fake = make_house(World(root))
    yield replace(
        fake,
        profile_keyring=lambda name: ProfileKeyring(fake.paths.gnupg(name)),
        own_keyring=lambda name: OwnKeyring(fake.paths.gnupg(name)),
    )
    shutil.rmtree(root)


@pytest.fixture
def mailbox(house: House) -> House:
    onboard(house, make_wish(key=KeyChoice(generate=True), correspondents=()))
    return house


def own(house: House) -> str:
    return house.records.load(NAME).keys.fingerprint or ""


def details(house: House, fingerprint: str) -> Details:
    found = house.own_keyring(NAME).describe(fingerprint)
    assert found is not None
    return found


def passphrase(house: House) -> str:
    return house.vault.get(house.records.load(NAME).id, KEY_PASSPHRASE) or ""


def test_a_new_key_lasts_two_years_and_can_be_revoked_at_once(mailbox: House) -> None:
    found = details(mailbox, own(mailbox))
    for part in found.parts:
        assert part.expires and part.expires - part.created == 2 * 365 * 86400
    assert [(part.algorithm, part.uses) for part in found.parts] == [
        ("ed25519", ("certify", "sign")),
        ("cv25519", ("encrypt",)),
    ]
    assert mailbox.own_keyring(NAME).certificate(own(mailbox))


def test_rotated_the_old_key_opens_old_mail_and_vouches_for_the_new_one(
    mailbox: House, home: Home
) -> None:
    old = own(mailbox)
    result = rotate(mailbox, NAME, Rotation(new=NewKey(Algorithm.RSA3072, "1y")))
    new = own(mailbox)
    assert mailbox.records.load(NAME).keys.retired == (old,) and new != old
    assert details(mailbox, new).primary.algorithm == "rsa3072"
    assert result.facts["signed_by"] == (old, new)
    for each in (old, new):
        assert mailbox.profile_keyring(NAME).export(each, passphrase(mailbox)).secret
    # A correspondent who knows the old key reads the letter.
    text = home.path / "letter"
    text.write_text(result.facts["letter"])
    known = home.path / "old.asc"
    known.write_text(mailbox.profile_keyring(NAME).public([old])[old])
    home.gpg("--import", str(known))
    status = home.gpg("--status-fd", "1", "--output", "-", "--decrypt", str(text), check=False)
    assert f"VALIDSIG {old}" in status and "BADSIG" not in status
    assert home.gpg("--import", str(text)) == "" and new in home.fingerprints()
    files = {path.name for path in mailbox.paths.keys.iterdir()}
    assert files == {NAME}


def test_a_kill_between_ring_and_profile_leaves_them_alike(mailbox: House) -> None:
    old, name = own(mailbox), rings.begin_draft(mailbox, NAME)
    new = mailbox.profile_keyring(name).generate("Anna", "anna@kunde.test", passphrase(mailbox))
    rings.put_in_place(mailbox, NAME)
    assert own(mailbox) == old
    follow_ring(mailbox, NAME, new)
    assert (own(mailbox), mailbox.records.load(NAME).keys.retired) == (new, (old,))


def test_extended_it_serves_again_after_it_expired(house: House, home: Home) -> None:
    user = "Anna <anna@kunde.test>"
    home.gpg(*LONG_AGO, "--quick-gen-key", user, "ed25519", "cert", "1y", input="\n")
    (fingerprint,) = home.fingerprints()
    for kind, use in (("ed25519", "sign"), ("cv25519", "encr"), ("cv25519", "encr")):
        home.gpg(*LONG_AGO, "--quick-add-key", fingerprint, kind, use, "1y", input="\n")
    onboard(house, make_wish(key=KeyChoice(), correspondents=()))
    # It has ended since it was taken.
    ring = house.profile_keyring(NAME)
    ring.add_own(home.export(fingerprint), "", passphrase(house), never, retired=True)
    profile = house.records.load(NAME)
    house.records.save(replace(profile, keys=Keys(fingerprint, expires="2020-12-31")))
    assert {part.state for part in details(house, fingerprint).parts} == {"expired"}
    result = extend(house, NAME, Extension("3y"))
    found = details(house, fingerprint)
    assert [part.state for part in found.parts].count("expired") == 1  # the older of two alike
    assert found.serves("sign") and found.serves("encrypt")
    assert result.facts["expires"] == house.records.load(NAME).keys.expires > "2020-12-31"


def test_a_key_whose_primary_part_is_elsewhere_takes_its_dates_from_there(
    house: House, home: Home
) -> None:
    fingerprint = home.make("cert", "sign", "encr")
    subkeys = home.gpg("--armor", "--export-secret-subkeys", fingerprint, input="\n").encode()
    onboard(house, make_wish(key=KeyChoice(file=subkeys), correspondents=()))
    with pytest.raises(MailboxError) as refused:
        extend(house, NAME, Extension())
    assert refused.value.code == "key-offline" and "--key-file" in refused.value.resolution
    with pytest.raises(MailboxError) as refused:
        revoke(house, NAME, Revocation())
    assert refused.value.code == "revocation-missing"
    home.gpg("--quick-set-expire", fingerprint, "2040-01-01", input="\n")
    public = home.gpg("--armor", "--export", fingerprint).encode()
    extend(house, NAME, Extension(file=public))
    assert house.records.load(NAME).keys.expires == "2040-01-01"
    other = home.gpg("--armor", "--export", home.make(address="b@p.test")).encode()
    for wrong in (other, home.export(fingerprint), b"junk"):
        with pytest.raises(MailboxError) as refused:
            extend(house, NAME, Extension(file=wrong))
        assert refused.value.code == "key-unusable"


@pytest.mark.parametrize("reason", list(Reason))
def test_a_revoked_key_says_why_and_decrypts_for_the_machine(
    mailbox: House, home: Home, reason: Reason, tmp_path: Path
) -> None:
    fingerprint = own(mailbox)
    grips = held_grips(mailbox.paths.gnupg(NAME), fingerprint, ())
    result = revoke(mailbox, NAME, Revocation(reason=reason, words="Grund: Änderung"))
    assert result.facts["certificate"] == "made" and own(mailbox) == ""
    assert details(mailbox, fingerprint).primary.state == "revoked"
    file = home.path / "revoked"
    file.write_text(result.facts["public"])
    shown = home.gpg("--list-packets", str(file))
    number = {"unspecified": "00", "superseded": "01", "compromised": "02", "unused": "03"}
    assert f"revocation reason 0x{number[reason]} (Grund: " in shown
    held = held_grips(mailbox.paths.gnupg(NAME), "", (fingerprint,))
    assert (held.sign, held.decrypt) == ((), grips.decrypt) and grips.sign
    published = publish(mailbox, NAME, tmp_path / "wkd").facts
    assert published["revoked"] == [fingerprint]


def test_without_the_keyring_the_kept_certificate_revokes(mailbox: House) -> None:
    fingerprint, identity = own(mailbox), mailbox.records.load(NAME).id
    mailbox.vault.delete(identity, KEY_PASSPHRASE)
    recover(mailbox, NAME, Means(CODES[-1], lambda: PASSWORD, without_key=True))
    assert own(mailbox) == "" and details(mailbox, fingerprint).primary.secret == "none"
    result = revoke(mailbox, NAME, Revocation(fingerprint, Reason.COMPROMISED))
    assert result.facts["certificate"] == "kept"
    assert details(mailbox, fingerprint).primary.state == "revoked"


@pytest.mark.parametrize("split", [False, True])
def test_a_forgotten_key_decrypts_nothing_and_leaves_no_file(mailbox: House, split: bool) -> None:
    old = own(mailbox)
    rotate(mailbox, NAME, Rotation(new=NewKey(split=split)))
    ring, new = mailbox.paths.gnupg(NAME), own(mailbox)
    both = len(list(ring.glob("private-keys-v1.d/*.key")))
    assert held_grips(ring, new, (old,)).decrypt != held_grips(ring, new, ()).decrypt
    forget(mailbox, NAME, old)
    assert held_grips(ring, new, (old,)) == held_grips(ring, new, ())
    assert len(list(ring.glob("private-keys-v1.d/*.key"))) == both - 2
    assert details(mailbox, old).primary.secret == "none"
    assert details(mailbox, new).primary.secret == "here"
    # What was published can still be taken back.
    assert revoke(mailbox, NAME, Revocation(old)).facts["certificate"] == "kept"
    assert details(mailbox, old).primary.state == "revoked"


def test_a_wrong_passphrase_is_an_error_and_asks_nobody(home: Home) -> None:
    folder = home.path / "ring"
    ring, own_ring = ProfileKeyring(folder), OwnKeyring(folder)
    ring.create()
    fingerprint = ring.generate("Anna", "anna@kunde.test", NEW)
    for action in (
        lambda: own_ring.extend(fingerprint, "3y", "wrong"),
        lambda: own_ring.sign("text", (fingerprint,), "wrong"),
        lambda: own_ring.make_certificate(fingerprint, "wrong", Reason.UNUSED),
    ):
        with pytest.raises(MailboxError) as refused:
            action()
        assert refused.value.code == "gnupg-failed"
        assert "wrong" not in f"{refused.value.brief}{refused.value.details}".split()
    ring.destroy()
