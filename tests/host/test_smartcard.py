"""A key on a smartcard: used by a machine through the filter, with the card in, out, and in again.

The card is `openpgp_card`; GnuPG, its scdaemon and pcscd are the real ones.
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.session import Session
from sandbox.host.custody.client import Custodians
from tests.host.conftest import absent, need
from tests.host.openpgp_card import DRIVER, Reader
from tests.host.test_users_own import PASSPHRASE, Machine, Owner, opened

SERIAL = "D276000124010304FF00123456780000"
PERFORM = 0x2A  # the instruction by which a card signs and decrypts
# The primary key to the place for signing, its subkey to the one for encryption (gpg(1)).
MOVE = "keytocard\ny\n1\nkey 1\nkeytocard\n2\nsave\n"


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    need("gpg", "gpgconf", "pcscd", "unshare", "ip")
    if not Path(DRIVER).exists():
        absent(f"{DRIVER} (vsmartcard-vpcd) is not installed")
    if subprocess.run(["unshare", "--map-root-user", "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    # One passphrase for all, as one pinentry answers.
    made = Reader(pin=PASSPHRASE, admin=PASSPHRASE)
    monkeypatch.setenv("PCSCLITE_CSOCK_NAME", str(made.socket))
    made.insert()
    yield made
    made.end()


@pytest.fixture
def owner(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    """A user whose key is on the card, and nowhere else."""
    owner = Owner("rsa2048", "rsa2048")
    monkeypatch.setenv("GNUPGHOME", str(owner.home))
    (owner.home / "scdaemon.conf").write_text("disable-ccid\n")  # no readers of this computer
    owner.forget()
    command = ["gpg", "--homedir", owner.home, "--no-tty", "--command-fd", "0", "--status-fd", "2"]
    edit = [*command, "--edit-key", owner.fingerprint]
    done = subprocess.run(edit, input=MOVE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    owner.person.gpg_command("--card-status")
    (owner.home / "asked").unlink(missing_ok=True)
    yield owner
    owner.forget()
    owner.person.close()


@pytest.fixture
def machine(owner: Owner) -> Iterator[Machine]:
    with opened(owner) as made:
        yield made


def until(true: Callable[[], bool], deadline_s: float = 30) -> None:
    end = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def take_out(reader: Reader, owner: Owner) -> None:
    """Take the card out; scdaemon looks twice a second."""
    command = ["gpg-connect-agent", "--homedir", owner.home, "SCD GETINFO status", "/bye"]
    reader.remove()
    until(lambda: not subprocess.check_output(command).startswith(b"D u"))


def test_it_reads_and_signs_and_the_pin_is_asked_for_once(
    reader: Reader, owner: Owner, machine: Machine
) -> None:
    for file in (owner.home / "private-keys-v1.d").iterdir():
        assert b"shadowed-private-key" in file.read_bytes()
    reader.commands()
    mails = [owner.sealed(f"Brief {number}".encode()) for number in range(3)]
    assert [machine.read(mail) for mail in mails] == [f"Brief {n}".encode() for n in range(3)]
    assert owner.asked == 1
    signed = machine.gpg("--clearsign", "-u", owner.fingerprint, data=b"von mir\n")
    assert owner.person.gpg.verify(signed.stdout).valid
    assert {outcome for _, outcome in machine.uses()} == {"done"}
    assert reader.commands().count(PERFORM) == 4  # by the card, each of them


def test_who_cancels_the_pin_gets_an_error_that_passes(owner: Owner, machine: Machine) -> None:
    mail = owner.sealed(b"Hallo")
    owner.answers("cancel")
    assert machine.read(mail) == b""
    assert machine.uses() == [("decrypt", "locked")]
    owner.answers(PASSPHRASE)
    assert Custodians().allow(machine.folder / "control", 60)
    assert machine.read(mail) == b"Hallo"


def test_a_card_that_was_taken_out_is_an_error_and_serves_when_it_is_back(
    reader: Reader, owner: Owner, machine: Machine
) -> None:
    mail = owner.sealed(b"Hallo")
    assert machine.read(mail) == b"Hallo"
    take_out(reader, owner)
    owner.answers("cancel")  # when asked to put it in, once for all that one mail wants
    asked = owner.asked
    assert [machine.read(mail) for _ in range(3)] == [b""] * 3
    assert owner.asked == asked + 1
    assert [outcome for _, outcome in machine.uses()] == ["done", "locked", "denied"]
    reader.insert()
    owner.answers(PASSPHRASE)
    assert Custodians().allow(machine.folder / "control", 60)
    assert machine.read(mail) == b"Hallo"


def test_who_puts_the_card_in_when_asked_reads_the_mail(
    reader: Reader, owner: Owner, machine: Machine
) -> None:
    mail = owner.sealed(b"Hallo")
    take_out(reader, owner)
    owner.answers("wait")
    read: list[bytes] = []
    reading = threading.Thread(target=lambda: read.append(machine.read(mail)))
    reading.start()
    until(lambda: owner.asked > 0)
    reader.insert()
    owner.answers(PASSPHRASE)
    reading.join(60)
    assert read == [b"Hallo"]


def test_a_mailbox_is_onboarded_with_it_and_says_where_the_key_is(
    reader: Reader, owner: Owner, session: Session
) -> None:
    session.env["GNUPGHOME"] = str(owner.home)
    session.env["PCSCLITE_CSOCK_NAME"] = str(reader.socket)
    held = ("--custody", "host", "--holder", "user", "--key", owner.fingerprint)
    account = ("--address", "anna@kunde.test", "--imap", "imap.kunde.test")
    account += ("--smtp", "smtp.kunde.test", "--offline", "--password-stdin")
    rest = ("--size", "64M", "--no-recovery-code")
    session.mailbox("onboard", "karte", *account, *held, *rest, input=b"word\n")
    shown = json.loads(session.mailbox("keys", "show", "karte", "--json").stdout)
    assert [part["secret"] for part in shown["details"]["parts"]] == [SERIAL, SERIAL]
