"""Real GnuPG: what a published key tells, and that GnuPG looks for it at the same place."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.host.gnupg import ProfileKeyring
from sandbox.model.errors import MailboxError
from sandbox.model.wkd import hashed

PASSPHRASE = "cGFzc3BocmFzZQ=="
ADDRESS = "Anna.B@kunde.test"


@pytest.fixture
def homes() -> Iterator[tuple[Path, Path]]:
    # Short, because GnuPG puts its sockets there.
    base = Path(tempfile.mkdtemp(prefix="gpg-"))
    other = base / "other"
    other.mkdir(mode=0o700)
    yield base / "ring", other
    subprocess.run(["gpgconf", "--homedir", str(other), "--kill", "all"], check=False)
    ProfileKeyring(base / "ring").destroy()
    shutil.rmtree(base)


def gpg(home: Path, *arguments: str, input: bytes = b"") -> str:
    command = ["gpg", "--homedir", str(home), "--batch", "--no-tty", "--pinentry-mode", "loopback"]
    done = subprocess.run(
        [*command, *arguments], input=input, capture_output=True, check=True, timeout=60
    )
    return done.stdout.decode()


def test_it_tells_one_address_and_is_looked_for_there(homes: tuple[Path, Path]) -> None:
    home, other = homes
    ring = ProfileKeyring(home)
    ring.create()
    fingerprint = ring.generate("Anna", ADDRESS, PASSPHRASE)
    private = "Anna at home <anna@private.test>"
    add = ("--passphrase-fd", "0", "--quick-add-uid", fingerprint, private)
    gpg(home, *add, input=f"{PASSPHRASE}\n".encode())
    assert "private.test" in gpg(home, "--list-keys")
    published = ring.published(fingerprint, ADDRESS)
    assert b"private.test" not in published and b"BEGIN PGP" not in published
    gpg(other, "--import", input=published)
    listed = gpg(other, "--with-wkd-hash", "--list-keys", fingerprint)
    assert f"{hashed('Anna.B')}@kunde.test" in listed and "private.test" not in listed
    assert gpg(other, "--list-secret-keys") == ""
    with pytest.raises(MailboxError) as refused:
        ring.published(fingerprint, "bert@kunde.test")
    assert refused.value.code == "key-unusable"
