"""Evolution's certificate database: real NSS tools, with the file that the host sends."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from demo.guestcode import guest_module
from demo.smime import SmimeAuthority, SmimePerson, verified
from sandbox.host import pkcs12
from tests.host.conftest import need

Json = dict[str, Any]
PASSPHRASE = "bmV3LXBhc3NwaHJhc2U="
ADDRESS = "anna@kunde.test"


@pytest.fixture(scope="module")
def authority() -> SmimeAuthority:
    return SmimeAuthority()


class Guest:
    """A guest's home with its certificate database."""

    def __init__(self, folder: Path) -> None:
        need("certutil", "pk12util")
        self.home, self.memory = folder / "home", folder / "run"
        self.memory.mkdir()
        self.module: ModuleType = guest_module("evolution", "evolution_smime", {})
        self.certificates = self.module.Certificates(self.home, self.memory)
        self.database = self.home / ".pki/nssdb"

    def listed(self, *options: str) -> str:
        command = ["certutil", *options, "-d", f"sql:{self.database}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def usable(self, wish: Json) -> bool:
        """Whether NSS finds the certificate good for signing mail."""
        name = self.module.nickname(wish)
        return "certificate is valid" in self.listed("-V", "-u", "S", "-n", name)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


def wish(person: SmimePerson, *trusted: str) -> Json:
    facts, locked = pkcs12.take(person.pkcs12("old"), lambda _: "old", PASSPHRASE)
    return {
        "fingerprint": facts.fingerprint,
        "certificate": facts.pem,
        "pkcs12": base64.b64encode(locked).decode(),
        "passphrase": PASSPHRASE,
        "signs": True,
        "encrypts": True,
        "ca": list(trusted),
    }


def test_certificate_and_key_are_there_and_can_sign(
    guest: Guest, authority: SmimeAuthority
) -> None:
    wanted = wish(authority.issue(ADDRESS), authority.pem)
    guest.certificates.apply(wanted)
    assert guest.usable(wanted)
    assert guest.module.nickname(wanted) in guest.listed("-L")
    assert guest.listed("-K").count("rsa") == 1
    assert list(guest.memory.iterdir()) == []
    before = (guest.database / "key4.db").read_bytes()
    guest.certificates.apply(wanted)
    assert (guest.database / "key4.db").read_bytes() == before


def test_nobody_is_trusted_unasked(guest: Guest, authority: SmimeAuthority) -> None:
    wanted = wish(authority.issue(ADDRESS))
    guest.certificates.apply(wanted)
    assert guest.module.nickname(wanted) in guest.listed("-L") and not guest.usable(wanted)
    guest.certificates.apply({**wanted, "ca": [authority.pem]})
    assert guest.usable(wanted)
    guest.certificates.apply(wanted)
    assert not guest.usable(wanted)


def test_another_takes_its_place_and_none_leaves_no_key(
    guest: Guest, authority: SmimeAuthority
) -> None:
    first, second = (wish(authority.issue(ADDRESS), authority.pem) for _ in range(2))
    guest.certificates.apply(first)
    guest.certificates.apply(second)
    assert guest.usable(second) and guest.module.nickname(first) not in guest.listed("-L")
    assert guest.listed("-K").count("rsa") == 1
    guest.certificates.apply(None)
    assert "rsa" not in guest.listed("-K") and "mailbox " not in guest.listed("-L")
    guest.certificates.apply(None)


def test_without_a_wish_no_database_is_made(guest: Guest) -> None:
    guest.certificates.apply(None)
    assert not guest.database.exists()


def test_a_wrong_passphrase_is_a_failure(guest: Guest, authority: SmimeAuthority) -> None:
    wanted = {**wish(authority.issue(ADDRESS)), "passphrase": "wrong"}
    with pytest.raises(guest.module.CertificateFailureError):
        guest.certificates.apply(wanted)
    assert list(guest.memory.iterdir()) == []
    shutil.rmtree(guest.database)


# Evolution's own library, with the database and the name that the account's settings have.
CAMEL = """
import os, sys
import gi
gi.require_version("Camel", "1.2")
from gi.repository import Camel
folder, name, sealed = sys.argv[1:]
Camel.init(folder, True)
class Session(Camel.Session):
    pass
context = Camel.SMIMEContext.new(Session(user_data_dir=folder, user_cache_dir=folder))
letter, signed, opened = Camel.MimePart(), Camel.MimePart(), Camel.MimePart()
letter.set_content(b"Guten Tag\\n", "text/plain")
context.sign_sync(name, Camel.CipherHash.SHA256, letter, signed, None)
message = Camel.MimeMessage()
message.construct_from_input_stream_sync(
    __import__("gi.repository.Gio", fromlist=["Gio"]).File.new_for_path(sealed).read(None), None)
context.decrypt_sync(message, opened, None)
for part in (signed, opened):
    memory = Camel.StreamMem.new()
    part.write_to_stream_sync(memory, None)
    os.write(1, memory.get_byte_array() + b"\\n=====\\n")
os._exit(0)  # its end frees the session twice
"""


def test_evolutions_own_library_signs_and_reads(
    guest: Guest, authority: SmimeAuthority, tmp_path: Path
) -> None:
    python = ["/usr/bin/python3", "-c"]
    known = "import gi; gi.require_version('Camel', '1.2'); from gi.repository import Camel"
    if subprocess.run([*python, known], capture_output=True, check=False).returncode:
        pytest.skip("gir1.2-camel-1.2 is not installed")
    anna, bert = authority.issue(ADDRESS), authority.issue("bert@partner.test")
    wanted = wish(anna, authority.pem)
    guest.certificates.apply(wanted)
    sealed = tmp_path / "sealed.eml"
    sealed.write_bytes(bert.letter(ADDRESS, "Sealed", "Geheim 4711", anna))
    command = [*python, CAMEL, str(tmp_path), guest.module.nickname(wanted), str(sealed)]
    environment = {"HOME": str(guest.home), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    signed, opened, _ = done.stdout.split(b"\n=====\n")
    assert verified(signed, [authority.pem]) is not None, done.stderr
    assert b"Geheim 4711" in opened and b"pkcs7-signature" in opened
