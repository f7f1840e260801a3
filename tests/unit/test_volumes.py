"""Volumes as files: never overwritten, whole under their own name, their header truly erased."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sandbox.host import luks_new, process, volumes
from sandbox.model.errors import Exit, MailboxError
from tests.unit.fake_luks import PAYLOAD, luks_bytes

SIZE = 64 * 1024**2
KEY = b"a2V5LWNhbmFyeQ=="


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "volumes" / "a.luks"


@pytest.fixture
def volume(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(
        volumes, "_make", lambda target, _size, key: target.write_bytes(luks_bytes(key))
    )
    volumes.create(path, SIZE, KEY)
    monkeypatch.undo()
    return path


def test_a_volume_is_made_for_its_owner_alone(path: Path) -> None:
    volumes.create(path, SIZE, KEY)
    facts = volumes.look(path)
    assert facts is not None and facts.luks
    assert facts.size == luks_new.PAYLOAD + SIZE and facts.allocated < 1024**2
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_a_volume_is_never_overwritten(volume: Path) -> None:
    with pytest.raises(MailboxError) as refused:
        volumes.create(volume, SIZE, b"other")
    assert refused.value.code == "volume-exists"
    assert volume.read_bytes() == luks_bytes(KEY)


def test_not_even_one_that_appears_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def appear(_descriptor: int) -> None:
        path.write_bytes(b"precious")

    monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(MailboxError):
        volumes.create(path, SIZE, KEY)
    assert path.read_bytes() == b"precious"


def test_what_a_killed_creation_left_is_no_hindrance(path: Path) -> None:
    path.parent.mkdir()
    volumes.unfinished(path).write_bytes(b"half")
    volumes.create(path, SIZE, KEY)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "code", "exit_code"),
    [
        (errno.ENOSPC, "disk-full", Exit.NO_SPACE),
        (errno.EFBIG, "volume-not-made", Exit.HOST),
    ],
)
def test_a_failure_keeps_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str, exit_code: Exit
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    path.parent.mkdir(mode=0o700)
    with pytest.raises(MailboxError) as refused:
        volumes.create(path, SIZE, KEY)
    assert (refused.value.code, refused.value.exit_code) == (code, exit_code)
    assert list(path.parent.iterdir()) == []


def test_facts_are_looked_at(volume: Path, tmp_path: Path) -> None:
    facts = volumes.look(volume)
    assert facts is not None and facts.size == PAYLOAD + 3072 and facts.luks
    assert volumes.look(tmp_path / "none") is None
    volume.write_bytes(b"")
    facts = volumes.look(volume)
    assert facts is not None and facts.size == 0 and not facts.luks


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "volume-missing"),
        (b"", "volume-header-damaged"),
        (bytes(8192), "volume-header-damaged"),
        (luks_bytes(KEY)[:100], "volume-truncated"),
        (luks_bytes(KEY)[:PAYLOAD], "volume-truncated"),
        (luks_bytes(KEY)[: PAYLOAD + 1], None),
        (luks_bytes(KEY), None),
    ],
)
def test_damage_is_told_apart(path: Path, content: bytes | None, code: str | None) -> None:
    path.parent.mkdir()
    if content is not None:
        path.write_bytes(content)
    if code is None:
        volumes.check(path)
        return
    with pytest.raises(MailboxError) as refused:
        volumes.check(path)
    assert refused.value.code == code and refused.value.exit_code == Exit.DAMAGED
    if content is not None:
        assert path.read_bytes() == content


def test_header_and_keyslots_are_overwritten_and_the_rest_is_not(volume: Path) -> None:
    volume.write_bytes(luks_bytes(KEY)[:PAYLOAD] + b"D" * 3072)
    assert volumes.erase_header(volume) is True
    after, before = volume.read_bytes(), luks_bytes(KEY)
    assert after[PAYLOAD:] == b"D" * 3072
    same = sum(one == other for one, other in zip(after[:PAYLOAD], before, strict=False))
    assert same < PAYLOAD // 16
    assert not (volumes.look(volume) or pytest.fail()).luks


def test_erasing_again_erases_again(volume: Path) -> None:
    volumes.erase_header(volume)
    first = volume.read_bytes()
    assert volumes.erase_header(volume) is True
    assert volume.read_bytes() != first


def test_what_is_not_there_needs_no_erasing(path: Path) -> None:
    assert volumes.erase_header(path) is False


def test_an_erasure_that_did_not_happen_is_said(
    volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(MailboxError) as refused:
        volumes.erase_header(volume)
    assert refused.value.code == "erase-failed"


def test_removing_takes_what_was_unfinished_along(volume: Path) -> None:
    volumes.unfinished(volume).touch()
    volumes.remove(volume)
    volumes.remove(volume)
    assert list(volume.parent.iterdir()) == []


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_program_that_does_not_read_its_secret_is_no_error() -> None:
    with process.secret_pipe(KEY):
        pass
    with process.secret_pipe(b"k" * 1_000_000):
        pass
