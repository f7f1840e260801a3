"""Real GnuPG: which keys a mailbox takes, and how its own ring protects them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandbox.host import agents
from sandbox.host.gnupg import ProfileKeyring, UserKeyring, addresses_of
from sandbox.model.errors import Exit, MailboxError
from tests.host.conftest import need

Gpg = Callable[..., str]
CARD = "D2760001240103040006123456780000"
NEW = "bmV3LXBhc3NwaHJhc2U="
NEVER = "nobody should be asked"


def never(_description: str) -> str:
    raise AssertionError(NEVER)


class Home:
    """A GnuPG home and its agent."""

    def __init__(self) -> None:
        # Short, because GnuPG puts its sockets there.
        self.path = Path(tempfile.mkdtemp(prefix="gpg-"))

    @property
    def command(self) -> list[str]:
        """GnuPG here, with a passphrase on its standard input."""
        gpg = ["gpg", "--homedir", str(self.path), "--batch", "--yes", "--no-tty"]
        return [*gpg, "--pinentry-mode", "loopback", "--passphrase-fd", "0"]

    def gpg(self, *arguments: str, input: str = "", check: bool = True) -> str:
        done = subprocess.run(
            [*self.command, *arguments],
            input=input,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def make(self, *keys: str, address: str = "anna@kunde.test", passphrase: str = "") -> str:
        """A key with these uses (`cert`, `sign`, `encr`); returns its fingerprint."""
        before = set(self.fingerprints())
        first, *more = keys or ("cert,sign", "encr")
        user = f"Änne Łukasz <{address}>"
        secret = f"{passphrase}\n"
        self.gpg("--quick-gen-key", user, "ed25519", first, "0", input=secret)
        (fingerprint,) = set(self.fingerprints()) - before
        for use in more:
            kind = "cv25519" if use == "encr" else "ed25519"
            self.gpg("--quick-add-key", fingerprint, kind, use, "0", input=secret)
        return fingerprint

    def fingerprints(self) -> list[str]:
        lines = self.gpg("--with-colons", "--list-keys").splitlines()
        primary = [lines[i + 1] for i, line in enumerate(lines) if line.startswith("pub:")]
        return [line.split(":")[9] for line in primary]

    def export(self, fingerprint: str, passphrase: str = "") -> bytes:
        command = ("--armor", "--export-secret-keys", fingerprint)
        return self.gpg(*command, input=f"{passphrase}\n").encode()

    def keygrips(self, fingerprint: str) -> list[str]:
        """The names of the secret parts in the agent's folder, the primary one first."""
        listed = self.gpg("--with-colons", "--with-keygrip", "--list-keys", fingerprint)
        return [line.split(":")[9] for line in listed.splitlines() if line.startswith("grp:")]

    def move_to_card(self, grip: str) -> None:
        """Leave what GnuPG keeps of a part on a smartcard (agent/keyformat.txt, shadowed)."""
        command = ["gpg-connect-agent", "--homedir", str(self.path), f"READKEY {grip}", "/bye"]
        answer = subprocess.run(command, capture_output=True, check=True).stdout
        coded = answer.partition(b"D ")[2].rpartition(b"\nOK")[0]
        public = re.sub(rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), coded)
        assert public.startswith(b"(10:public-key(") and public.endswith(b"))")
        card = b"(8:shadowed5:t1-v1(16:" + bytes.fromhex(CARD) + b"9:OPENPGP.1))"
        stub = public.replace(b"(10:public-key", b"(20:shadowed-private-key", 1)[:-2] + card + b"))"
        (self.path / "private-keys-v1.d" / f"{grip}.key").write_bytes(stub)
        self.restart_agent()

    def restart_agent(self) -> None:
        agents.end(self.path)

    def end(self) -> None:
        agents.end(self.path)
        shutil.rmtree(self.path, ignore_errors=True)


@pytest.fixture
def home() -> Iterator[Home]:
    need("gpg", "gpgconf", "gpg-connect-agent")
    made = Home()
    yield made
    made.end()


@pytest.fixture
def user(home: Home) -> UserKeyring:
    return UserKeyring(str(home.path))


@pytest.fixture
def ring() -> Iterator[ProfileKeyring]:
    folder = Path(tempfile.mkdtemp(prefix="ring-")) / "keys"
    made = ProfileKeyring(folder)
    made.create()
    yield made
    made.destroy()
    assert not folder.exists()
    shutil.rmtree(folder.parent)


def folder_of(ring: ProfileKeyring) -> Path:
    return ring._home


def agents_of(ring: ProfileKeyring) -> list[str]:
    """The command lines of programs that work on this ring, once those have ended that end."""
    end = time.monotonic() + 10
    while (found := _working_on(ring)) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def _working_on(ring: ProfileKeyring) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder_of(ring)) in line:
            found.append(line)
    return found


def unlocks(exported: str, passphrase: str) -> bool:
    """Whether an exported secret key can sign with this passphrase, in a home of its own."""
    other = Home()
    try:
        other.gpg("--import", "-", check=False)
        file = other.path / "key.asc"
        file.write_text(exported)
        other.gpg("--import", str(file), input=f"{passphrase}\n", check=False)
        (other.path / "text").write_text("text")
        sign = ("--trust-model", "always", "--output", "-", "--sign", str(other.path / "text"))
        done = subprocess.run(
            [*other.command, *sign],
            input=f"{passphrase}\n".encode(),
            capture_output=True,
            check=False,
        )
        return done.returncode == 0
    finally:
        other.end()


def refused_with(code: str, action: Callable[[], object]) -> str:
    with pytest.raises(MailboxError) as refused:
        action()
    assert refused.value.code == code, refused.value.brief
    assert refused.value.exit_code == Exit.KEYS
    assert refused.value.resolution
    return refused.value.brief


def test_a_key_without_a_passphrase_gets_the_vaults(
    home: Home, user: UserKeyring, ring: ProfileKeyring
) -> None:
    fingerprint = home.make()
    armored, old = user.secret(fingerprint, never)
    assert old == ""
    key = ring.add_own(armored, old, NEW, never)
    assert (key.fingerprint, key.addresses) == (fingerprint, ("anna@kunde.test",))
    assert key.user_ids == ("Änne Łukasz <anna@kunde.test>",)
    exported = ring.export(fingerprint, NEW)
    assert exported.passphrase == NEW and "PRIVATE KEY" in exported.secret
    assert "PUBLIC KEY" in exported.public
    assert unlocks(exported.secret, NEW)
    assert not unlocks(exported.secret, "")
    refused_with("key-locked", lambda: ring.export(fingerprint, "wrong"))
    assert agents_of(ring) == []


def test_every_part_of_the_key_is_protected(home: Home, ring: ProfileKeyring) -> None:
    fingerprint = home.make("cert", "sign", "encr", "encr", "sign")
    ring.add_own(home.export(fingerprint), "", NEW, never)
    parts = list((folder_of(ring) / "private-keys-v1.d").glob("*.key"))
    assert len(parts) == 5
    for part in parts:
        assert b"protected-private-key" in part.read_bytes(), part


@pytest.mark.parametrize("part", ["a", "ü"])
def test_a_path_that_is_too_long_for_sockets_is_refused_before_anything_is_made(
    home: Home, part: str
) -> None:
    runtime = Path(f"/run/user/{os.getuid()}")
    if runtime.exists():
        pytest.skip("GnuPG's sockets are in /run/user")
    longest = 106 - len("/S.gpg-agent.browser") - len("..new") - len(os.fsencode(home.path)) - 1
    fits = home.path / (part * (longest // len(part.encode())))
    ring = ProfileKeyring(fits)
    ring.create()
    draft = ProfileKeyring(fits.rename(fits.with_name(f".{fits.name}.new")))
    assert draft.generate("Anna", "anna@kunde.test", NEW)
    with pytest.raises(MailboxError) as refused:
        ProfileKeyring(fits.with_name(fits.name + part)).create()
    assert refused.value.code == "path-too-long"
    assert not fits.with_name(fits.name + part).exists()


@pytest.mark.parametrize("passphrase", ["old", "Ünï 密 'x'"])
def test_a_passphrase_is_asked_for_and_replaced(
    home: Home, user: UserKeyring, ring: ProfileKeyring, passphrase: str
) -> None:
    fingerprint = home.make(passphrase=passphrase)
    asked: list[str] = []
    home.restart_agent()
    armored, old = user.secret(fingerprint, lambda text: asked.append(text) or passphrase)
    assert asked == [fingerprint] and old == passphrase
    ring.add_own(armored, old, NEW, never)
    exported = ring.export(fingerprint, NEW).secret
    assert unlocks(exported, NEW) and not unlocks(exported, passphrase)


def test_a_protected_file_is_asked_for(home: Home, ring: ProfileKeyring) -> None:
    fingerprint = home.make(passphrase="old")
    asked: list[str] = []
    armored = home.export(fingerprint, "old")
    ring.add_own(armored, "", NEW, lambda text: asked.append(text) or "old")
    assert asked == [fingerprint]
    assert unlocks(ring.export(fingerprint, NEW).secret, NEW)


def test_a_wrong_passphrase_is_said(home: Home, user: UserKeyring, ring: ProfileKeyring) -> None:
    fingerprint = home.make(passphrase="old")
    armored = home.export(fingerprint, "old")
    home.restart_agent()
    refused_with("key-passphrase-wrong", lambda: user.secret(fingerprint, lambda _: "wrong"))
    refused_with("key-passphrase-wrong", lambda: ring.add_own(armored, "wrong", NEW, never))
    assert agents_of(ring) == []


def test_a_key_that_expired_is_refused_with_its_day(home: Home, ring: ProfileKeyring) -> None:
    early = ("--faked-system-time", "20200101T000000!")
    user_id = "A <a@kunde.test>"
    home.gpg(*early, "--quick-gen-key", user_id, "ed25519", "cert,sign", "1y", input="\n")
    (fingerprint,) = home.fingerprints()
    home.gpg(*early, "--quick-add-key", fingerprint, "cv25519", "encr", "1y", input="\n")
    brief = refused_with(
        "key-unusable", lambda: ring.add_own(home.export(fingerprint), "", NEW, never)
    )
    assert "expired on 2020-12-31" in brief


def test_a_key_without_encryption_is_refused(home: Home, ring: ProfileKeyring) -> None:
    armored = home.export(home.make("cert,sign"))
    brief = refused_with("key-unusable", lambda: ring.add_own(armored, "", NEW, never))
    assert "no usable subkey for encryption" in brief


def test_a_key_that_cannot_sign_is_refused(home: Home, ring: ProfileKeyring) -> None:
    armored = home.export(home.make("cert", "encr"))
    brief = refused_with("key-unusable", lambda: ring.add_own(armored, "", NEW, never))
    assert "no usable key for signing" in brief


def revoke(home: Home, fingerprint: str) -> None:
    """Apply the certificate that GnuPG made with the key (its first line is disarmed)."""
    note = home.path / "openpgp-revocs.d" / f"{fingerprint}.rev"
    note.write_text(note.read_text().replace(":-----BEGIN", "-----BEGIN"))
    home.gpg("--import", str(note))


def test_a_revoked_key_is_refused(home: Home, ring: ProfileKeyring) -> None:
    fingerprint = home.make()
    revoke(home, fingerprint)
    armored = home.export(fingerprint)
    assert "is revoked" in refused_with(
        "key-unusable", lambda: ring.add_own(armored, "", NEW, never)
    )


def test_a_public_key_is_not_ones_own(home: Home, ring: ProfileKeyring) -> None:
    armored = home.gpg("--armor", "--export", home.make()).encode()
    brief = refused_with("key-unusable", lambda: ring.add_own(armored, "", NEW, never))
    assert "no secret part" in brief


@pytest.mark.parametrize("passphrase", ["", "old"])
def test_subkeys_without_their_primary_key_do(
    home: Home, ring: ProfileKeyring, passphrase: str
) -> None:
    fingerprint = home.make("cert", "sign", "encr", passphrase=passphrase)
    command = ("--armor", "--export-secret-subkeys", fingerprint)
    armored = home.gpg(*command, input=f"{passphrase}\n").encode()
    ring.add_own(armored, passphrase, NEW, never)
    exported = ring.export(fingerprint, NEW).secret
    assert unlocks(exported, NEW) and not unlocks(exported, passphrase)
    for part in (folder_of(ring) / "private-keys-v1.d").glob("*.key"):
        assert b"protected-private-key" in part.read_bytes()


@pytest.mark.parametrize("count", [0, 2])
def test_a_file_of_ones_own_holds_exactly_one_key(
    home: Home, ring: ProfileKeyring, count: int
) -> None:
    keys = [home.make(address=f"{number}@kunde.test") for number in range(count)]
    secret = b"".join(home.export(each) for each in keys) or b"no key"
    brief = refused_with("key-unusable", lambda: ring.add_own(secret, "", NEW, never))
    assert "exactly one key" in brief


def test_a_key_that_is_not_there_is_said(user: UserKeyring, home: Home) -> None:
    refused_with("key-not-found", lambda: user.public("A" * 40))
    refused_with("key-not-found", lambda: user.publics(["A" * 40]))
    refused_with("key-not-found", lambda: user.secret("A" * 40, never))


@pytest.mark.parametrize("name", ["Anna", "Änne 密 Łukasz", "", "A", "5 <x@y.test>", "100% Anna"])
def test_a_new_key_can_sign_and_encrypt(ring: ProfileKeyring, name: str) -> None:
    fingerprint = ring.generate(name, "anna@kunde.test", NEW)
    exported = ring.export(fingerprint, NEW)
    assert unlocks(exported.secret, NEW) and not unlocks(exported.secret, "")
    other = Home()
    try:
        (other.path / "a").write_text(exported.public)
        shown = other.gpg("--with-colons", "--show-keys", str(other.path / "a"))
    finally:
        other.end()
    uid = next(line.split(":")[9] for line in shown.splitlines() if line.startswith("uid:"))
    assert uid == (f"{name} <anna@kunde.test>" if name else "anna@kunde.test <anna@kunde.test>")
    uses = [line.split(":")[11] for line in shown.splitlines() if line[:4] in ("pub:", "sub:")]
    assert "s" in uses[0] and uses[1] == "e"
    assert agents_of(ring) == []


def test_the_users_own_ring_is_never_changed(
    home: Home, user: UserKeyring, ring: ProfileKeyring
) -> None:
    fingerprint = home.make(passphrase="old")

    def content() -> dict[str, bytes]:
        files = [home.path / "pubring.kbx", *(home.path / "private-keys-v1.d").iterdir()]
        return {path.name: path.read_bytes() for path in files}

    before = content()
    armored, old = user.secret(fingerprint, lambda _: "old")
    ring.add_own(armored, old, NEW, never)
    ring.add_correspondents([user.public(fingerprint).decode()])
    assert content() == before
    assert home.export(fingerprint, "old")


def test_a_ring_is_for_its_owner_alone_and_goes_as_a_whole(ring: ProfileKeyring) -> None:
    ring.generate("Anna", "anna@kunde.test", NEW)
    for path in (folder_of(ring), *folder_of(ring).rglob("*")):
        if path.is_dir():
            assert path.stat().st_mode & 0o077 == 0, path
    ring.destroy()
    assert not folder_of(ring).exists()
    ring.destroy()


def test_addresses_are_found_in_user_ids() -> None:
    ids = ["Anna <Anna@Kunde.test>", "anna@kunde.test", "No Address", "<b@c.test>", "x <a b@c>"]
    assert addresses_of(ids) == ("anna@kunde.test", "b@c.test")


def test_an_own_key_on_a_smartcard_is_refused_as_such(home: Home, user: UserKeyring) -> None:
    fingerprint = home.make()
    for grip in home.keygrips(fingerprint):
        home.move_to_card(grip)
    with pytest.raises(MailboxError) as refused:
        user.secret(fingerprint, never)
    assert refused.value.code == "key-unusable"
    assert "smartcard" in refused.value.brief and CARD in refused.value.brief


def test_a_key_whose_primary_part_is_on_a_card_is_taken(home: Home, user: UserKeyring) -> None:
    fingerprint = home.make("cert", "sign", "encr")
    home.move_to_card(home.keygrips(fingerprint)[0])
    armored, passphrase = user.secret(fingerprint, never)
    assert b"PRIVATE KEY" in armored and passphrase == ""


def test_a_key_without_the_secret_for_decrypting_is_refused(home: Home, user: UserKeyring) -> None:
    fingerprint = home.make()
    (home.path / "private-keys-v1.d" / f"{home.keygrips(fingerprint)[1]}.key").unlink()
    home.restart_agent()
    with pytest.raises(MailboxError) as refused:
        user.secret(fingerprint, never)
    assert "only a stub" in refused.value.brief and "decrypting" in refused.value.brief
