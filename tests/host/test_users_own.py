"""A key that the user's own GnuPG holds: used through the filter, never copied, asked for once."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.correspondent import Person, public_home
from sandbox.channel import assuan
from sandbox.host import agents
from sandbox.host.custody.client import Custodians
from sandbox.host.custody.keygrips import read_grips
from sandbox.model.errors import MailboxError
from sandbox.state.activity import Activity
from tests.host.conftest import need

PASSPHRASE = "correct horse"
# Asks nobody: it does what the file `manner` beside it says, and counts in `asked`.
PINENTRY = """#!/usr/bin/python3
import pathlib, sys, time
here = pathlib.Path(__file__).parent
say = lambda line: print(line, flush=True)
say("OK ready")
for line in sys.stdin:
    word = line.split()[0].upper() if line.split() else ""
    if word in ("GETPIN", "CONFIRM"):
        with (here / "asked").open("a") as file:
            file.write(word + "\\n")
        manner = (here / "manner").read_text()
        while manner == "wait":
            time.sleep(0.05)
            manner = (here / "manner").read_text()
        if manner == "cancel":
            say("ERR 83886179 Operation cancelled <Pinentry>")
        else:
            say("D " + manner) if word == "GETPIN" else None
            say("OK")
    elif word == "BYE":
        say("OK")
        break
    else:
        say("OK")
"""


class Owner:
    """A user whose GnuPG protects a key with a passphrase, and who answers a pinentry."""

    def __init__(self, signing: str = "ed25519", encrypting: str = "cv25519") -> None:
        self.person = Person("Anna Kundin", "anna@kunde.test", key="")
        self.home = self.person.home
        settings = ("--pinentry-mode", "loopback", "--passphrase", PASSPHRASE)
        made = ("--quick-gen-key", self.person.sender, signing, "sign", "1y")
        (self.home / "gpg-agent.conf").write_text("allow-loopback-pinentry\n")
        self.person.gpg_command(*settings, *made)
        self.fingerprint = self.person.fingerprint = self.person._own_key()
        more = ("--quick-add-key", self.fingerprint, encrypting, "encrypt", "1y")
        self.person.gpg_command(*settings, *more)
        self.answers(PASSPHRASE)
        self.use_pinentry(self.home / "pinentry")

    def use_pinentry(self, program: Path) -> None:
        self.home.joinpath("pinentry").write_text(PINENTRY)
        self.home.joinpath("pinentry").chmod(0o700)
        (self.home / "gpg-agent.conf").write_text(f"pinentry-program {program}\n")
        self.forget()

    def answers(self, manner: str) -> None:
        draft = self.home / "manner.new"
        draft.write_text(manner)
        draft.rename(self.home / "manner")

    @property
    def asked(self) -> int:
        path = self.home / "asked"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def forget(self) -> None:
        """End the agent, and with it all that it remembers."""
        agents.end(self.home)

    def sealed(self, text: bytes) -> bytes:
        encrypt = self.person.gpg.encrypt
        return bytes(encrypt(text, [self.fingerprint], always_trust=True).data)

    def files(self) -> dict[str, int]:
        """What rests in the home, and when it was changed."""
        kept = [path for path in self.home.rglob("*") if stat.S_ISREG(path.stat().st_mode)]
        mine = [path for path in kept if path.name not in ("asked", "manner")]
        # gpg makes the file of random numbers anew whenever it ends.
        return {str(p): p.stat().st_mtime_ns for p in mine if p.name not in ("random_seed",)}


class Machine:
    """What a machine has: public keys, and a custodian's socket instead of an agent."""

    def __init__(self, owner: Owner, name: str, **rules: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="own-"))
        self.home = self.folder / "gnupg"
        self._config = {
            key: str(self.folder / key)
            for key in ("socket", "control", "log_file", "activity", "turns")
        } | {"profile_id": str(uuid.uuid4()), "name": name, "fingerprint": owner.fingerprint}
        self._rules = {"decrypt": "allow", "sign": "allow"} | rules
        public_home(self.home, owner.person.public_key(), self.socket)

    @property
    def socket(self) -> Path:
        return self.folder / "socket"

    def open(self) -> None:
        Custodians().start({**self._config, **self._rules, "home": None})

    def close(self) -> None:
        Custodians().stop(self.folder / "control")

    def gpg(self, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--yes", "--status-fd", "2"]
        return subprocess.run(
            [*command, *arguments], input=data, capture_output=True, check=False, timeout=150
        )

    def read(self, mail: bytes) -> bytes:
        return self.gpg("--decrypt", data=mail).stdout

    def uses(self) -> list[tuple[str, str]]:
        return [(use.operation, use.outcome) for use in Activity(self.folder / "activity").read()]


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    need("gpg", "gpgconf")
    owner = Owner()
    # The custodian finds the user's GnuPG as any program of the user does.
    monkeypatch.setenv("GNUPGHOME", str(owner.home))
    yield owner
    owner.person.close()


@contextmanager
def opened(owner: Owner) -> Iterator[Machine]:
    """A machine that may use the owner's key."""
    made = Machine(owner, "kunde")
    made.open()
    yield made
    made.close()
    shutil.rmtree(made.folder, ignore_errors=True)


@pytest.fixture
def machine(owner: Owner) -> Iterator[Machine]:
    with opened(owner) as made:
        yield made


def test_the_users_agent_works_for_a_machine_and_is_left_as_it_was(owner: Owner) -> None:
    mail = owner.sealed(b"Hallo")
    owner.person.gpg_command("--list-secret-keys")
    before = owner.files()
    machine = Machine(owner, "kunde")
    machine.open()
    assert machine.read(mail) == b"Hallo"
    signed = machine.gpg("--clearsign", "-u", owner.fingerprint, data=b"von mir\n")
    assert owner.person.gpg.verify(signed.stdout).valid
    machine.close()
    assert owner.files() == before
    secrets = [path.read_bytes() for path in (owner.home / "private-keys-v1.d").iterdir()]
    assert len(secrets) == 2
    for path in machine.folder.rglob("*"):
        if path.is_file() and not path.is_socket():
            assert not [part for part in secrets if part[-64:-16] in path.read_bytes()], path
    # It was there before, so it is there afterwards.
    alive = ["gpg-connect-agent", "--no-autostart", "--homedir", str(owner.home), "/bye"]
    assert subprocess.run(alive, check=False, capture_output=True).returncode == 0
    shutil.rmtree(machine.folder, ignore_errors=True)


def test_several_mails_ask_for_the_passphrase_once(owner: Owner, machine: Machine) -> None:
    mails = [owner.sealed(f"Brief {number}".encode()) for number in range(5)]
    assert [machine.read(mail) for mail in mails] == [f"Brief {n}".encode() for n in range(5)]
    assert owner.asked == 1


def test_who_cancels_is_not_asked_again_for_the_same_mail(owner: Owner, machine: Machine) -> None:
    owner.answers("cancel")
    mail = owner.sealed(b"Hallo")
    assert [machine.read(mail) for _ in range(5)] == [b""] * 5
    assert owner.asked == 1
    assert machine.uses()[0] == ("decrypt", "locked")
    owner.answers(PASSPHRASE)
    assert Custodians().allow(machine.folder / "control", 60)
    assert machine.read(mail) == b"Hallo"


def test_a_pinentry_without_a_display_is_an_error_that_passes(
    owner: Owner, machine: Machine
) -> None:
    owner.use_pinentry(owner.home / "not-there")
    mail = owner.sealed(b"Hallo")
    assert machine.read(mail) == b""
    assert machine.uses() == [("decrypt", "no pinentry")]
    owner.use_pinentry(owner.home / "pinentry")
    assert machine.read(mail) == b"Hallo"


def test_an_agent_that_dies_while_it_asks_is_an_error_that_passes(
    owner: Owner, machine: Machine
) -> None:
    mail = owner.sealed(b"Hallo")
    owner.answers("wait")
    read: list[bytes] = []
    reading = threading.Thread(target=lambda: read.append(machine.read(mail)))
    reading.start()
    while not owner.asked:
        time.sleep(0.05)
    going = agents.of(owner.home)
    assert going
    for pid in going:
        os.kill(pid, signal.SIGKILL)
    reading.join(60)
    assert read == [b""] and machine.uses()[-1] == ("decrypt", "no agent")
    owner.answers(PASSPHRASE)
    assert machine.read(mail) == b"Hallo"


def test_an_agent_that_ended_between_two_mails_is_not_noticed(
    owner: Owner, machine: Machine
) -> None:
    mail = owner.sealed(b"Hallo")
    assert machine.read(mail) == b"Hallo"
    owner.forget()
    assert machine.read(mail) == b"Hallo"
    assert {outcome for _, outcome in machine.uses()} == {"done"}


def test_a_machine_that_hangs_up_in_the_middle_harms_nobody(owner: Owner, machine: Machine) -> None:
    mail = owner.sealed(b"Hallo")
    grip = read_grips(owner.home, owner.fingerprint).sign[0]
    owner.answers("wait")
    with socket.socket(socket.AF_UNIX) as sock:  # the channel breaks while the user is asked
        sock.connect(str(machine.socket))
        sock.sendall(f"SIGKEY {grip}\nSETHASH 8 {'00' * 32}\nPKSIGN\n".encode())
        while not owner.asked:
            time.sleep(0.05)
    owner.answers(PASSPHRASE)
    assert machine.read(mail) == b"Hallo"


def test_two_machines_use_one_key_at_the_same_time(owner: Owner, machine: Machine) -> None:
    other = Machine(owner, "anderer")
    other.open()
    mails = [owner.sealed(f"Brief {number}".encode()) for number in range(6)]
    read: dict[tuple[str, int], bytes] = {}

    def work(name: str, which: Machine, number: int) -> None:
        read[name, number] = which.read(mails[number])

    threads = [
        threading.Thread(target=work, args=(name, which, number))
        for number in range(6)
        for name, which in (("kunde", machine), ("anderer", other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {(x, n): f"Brief {n}".encode() for x in ("kunde", "anderer") for n in range(6)}
    assert read == expected
    assert owner.asked <= 2  # each machine once, when both begin at the same moment
    other.close()
    assert machine.read(mails[0]) == b"Brief 0"
    shutil.rmtree(other.folder, ignore_errors=True)


def test_a_key_that_is_not_there_is_told_before_a_machine_starts(owner: Owner) -> None:
    shutil.rmtree(owner.home / "private-keys-v1.d")
    owner.forget()
    machine = Machine(owner, "kunde")
    with pytest.raises(MailboxError) as caught:
        machine.open()
    assert caught.value.code == "key-not-here" and "your own GnuPG" in caught.value.brief
    assert not machine.socket.exists()
    shutil.rmtree(machine.folder, ignore_errors=True)


# -- a smartcard ----------------------------------------------------------------------------------


def put_on_a_card(owner: Owner) -> None:
    """Leave of the decryption key what GnuPG keeps of one on a card: its public part and a serial.

    The card itself cannot be had here (gnupg, agent/keyformat.txt, "Shadowed Private Key Format").
    """
    grip = read_grips(owner.home, owner.fingerprint).decrypt[0]
    place = ["gpgconf", "--homedir", str(owner.home), "--list-dirs", "agent-socket"]
    path = subprocess.run(place, check=True, capture_output=True, text=True).stdout.strip()
    with socket.socket(socket.AF_UNIX) as sock, sock.makefile("rwb") as agent:
        sock.connect(path)
        agent.readline()
        agent.write(f"READKEY {grip}\n".encode())
        agent.flush()
        public = assuan.unescape(agent.readline().removeprefix(b"D ").rstrip(b"\n"))
    serial = bytes.fromhex("D2760001240102000005000012340000")
    shadow = b"(8:shadowed5:t1-v1(16:" + serial + b"9:OPENPGP.2))"
    private = public.replace(b"(10:public-key", b"(20:shadowed-private-key", 1)
    assert private.endswith(b"))") and private != public
    file = owner.home / "private-keys-v1.d" / f"{grip}.key"
    file.write_bytes(private[:-2] + shadow + b"))")
    owner.forget()


@pytest.mark.parametrize("asks", [True, False])
def test_a_card_that_is_not_there_is_an_error_and_the_rest_works(owner: Owner, asks: bool) -> None:
    mail = owner.sealed(b"Hallo")
    owner.person.gpg_command("--list-secret-keys")
    put_on_a_card(owner)
    listed = owner.person.gpg_command("--with-colons", "--list-secret-keys")
    assert "D2760001240102000005000012340000" in listed
    machine = Machine(owner, "kunde")
    machine.open()
    owner.answers("cancel")
    if not asks:
        owner.use_pinentry(owner.home / "not-there")
    assert [machine.read(mail) for _ in range(3)] == [b""] * 3
    outcomes = {outcome for _, outcome in machine.uses()}
    assert outcomes <= {"no card", "locked", "no pinentry", "denied", "failed"}
    assert owner.asked <= int(asks)
    owner.answers(PASSPHRASE)
    owner.use_pinentry(owner.home / "pinentry")
    signed = machine.gpg("--clearsign", "-u", owner.fingerprint, data=b"von mir\n")
    assert owner.person.gpg.verify(signed.stdout).valid
    machine.close()
    shutil.rmtree(machine.folder, ignore_errors=True)
