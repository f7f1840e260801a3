"""A disk that is really full, with real volumes, keyring, GnuPG on it: scripts/on-small-disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from demo.correspondent import Person
from demo.session import Ran, Session
from sandbox.model.errors import Exit
from tests.host.conftest import absent, need
from tests.host.halting import halting_image
from tests.host.test_keyring_locks import unlock
from tests.host.test_killed import killed_at, names
from tests.host.test_luks import opens, qemu_io
from tests.host.test_recovery import keyring, reads

ADDRESS = "anna@kunde.test"
PASSWORD = b"a-mail-password\n"
KIB = 1024
# No room for a name; some for the journal; much, but less than what is to be written.
ROOMS = (0, 12 * KIB, 160 * KIB)


@dataclass
class World:
    session: Session
    bert: Path
    fingerprint: str
    ballast: Path
    codes: list[str] = field(default_factory=list)

    @contextmanager
    def filled(self, room: int) -> Iterator[None]:
        """Leave so many bytes on the disk, and no more, for a while."""
        try:
            self._fill(room)
            yield
        finally:
            self.ballast.unlink()

    def _fill(self, room: int) -> None:
        with self.ballast.open("wb", buffering=0) as file:
            with suppress(OSError):
                while file.write(bytes(64 * KIB)):
                    pass
            file.truncate(max(0, file.tell() - room))

    def volume(self, name: str) -> Path:
        return self.session.home / "data" / "volumes" / f"{name}.luks"

    def volume_key(self, name: str) -> bytes:
        """As the keyring has it after the next login: what it did not write down is lost."""
        unlock(self.session)
        identity = self.session.mailbox("show", name, "--json").text.split('"id": "')[1][:36]
        program = "import sys; sys.stdout.buffer.write(item.get_secret())"
        return keyring(self.session, f"if name == '{identity}/volume-key': {program}")

    def onboard(self, name: str, *, check: bool = True) -> Ran:
        account = ("--address", ADDRESS, "--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test")
        how = ("--offline", "--password-stdin", "--size", "64M", "--generate-key")
        paper = self.session.runtime / f"paper-{name}-{len(self.codes)}"
        self.codes.append(str(paper))
        code = ("--recovery-code-to", str(paper))
        return self.session.mailbox(
            "onboard", name, *account, *how, *code, input=PASSWORD, check=check
        )


@pytest.fixture(scope="module")
def world(runtime: Path) -> Iterator[World]:
    need("qemu-img", "qemu-io", "gpg", "cryptsetup")
    if "SMALL_DISK" not in os.environ:
        absent("there is no small disk: scripts/on-small-disk pytest tests/host/test_full_disk.py")
    disk = Path(os.environ["SMALL_DISK"])
    with Session(disk / "session", runtime=runtime) as session, Person("Bert", "b@p.test") as bert:
        session.env["MAILBOX_LIBVIRT_URI"] = "test:///default"
        key = runtime / "bert.asc"
        key.write_text(bert.public_key())
        yield World(session, key, bert.fingerprint, disk / "ballast")


def kept(world: World) -> list[bytes]:
    """What the keyring has of all mailboxes, in no order of its own."""
    return sorted(keyring(world.session, "print(name)").split())


def used(world: World, name: str) -> None:
    """A mailbox with something on its volume."""
    world.onboard(name)
    key = world.volume_key(name)
    assert qemu_io(world.volume(name), key, "write -P 7 1M 64k").returncode == 0
    (world.volume(name).with_suffix(".blank")).unlink()


def mailbox(world: World, command: str, name: str, *, check: bool = False) -> Ran:
    """A command in which BERT is a file with a key, and PAPER a new sheet for a code."""
    paper = str(world.session.runtime / f"new-{len(world.codes)}")
    world.codes.append(paper)
    meant = {"NAME": name, "BERT": str(world.bert), "PAPER": paper}
    return world.session.mailbox(*(meant.get(each, each) for each in command.split()), check=check)


# Each with what makes it undone, so that it can be done again.
VERBS = {
    "keys add NAME BERT": "keys remove NAME {bert}",
    "header-backup NAME": "header-backup NAME --remove",
    "recovery-code NAME --replace --recovery-code-to PAPER": "",
    "close NAME": "",
}


@pytest.fixture(scope="module")
def mail(world: World) -> str:
    """A mailbox that is used by all the verbs."""
    used(world, "mail")
    return "mail"


def assert_told(ran: Ran, where: str) -> None:
    """It worked, or says in a sentence that there was no room, and what to do."""
    assert "Traceback" not in ran.stderr, f"{where}: {ran.stderr}"
    allowed = (0, Exit.NO_SPACE, Exit.KEYRING, Exit.KEYS, Exit.HOST)
    assert ran.returncode in allowed, f"{where}: {ran.returncode}: {ran.stderr}"
    if ran.returncode:
        assert ". " in ran.stderr or "\n" in ran.stderr.strip(), f"{where}: {ran.stderr}"


def assert_gone(world: World, name: str, where: str) -> None:
    world.session.mailbox("shred", name, "--yes")
    assert name not in names(world.session), where
    left = [path for path in world.session.home.rglob(f"*{name}*") if path.suffix != ".json"]
    assert {path.parent.name for path in left} <= {"journal", "locks"}, f"{where}: {left}"


@pytest.mark.parametrize("room", ROOMS)
@pytest.mark.parametrize("verb", VERBS)
def test_no_mail_is_lost(world: World, mail: str, verb: str, room: int) -> None:
    where = f"{verb} with room for {room}"
    with world.filled(room):
        assert_told(mailbox(world, verb, mail), where)
    world.session.mailbox("repair")
    assert reads(world.volume(mail), world.volume_key(mail)), where
    mailbox(world, verb, mail, check=True)
    if VERBS[verb]:
        mailbox(world, VERBS[verb].format(bert=world.fingerprint), mail, check=True)
    assert reads(world.volume(mail), world.volume_key(mail)), where


@pytest.mark.parametrize("room", (*ROOMS, 2560 * KIB))
def test_an_onboarding_is_whole_or_undone(world: World, room: int) -> None:
    name, where = f"onboard-{room}", f"onboard with room for {room}"
    items = kept(world)
    with world.filled(room):
        ran = world.onboard(name, check=False)
    assert_told(ran, where)
    world.session.mailbox("repair")
    if ran.returncode:
        assert name not in names(world.session) and not world.volume(name).exists(), where
        unlock(world.session)
        assert kept(world) == items, where
        world.onboard(name)
    assert opens(world.volume(name), world.volume_key(name)), where
    assert_gone(world, name, where)
    assert kept(world) == items, where


@pytest.mark.parametrize("room", ROOMS)
def test_a_shredding_goes_on_to_its_end(world: World, room: int) -> None:
    name, where = f"shred-{room}", f"shred with room for {room}"
    items = kept(world)
    used(world, name)
    key, begun = world.volume_key(name), world.volume(name).read_bytes()[: 2 * KIB * KIB]
    with world.filled(room):
        ran = world.session.mailbox("shred", name, "--yes", check=False)
        assert_told(ran, where)
        if world.volume(name).exists():
            # Either nothing was destroyed yet, or its key can open it no more.
            untouched = world.volume(name).read_bytes()[: 2 * KIB * KIB] == begun
            assert untouched or not opens(world.volume(name), key), where
    world.session.mailbox("repair")
    if name in names(world.session):
        assert reads(world.volume(name), world.volume_key(name)), where
        world.session.mailbox("shred", name, "--yes")
    assert name not in names(world.session) and not world.volume(name).exists(), where
    unlock(world.session)
    assert kept(world) == items, where


def test_an_open_is_undone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real machine, which needs no room; what it is told to write does."""
    need("qemu-system-x86_64", "libvirtd")
    halting_image(world.session.home / "data" / "images")
    used(world, "halted")
    monkeypatch.delitem(world.session.env, "MAILBOX_LIBVIRT_URI")
    for room in ROOMS:
        with world.filled(room):
            # Where there is room enough, it waits for a guest that never answers.
            killed = killed_at(world.session, "channel", "open", "halted", "--headless")
            assert room or not killed
            closed = world.session.mailbox("close", "halted", check=False)
            assert_told(closed, f"close with room for {room}")
        world.session.mailbox("close", "halted")
        assert names(world.session)["halted"] == "closed"
        assert reads(world.volume("halted"), world.volume_key("halted"))
    assert_gone(world, "halted", "open")
