"""Volumes as files: never overwritten, whole under their own name, their header truly erased."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.host import process, volumes
from sandbox.model.errors import Exit, MailboxError
from tests.unit.fake_luks import PAYLOAD, luks_bytes

KEY = b"a2V5LWNhbmFyeQ=="


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "volumes" / "a.luks"


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A stand-in for qemu-img; the commands it was run with."""
    commands: list[list[str]] = []

    def run(argv: list[str], *, pass_fds: tuple[int, ...], check: bool) -> process.Completed:
        commands.append(argv)
        Path(argv[-2]).write_bytes(luks_bytes(os.read(pass_fds[0], 1000)))
        return process.Completed(0, b"", b"")

    monkeypatch.setattr(process, "run", run)
    return commands


@pytest.fixture
def volume(path: Path, ran: list[list[str]]) -> Path:
    volumes.create(path, 64 * 1024**2, KEY)
    return path


def answer(monkeypatch: pytest.MonkeyPatch, *answers: bytes) -> list[int]:
    """qemu-img fails with each of these in turn; how often it was run."""
    left, count = list(answers), [0]

    def run(argv: list[str], **_: object) -> process.Completed:
        count[0] += 1
        Path(argv[-2]).write_bytes(b"half")
        text = left.pop(0) if left else b""
        return process.Completed(1 if text else 0, b"", text)

    monkeypatch.setattr(process, "run", run)
    return count


def test_a_volume_is_made_for_its_owner_alone(volume: Path) -> None:
    assert volume.read_bytes() == luks_bytes(KEY)
    assert volume.stat().st_mode & 0o777 == 0o600
    assert volume.parent.stat().st_mode & 0o777 == 0o700
    assert list(volume.parent.iterdir()) == [volume]


def test_the_key_goes_through_a_pipe(volume: Path, ran: list[list[str]]) -> None:
    assert KEY.decode() not in str(ran)
    assert "/dev/fd/" in str(ran)


def test_a_volume_is_never_overwritten(volume: Path) -> None:
    with pytest.raises(MailboxError) as refused:
        volumes.create(volume, 64 * 1024**2, b"other")
    assert refused.value.code == "volume-exists"
    assert volume.read_bytes() == luks_bytes(KEY)


def test_not_even_one_that_appears_meanwhile(
    path: Path, ran: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def appear(_descriptor: int) -> None:
        path.write_bytes(b"precious")

    monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(MailboxError):
        volumes.create(path, 64 * 1024**2, KEY)
    assert path.read_bytes() == b"precious"


def test_what_a_killed_creation_left_is_no_hindrance(path: Path, ran: list[list[str]]) -> None:
    path.parent.mkdir()
    volumes.unfinished(path).write_bytes(b"half")
    volumes.create(path, 64 * 1024**2, KEY)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "code", "exit_code"),
    [
        (b"qemu-img: No space left on device", "disk-full", Exit.NO_SPACE),
        (b"qemu-img: something else", "volume-not-made", Exit.HOST),
    ],
)
def test_a_failure_keeps_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, code: str, exit_code: Exit
) -> None:
    answer(monkeypatch, text)
    with pytest.raises(MailboxError) as refused:
        volumes.create(path, 64 * 1024**2, KEY)
    assert (refused.value.code, refused.value.exit_code) == (code, exit_code)
    assert list(path.parent.iterdir()) == []


def test_a_clock_that_has_not_moved_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = answer(monkeypatch, *[b"Unable to get accurate CPU usage"] * 3)
    volumes.create(path, 64 * 1024**2, KEY)
    assert count == [4]


def test_but_not_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = answer(monkeypatch, *[b"Unable to get accurate CPU usage"] * 99)
    with pytest.raises(MailboxError):
        volumes.create(path, 64 * 1024**2, KEY)
    assert 1 < count[0] < 99


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
