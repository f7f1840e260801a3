"""Correspondents' keys and real GnuPG: read without being kept, judged, and taken all at once."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.host import process
from sandbox.host.gnupg import ProfileKeyring, UserKeyring
from sandbox.host.keyreader import KeyReader
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import KeyChoice, onboard
from sandbox.model.errors import MailboxError
from sandbox.model.offers import Offer, Source, offered, refuse_unusable
from tests.host.conftest import need
from tests.host.test_gnupg import Home, revoke
from tests.unit.fakes import NAME, World, make_house, make_wish

BERT = "bert@partner.test"


@pytest.fixture
def home() -> Iterator[Home]:
    need("gpg", "gpgconf")
    made = Home()
    yield made
    made.end()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def house(world: World) -> House:
    return make_house(world)


@pytest.fixture
def reader(tmp_path: Path) -> KeyReader:
    return KeyReader(tmp_path / "run")


@pytest.fixture
def ring() -> Iterator[ProfileKeyring]:
    folder = Path(tempfile.mkdtemp(prefix="gpg-"))
    made = ProfileKeyring(folder / "ring")
    made.create()
    yield made
    made.destroy()
    shutil.rmtree(folder)


def public(home: Home, *fingerprints: str) -> bytes:
    return home.gpg("--armor", "--export", *fingerprints).encode()


def look(reader: KeyReader, content: bytes, address: str = "") -> Offer:
    (reading,) = reader.read([content])
    found = offered(Source("the file", content, address, trusted=not address), reading)
    refuse_unusable([found], whole=True)
    (offer,) = found.offers
    return offer


def refused(reader: KeyReader, content: bytes, address: str = "") -> str:
    with pytest.raises(MailboxError) as caught:
        look(reader, content, address)
    assert caught.value.code == "key-unusable"
    return f"{caught.value.brief} {caught.value.details}"


def test_a_key_is_read_taken_and_seen(
    home: Home, reader: KeyReader, ring: ProfileKeyring, tmp_path: Path
) -> None:
    fingerprint = home.make(address="Bert@Partner.test")
    found = look(reader, public(home, fingerprint))
    assert (found.key.fingerprint, found.key.addresses) == (fingerprint, (BERT,))
    assert found.key.user_ids == ("Änne Łukasz <Bert@Partner.test>",)
    assert list((tmp_path / "run").iterdir()) == []
    ring.add_correspondents([found.public])
    (listed,) = ring.look([fingerprint, "A" * 40])
    assert (listed.user_ids, listed.addresses) == (found.key.user_ids, found.key.addresses)
    assert ring.public([fingerprint, "A" * 40]) == {fingerprint: found.public}


def test_several_keys_of_several_files_are_told_apart(
    home: Home, reader: KeyReader, user_prints: list[str]
) -> None:
    first, second, third = user_prints
    contents = [public(home, first), public(home, second, third), b"no key at all"]
    readings = reader.read(contents)
    prints = [[each.key.fingerprint for each in reading.keys] for reading in readings]
    assert prints == [[first], sorted([second, third], key=prints_in(contents[1])), []]
    assert readings[2].problems


def test_a_file_of_several_is_onboarded_with_each_of_them(
    home: Home, house: House, world: World, reader: KeyReader, user_prints: list[str]
) -> None:
    """The reader and the key ring are GnuPG's; the rest of the house is not asked here."""
    folder = Path(tempfile.mkdtemp(prefix="gpg-"))
    files = [Source("all.asc", public(home, *user_prints), trusted=True)]
    real = replace(house, key_reader=reader, profile_keyring=lambda _: ProfileKeyring(folder / "r"))
    try:
        onboard(real, make_wish(key=KeyChoice(), correspondents=tuple(files)))
        known = real.records.load(NAME).keys.correspondents
        assert {each.fingerprint: each.addresses for each in known} == {
            each: (f"{number}@partner.test",) for number, each in enumerate(user_prints)
        }
        assert set(ProfileKeyring(folder / "r").public(user_prints)) == set(user_prints)
    finally:
        ProfileKeyring(folder / "r").destroy()
        shutil.rmtree(folder)


def test_all_that_is_wrong_with_all_files_is_said_at_once(
    home: Home, house: House, world: World, reader: KeyReader, user_prints: list[str]
) -> None:
    good, first, second = user_prints
    for each in (first, second):
        revoke(home, each)
    contents = {"a.asc": public(home, good, first), "b.asc": public(home, second), "c.asc": b"-"}
    files = tuple(Source(name, content, trusted=True) for name, content in contents.items())
    real = replace(house, key_reader=reader)
    with pytest.raises(MailboxError) as caught:
        onboard(real, make_wish(correspondents=files))
    said = f"{caught.value.brief} {caught.value.details}"
    assert caught.value.code == "key-unusable" and good not in said
    assert f"a.asc: {first} is revoked" in said and f"b.asc: {second} is revoked" in said
    assert "c.asc: " in said
    assert world.state["vault"] == {} and not house.records.names()


def prints_in(content: bytes):  # type: ignore[no-untyped-def]
    from sandbox.model.packets import read_keys

    return [each.fingerprint for each in read_keys(content)].index


@pytest.fixture
def user_prints(home: Home) -> list[str]:
    return [home.make(address=f"{number}@partner.test") for number in range(3)]


def test_a_revoked_key_is_refused(home: Home, reader: KeyReader) -> None:
    fingerprint = home.make()
    revoke(home, fingerprint)
    assert "is revoked" in refused(reader, public(home, fingerprint))


def test_a_secret_key_is_refused(home: Home, reader: KeyReader) -> None:
    assert "secret key" in refused(reader, home.export(home.make()))


def test_a_key_that_cannot_encrypt_is_refused(home: Home, reader: KeyReader) -> None:
    assert "encryption" in refused(reader, public(home, home.make("cert,sign")))


def test_a_revoked_user_id_names_nobody(home: Home, reader: KeyReader) -> None:
    fingerprint = home.make(address=BERT)
    home.gpg("--quick-add-uid", fingerprint, "Bert <old@partner.test>")
    home.gpg("--quick-revoke-uid", fingerprint, "Bert <old@partner.test>")
    content = public(home, fingerprint)
    assert look(reader, content).key.addresses == (BERT,)
    assert look(reader, content, BERT).accepted().addresses == (BERT,)
    assert "no valid user id with old@" in refused(reader, content, "old@partner.test")


def test_a_user_id_that_the_owner_did_not_sign_names_nobody(home: Home, reader: KeyReader) -> None:
    """A server that adds an address to somebody's key: the packet is there, no signature is."""
    content = home_binary(home, home.make(address="mallory@evil.test"))
    forged = b"Bert <bert@partner.test>"
    packet = bytes([0xB4, len(forged)]) + forged
    assert "no valid user id" in refused(reader, content + packet, BERT)
    assert BERT not in look(reader, content + packet).key.addresses


def home_binary(home: Home, fingerprint: str) -> bytes:
    import subprocess

    command = ["gpg", "--homedir", str(home.path), "--batch", "--export", fingerprint]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"\x99",
        b"\x99\x01",
        b"\xc6\xff\xff\xff\xff\xff",
        b"\x99\x00\x03\x04ab",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n=AAAA\n-----END PGP PUBLIC KEY BLOCK-----",
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n???\n-----END PGP PUBLIC KEY BLOCK-----",
    ],
)
def test_what_is_no_key_is_refused(reader: KeyReader, content: bytes) -> None:
    assert "nothing was accepted" in refused(reader, content)


def test_what_a_killed_look_left_goes_with_the_next(reader: KeyReader, tmp_path: Path) -> None:
    run = tmp_path / "run"
    left = run / ".keys-4194305-x"  # above pid_max: nobody
    mine = run / f".keys-{os.getpid()}-x"
    for folder in (left, mine):
        folder.mkdir(parents=True)
    refused(reader, b"\x99\x00\x03\x04ab")
    assert not left.exists() and mine.exists()


def test_many_keys_are_not_many_processes(
    home: Home, reader: KeyReader, ring: ProfileKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = [home.make(address=f"{number}@partner.test") for number in range(4)]
    started: list[str] = []
    run = process._run_whole

    def counted(command: list[str], *rest: object) -> process.Completed:
        started.append(Path(command[0]).name)
        return run(command, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(process, "_run_whole", counted)
    reader.read([public(home, prints[0])])
    few = len(started)
    started.clear()
    readings = reader.read([public(home, each) for each in prints])
    assert len(started) == few
    ring.add_correspondents([key.public for each in readings for key in each.keys])
    assert (
        set(ring.public(prints)) == set(prints) == set(UserKeyring(str(home.path)).publics(prints))
    )
