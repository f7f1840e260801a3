"""People with GnuPG: key rings of their own, signed and encrypted mail, and what they can read."""

from __future__ import annotations

import email
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import gnupg

from demo import letters
from sandbox.host import agents


class GnuPGError(Exception):
    """GnuPG did not do what was asked of it."""


@dataclass(frozen=True)
class Reading:
    """What a person's GnuPG says about an encrypted message."""

    encrypted: bool
    decrypted: bool
    signature: str  # good | bad | unknown-key | none
    signer: str | None  # fingerprint of the signer's primary key
    validity: str  # GnuPG's trust in that key, such as ultimate, full, undefined
    recipients: tuple[str, ...]  # key identifiers that it was encrypted to
    subject: str
    text: str
    outer_subject: str


def public_home(home: Path, public_key: str, agent: Path) -> None:
    """Make a GnuPG home as a machine has it: no secret key, and somebody's agent at a socket.

    GnuPG follows a file in the place of its agent's socket (libassuan, "socket redirection"). It is
    there before gpg is: an agent of this home would take it along when it ends.
    """
    home.mkdir(mode=0o700)
    (home / "gpg.conf").write_text("no-autostart\ntrust-model always\n")
    gnupg = ["--homedir", str(home)]
    listing = ["gpgconf", *gnupg, "--list-dirs", "agent-socket"]
    place = subprocess.run(listing, check=True, capture_output=True, text=True).stdout.strip()
    Path(place).write_text(f"%Assuan%\nsocket={agent}\n")
    command = ["gpg", *gnupg, "--batch", "--quiet", "--import"]
    subprocess.run(command, input=public_key.encode(), check=True)


class Person:
    """A mail user with a GnuPG home; use as a context manager, its agent ends with it."""

    def __init__(
        self, name: str, address: str, *, home: Path | None = None, key: str = "new"
    ) -> None:
        self.name = name
        self.address = address
        self._temporary = home is None
        # Short, because GnuPG puts its sockets there.
        self.home = home or Path(tempfile.mkdtemp(prefix="gpg-"))
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.home.chmod(0o700)
        self.gpg = gnupg.GPG(gnupghome=str(self.home))
        self.gpg.encoding = "utf-8"
        self.fingerprint = self._own_key() or (self._generate() if key == "new" else "")

    @property
    def sender(self) -> str:
        """Name and address as in a From header."""
        return f"{self.name} <{self.address}>"

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the home's GnuPG processes; remove the home if it was made for this person."""
        agents.end(self.home)
        if self._temporary:
            shutil.rmtree(self.home, ignore_errors=True)

    def public_key(self) -> str:
        """The own public key, armored."""
        return str(self.gpg.export_keys(self.fingerprint))

    def secret_key(self) -> str:
        """The own secret key, armored and without a passphrase."""
        return str(self.gpg.export_keys(self.fingerprint, secret=True, expect_passphrase=False))

    def learn(self, public_key: str, *, certify: bool = False) -> str:
        """Import somebody's public key, certify it if wanted; returns its fingerprint."""
        fingerprint = str(self.gpg.import_keys(public_key).fingerprints[0])
        if certify:
            self.gpg_command("-u", self.fingerprint, "--quick-lsign-key", fingerprint)
        return fingerprint

    def letter(
        self, to: Person, subject: str, text: str, *, sign: bool = True, claim: str | None = None
    ) -> bytes:
        """A message encrypted to `to` and to oneself, signed, with its subject protected.

        `claim` is another sender to pretend to be.
        """
        sender = claim or self.sender
        self.learn(to.public_key())
        inner = letters.to_protect(sender, to.sender, subject, text)
        result = self.gpg.encrypt(
            inner,
            [to.fingerprint, self.fingerprint],
            sign=self.fingerprint if sign else False,
            always_trust=True,
        )
        if not result.ok:
            raise GnuPGError(f"{self.address} could not encrypt: {result.status}")
        return letters.encrypted(sender, to.sender, str(result))

    def read(self, message: bytes) -> Reading:
        """Decrypt a message and check its signature."""
        outer = email.message_from_bytes(message, policy=SMTP)
        assert isinstance(outer, EmailMessage)
        subject = str(outer["Subject"] or "")
        armored = _ciphertext(outer)
        if armored is None:
            return Reading(False, False, "none", None, "", (), subject, _text(outer), subject)
        result = self.gpg.decrypt(armored, always_trust=False)
        inner = email.message_from_bytes(result.data or b"", policy=SMTP)
        assert isinstance(inner, EmailMessage)
        signed = self._verify_within(result.data or b"", inner) or result
        return Reading(
            encrypted=True,
            decrypted=bool(result.ok),
            signature=_signature(signed),
            signer=signed.pubkey_fingerprint or signed.fingerprint or None,
            validity=(signed.trust_text or "").removeprefix("TRUST_").lower(),
            recipients=_recipients(result.stderr),
            subject=str(inner["Subject"] or subject),
            text=_text(inner),
            outer_subject=subject,
        )

    def _verify_within(self, plaintext: bytes, inner: EmailMessage) -> Any:
        """Check a signature that was made before encrypting (RFC 3156, 6.1), as Evolution does."""
        if inner.get_content_type() != "multipart/signed":
            return None
        separator = b"--" + str(inner.get_boundary()).encode()
        signed = b"\r\n".join(plaintext.splitlines()).split(separator)[1]
        signature = list(inner.iter_parts())[1].get_payload(decode=True)
        with tempfile.TemporaryDirectory() as folder:
            text, detached = Path(folder) / "text", Path(folder) / "text.asc"
            text.write_bytes(signed.removeprefix(b"\r\n").removesuffix(b"\r\n"))
            detached.write_bytes(signature)  # type: ignore[arg-type]
            with detached.open("rb") as file:
                return self.gpg.verify_file(file, str(text))

    def gpg_command(self, *arguments: str) -> str:
        """Run gpg in this home."""
        done = subprocess.run(
            ["gpg", "--homedir", str(self.home), "--batch", "--yes", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise GnuPGError(done.stderr.strip())
        return done.stdout

    def _own_key(self) -> str:
        mine = [key for key in self.gpg.list_keys(True) if self.address in str(key["uids"])]
        return str(mine[0]["fingerprint"]) if mine else ""

    def _generate(self) -> str:
        settings = self.gpg.gen_key_input(
            name_real=self.name,
            name_email=self.address,
            key_type="EDDSA",
            key_curve="ed25519",
            key_usage="sign,cert",
            subkey_type="ECDH",
            subkey_curve="cv25519",
            subkey_usage="encrypt",
            expire_date="1y",
            no_protection=True,
        )
        made = self.gpg.gen_key(settings)
        if not made.fingerprint:
            raise GnuPGError(f"no key for {self.address}: {made.stderr}")
        return str(made.fingerprint)


def _ciphertext(outer: EmailMessage) -> str | None:
    if outer.get_content_type() != "multipart/encrypted":
        return None
    parts: Sequence[EmailMessage] = list(outer.iter_parts())  # type: ignore[arg-type]
    return parts[1].get_payload(decode=True).decode("ascii") if len(parts) == 2 else None  # type: ignore[union-attr]


def _signature(result: gnupg.Crypt) -> str:
    if result.valid:
        return "good"
    if "NO_PUBKEY" in result.stderr:
        return "unknown-key"
    return "bad" if "BADSIG" in result.stderr else "none"


def _recipients(status: str) -> tuple[str, ...]:
    lines = (line.split() for line in status.splitlines() if "[GNUPG:] ENC_TO" in line)
    return tuple(words[2] for words in lines)


def _text(message: EmailMessage) -> str:
    body = message.get_body(("plain", "html"))
    return str(body.get_content()).replace("\r\n", "\n") if body is not None else ""
