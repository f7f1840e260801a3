"""A mailbox brought back for real: keyring lost, and on another computer from volume and code."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo.correspondent import Person
from demo.session import Session
from tests.host.conftest import need
from tests.host.test_luks import opens, qemu_io

ADDRESS = "anna@kunde.test"
PASSWORD = "a-mail-password"
ACCOUNT = (
    *("--address", ADDRESS, "--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test"),
    *("--offline", "--password-stdin"),
)


@dataclass
class World:
    session: Session
    anna: Person
    volume: Path
    paper: Path

    @property
    def code(self) -> str:
        return self.paper.read_text().strip()

    def recover(self, session: Session, *arguments: str) -> dict[str, object]:
        both = f"{self.code.lower()}\n{PASSWORD}\n".encode()
        given = ("recover", "a", "--code-stdin", "--password-stdin", "--json", *arguments)
        return dict(json.loads(session.mailbox(*given, input=both).stdout)["facts"])


@pytest.fixture(scope="module")
def world(session: Session) -> Iterator[World]:
    """A mailbox whose volume has been written to."""
    need("qemu-img", "qemu-io", "gpg", "cryptsetup")
    session.env["MAILBOX_LIBVIRT_URI"] = "test:///default"
    paper = session.root / "paper"
    with Person("Anna", ADDRESS, home=Path(session.env["GNUPGHOME"])) as anna:
        given = ("--size", "64M", "--key", anna.fingerprint, "--recovery-code-to", str(paper))
        session.mailbox("onboard", "a", *ACCOUNT, *given, input=PASSWORD.encode())
        made = World(session, anna, session.home / "data" / "volumes" / "a.luks", paper)
        assert (
            qemu_io(made.volume, secret(session, "volume-key"), "write -P 7 1M 64k").returncode == 0
        )
        (session.home / "data" / "volumes" / "a.blank").unlink()
        yield made


def keyring(session: Session, action: str) -> bytes:
    """What a program of the user's finds in the keyring, or does to it."""
    program = (
        "import secretstorage, sys\n"
        "bus = secretstorage.dbus_init()\n"
        "for item in secretstorage.search_items(bus, {'service': 'mailbox'}):\n"
        f"    name = item.get_attributes().get('username', '')\n    {action}\n"
    )
    return session.run([sys.executable, "-c", program]).stdout


def secret(session: Session, kind: str) -> bytes:
    show = "sys.stdout.buffer.write(item.get_secret())"
    return keyring(session, f"if name.endswith('/{kind}'): {show}")


def reads(volume: Path, key: bytes) -> bool:
    return qemu_io(volume, key, "read -P 7 1M 64k").returncode == 0


def test_a_lost_keyring(world: World) -> None:
    old = secret(world.session, "volume-key")
    keyring(world.session, "item.delete()")
    assert secret(world.session, "volume-key") == b""
    facts = world.recover(world.session)
    new = secret(world.session, "volume-key")
    assert new and new != old and reads(world.volume, new)
    assert not opens(world.volume, old) and opens(world.volume, world.code.encode())
    assert facts["fingerprint"] == world.anna.fingerprint
    assert secret(world.session, "mail-password") == PASSWORD.encode()
    ring = world.session.home / "data" / "keys"
    assert [path.name for path in ring.iterdir()] == ["a"]


def test_another_computer(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    before = world.volume.read_bytes()
    with Session(tmp_path_factory.mktemp("other")) as other:
        other.env["MAILBOX_LIBVIRT_URI"] = "test:///default"
        world.recover(other, "--volume", str(world.volume), *ACCOUNT)
        copy = other.home / "data" / "volumes" / "a.luks"
        key = secret(other, "volume-key")
        assert key != secret(world.session, "volume-key")
        assert reads(copy, key) and opens(copy, world.code.encode())
        assert copy.stat().st_blocks < 16 * 1024**2 // 512
        assert not (copy.parent / "a.blank").exists()
        shown = json.loads(other.mailbox("show", "a", "--json").stdout)
        assert shown["account"]["address"] == ADDRESS
    assert world.volume.read_bytes() == before


def test_a_new_code(world: World) -> None:
    old, paper = world.code, world.session.root / "paper 2"
    world.session.mailbox("recovery-code", "a", "--replace", "--recovery-code-to", str(paper))
    new = paper.read_text().strip()
    assert opens(world.volume, new.encode()) and not opens(world.volume, old.encode())
    assert reads(world.volume, secret(world.session, "volume-key"))
    log = world.session.mailbox("log", "a").text
    assert "recovery-code" in log and new not in log
