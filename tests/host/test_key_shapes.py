"""Every shape of key, with a real GnuPG: taken or refused with the reason, shown, given away.

A row says what a key is made of and what becomes of it as one's own and as a correspondent's.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.host.gnupg import ProfileKeyring, UserKeyring
from sandbox.host.keyreader import KeyReader
from sandbox.host.own_keys import OwnKeyring
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keydetails import Details
from sandbox.model.offers import Source, offered, refuse_unusable
from tests.host.conftest import need
from tests.host.test_gnupg import NEW, Home, never, revoke

DATA = Path(__file__).parents[1] / "data" / "keys"
ADDRESS = "anna@kunde.test"
LONG_AGO = ("--faked-system-time", "20200101T000000!")
ODD = (
    'Änne "Zitat" \\ zurück',
    "密码 🔑",
    "a:b:c %41 \\x41 100%",
    "-n --help",
    "<script>alert(1)</script>",
    "rechts \u202e nach links",
    "Anna (Kommentar) (noch einer)",
    "x" * 400,
)


@dataclass(frozen=True)
class Made:
    """A key as somebody has it: its file, the passphrase of it, whether the home has it, too."""

    secret: bytes
    public: bytes
    fingerprint: str = ""
    passphrase: str = ""
    at_home: bool = True


def made(home: Home, *uses: str, passphrase: str = "") -> Made:
    return taken(home, home.make(*uses, passphrase=passphrase), passphrase)


def taken(home: Home, fingerprint: str, passphrase: str = "") -> Made:
    public = home.gpg("--armor", "--export", fingerprint).encode()
    return Made(home.export(fingerprint, passphrase), public, fingerprint, passphrase)


def from_file(name: str, passphrase: str = "") -> Callable[[Home], Made]:
    def make(home: Home) -> Made:
        home.gpg("--import", str(DATA / name), input=f"{passphrase}\n")
        (fingerprint,) = home.fingerprints()
        public = home.gpg("--armor", "--export", fingerprint).encode()
        return Made((DATA / name).read_bytes(), public, fingerprint, passphrase)

    return make


def several_user_ids(home: Home) -> Made:
    fingerprint = home.make()
    for address in ("anna@alt.test", "a.kundin@kunde.test"):
        home.gpg("--quick-add-uid", fingerprint, f"Anna <{address}>", input="\n")
    home.gpg("--quick-revoke-uid", fingerprint, "Anna <anna@alt.test>", input="\n")
    return taken(home, fingerprint)


def odd_user_ids(home: Home) -> Made:
    fingerprint = home.make()
    for name in ODD:
        home.gpg("--quick-add-uid", fingerprint, f"{name} <{ADDRESS}>", input="\n")
    # As programs wrote them before UTF-8: bytes that are no text.
    latin = "J\xf6rg <joerg@kunde.test>".encode("latin-1")
    command = [*home.command, "--charset", "utf-8", "--quick-add-uid", fingerprint, latin]
    subprocess.run(command, input=b"\n", capture_output=True, check=True)
    return taken(home, fingerprint)


def offline_primary(passphrase: str = "") -> Callable[[Home], Made]:
    def make(home: Home) -> Made:
        whole = made(home, "cert", "sign", "encr", passphrase=passphrase)
        command = ("--armor", "--export-secret-subkeys", whole.fingerprint)
        secret = home.gpg(*command, input=f"{passphrase}\n").encode()
        grip = home.keygrips(whole.fingerprint)[0]
        (home.path / "private-keys-v1.d" / f"{grip}.key").unlink()
        home.restart_agent()
        return Made(secret, whole.public, whole.fingerprint, passphrase)

    return make


def offline_signing(home: Home) -> Made:
    """A file in which the subkey that signs is a stub."""
    whole = made(home, "cert", "sign", "encr")
    grip = home.keygrips(whole.fingerprint)[1]
    (home.path / "private-keys-v1.d" / f"{grip}.key").unlink()
    home.restart_agent()
    return Made(home.export(whole.fingerprint), whole.public, whole.fingerprint)


def ended(*subkeys: str, then: tuple[str, ...] = ()) -> Callable[[Home], Made]:
    """A key of 2020 whose subkeys lasted a year; `then` were added later, and it lasts."""

    def make(home: Home) -> Made:
        lasts = "0" if then else "1y"
        user = f"Anna <{ADDRESS}>"
        home.gpg(*LONG_AGO, "--quick-gen-key", user, "ed25519", "cert,sign", lasts, input="\n")
        (fingerprint,) = home.fingerprints()
        for use in subkeys:
            add = ("--quick-add-key", fingerprint, "cv25519", use, "1y")
            home.gpg(*LONG_AGO, *add, input="\n")
        for use in then:
            home.gpg("--quick-add-key", fingerprint, "cv25519", use, "0", input="\n")
        return taken(home, fingerprint)

    return make


def revoked(home: Home) -> Made:
    fingerprint = home.make()
    revoke(home, fingerprint)
    return taken(home, fingerprint)


def version_6(_home: Home) -> Made:
    secret, public = (DATA / f"v6-{kind}.asc" for kind in ("secret", "public"))
    return Made(secret.read_bytes(), public.read_bytes(), at_home=False)


@dataclass(frozen=True)
class Shape:
    """How to make it; why it is refused as one's own and as a correspondent's (empty: taken)."""

    make: Callable[[Home], Made]
    own: str = ""
    correspondent: str = ""
    parts: tuple[str, ...] = ("certify+sign here", "encrypt here")
    certificate: bool = True


SPLIT = ("certify here", "sign here", "encrypt here")
OFFLINE = ("certify offline", "sign here", "encrypt here")
NO_ENCRYPTION = "no usable subkey for encryption"
SHAPES: dict[str, Shape] = {
    "plain": Shape(lambda home: made(home)),
    "with a passphrase": Shape(lambda home: made(home, passphrase="Ünï 密 'x'")),
    "several user ids": Shape(several_user_ids),
    "odd user ids": Shape(odd_user_ids),
    "a signing subkey": Shape(lambda home: made(home, "cert", "sign", "encr"), parts=SPLIT),
    "an offline primary": Shape(offline_primary(), parts=OFFLINE, certificate=False),
    "an offline primary, with a passphrase": Shape(
        offline_primary("old"), parts=OFFLINE, certificate=False
    ),
    "an offline signing subkey": Shape(offline_signing, own="no secret for signing"),
    "several encryption subkeys": Shape(
        lambda home: made(home, "cert,sign", "encr", "encr"),
        parts=("certify+sign here", "encrypt here", "encrypt here"),
    ),
    "an encryption subkey that ended": Shape(
        ended("encr", then=("encr",)),
        parts=("certify+sign here", "encrypt here expired", "encrypt here"),
    ),
    "for encryption only": Shape(
        lambda home: made(home, "cert", "encr"), own="no usable key for signing"
    ),
    "for signing only": Shape(
        lambda home: made(home, "cert,sign"), own=NO_ENCRYPTION, correspondent=NO_ENCRYPTION
    ),
    "expired": Shape(
        ended("encr"), own="expired on 2020-12-31", correspondent="expired on 2020-12-31"
    ),
    "revoked": Shape(revoked, own="is revoked", correspondent="is revoked"),
    "RSA 1024": Shape(from_file("rsa-1024.asc"), own="RSA with 1024 bits"),
    "RSA 2048": Shape(from_file("rsa-2048.asc")),
    "RSA 3072": Shape(from_file("rsa-3072.asc")),
    "RSA 4096": Shape(from_file("rsa-4096.asc")),
    "made by GnuPG 2.4": Shape(from_file("gnupg-2.4.asc", "old")),
    "version 6": Shape(version_6, own="key of version 6", correspondent="version 6"),
}


@dataclass
class Mailbox:
    """A mailbox's key ring and what changes it."""

    folder: Path
    ring: ProfileKeyring
    own: OwnKeyring

    def take(self, key: Made) -> str:
        return self.ring.add_own(key.secret, "", NEW, lambda _: key.passphrase).fingerprint


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    folder = Path(tempfile.mkdtemp(prefix="ring-")) / "keys"
    made = Mailbox(folder, ProfileKeyring(folder), OwnKeyring(folder))
    made.ring.create()
    yield made
    made.ring.destroy()
    shutil.rmtree(folder.parent)


@pytest.fixture
def home() -> Iterator[Home]:
    need("gpg", "gpgconf", "gpg-connect-agent")
    made = Home()
    yield made
    made.end()


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(MailboxError) as caught:
        action()
    assert (caught.value.code, caught.value.exit_code) == ("key-unusable", Exit.KEYS)
    return caught.value.brief


def summary(details: Details) -> tuple[str, ...]:
    return tuple(
        f"{'+'.join(part.uses)} {part.secret}{'' if part.state == 'valid' else f' {part.state}'}"
        for part in details.parts
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_as_ones_own_from_a_file(shape: Shape, home: Home, mailbox: Mailbox) -> None:
    key = shape.make(home)
    if shape.own:
        assert shape.own in refused(lambda: mailbox.take(key))
        return
    assert mailbox.take(key) == key.fingerprint
    details = mailbox.own.describe(key.fingerprint)
    assert details is not None and summary(details) == shape.parts
    _works_in_a_machine(key, mailbox)
    for part in (mailbox.folder / "private-keys-v1.d").glob("*.key"):
        assert b"protected-private-key" in part.read_bytes()
    assert (mailbox.own.certificate(key.fingerprint) is not None) == shape.certificate


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_as_ones_own_from_gnupg(shape: Shape, home: Home, mailbox: Mailbox) -> None:
    key = shape.make(home)
    if not key.at_home:
        return  # GnuPG never had it
    user = UserKeyring(str(home.path))

    def take() -> str:
        armored, old = user.secret(key.fingerprint, lambda _: key.passphrase)
        return mailbox.ring.add_own(armored, old, NEW, never).fingerprint

    home.restart_agent()
    if shape.own:
        assert shape.own in refused(take)
    else:
        assert take() == key.fingerprint
        assert mailbox.ring.export(key.fingerprint, NEW).secret


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_as_a_correspondents(shape: Shape, home: Home, mailbox: Mailbox) -> None:
    key = shape.make(home)
    source = Source("a file", key.public, trusted=True)
    (reading,) = KeyReader(mailbox.folder.parent / "run").read([key.public])
    if shape.correspondent:
        with pytest.raises(MailboxError) as caught:
            refuse_unusable([offered(source, reading)])
        said = f"{caught.value.brief} {caught.value.details}"
        assert caught.value.code == "key-unusable" and shape.correspondent in said
        return
    (offer,) = offered(source, reading).offers
    mailbox.ring.add_correspondents([offer.public])
    assert offer.key.fingerprint == key.fingerprint and ADDRESS in offer.key.addresses
    details = mailbox.own.describe(key.fingerprint)
    assert details is not None
    assert {part.secret for part in details.parts} == {"none"}


def _works_in_a_machine(key: Made, mailbox: Mailbox) -> None:
    """What the ring gives away decrypts and signs in another GnuPG, with the new passphrase."""
    exported = mailbox.ring.export(key.fingerprint, NEW)
    guest = Home()
    try:
        files = {name: guest.path / name for name in ("secret", "public", "text", "letter")}
        files["secret"].write_text(exported.secret)
        files["public"].write_text(exported.public)
        files["text"].write_text("Hallo")
        trust = ("--trust-model", "always")
        guest.gpg("--import", str(files["secret"]), str(files["public"]))
        encrypt = ("--recipient", key.fingerprint, "--output", str(files["letter"]), "--encrypt")
        guest.gpg(*trust, *encrypt, str(files["text"]))
        assert guest.gpg("--decrypt", str(files["letter"]), input=f"{NEW}\n") == "Hallo"
        sign = ("--output", "-", "--clearsign", str(files["text"]))
        assert "BEGIN PGP SIGNATURE" in guest.gpg(*sign, input=f"{NEW}\n")
        guest.restart_agent()
        assert "BEGIN PGP SIGNATURE" not in guest.gpg(*sign, input="wrong\n", check=False)
    finally:
        guest.end()


def test_user_ids_are_shown_as_they_are(home: Home, mailbox: Mailbox) -> None:
    key = odd_user_ids(home)
    mailbox.take(key)
    details = mailbox.own.describe(key.fingerprint)
    assert details is not None
    shown = {each.text for each in details.user_ids}
    assert {f"{name} <{ADDRESS}>" for name in ODD} <= shown
    assert any(re.fullmatch("J.rg <joerg@kunde.test>", text) for text in shown)
    (listed,) = mailbox.ring.look([key.fingerprint])
    assert set(listed.addresses) == {ADDRESS, "joerg@kunde.test"}


def test_a_revoked_user_id_is_told_apart(home: Home, mailbox: Mailbox) -> None:
    key = several_user_ids(home)
    mailbox.take(key)
    details = mailbox.own.describe(key.fingerprint)
    assert details is not None
    states = {each.text: each.state for each in details.user_ids}
    assert states["Anna <anna@alt.test>"] == "revoked"
    assert states["Anna <a.kundin@kunde.test>"] == "valid"
