"""A full disk, a read-only folder, a clock that is off: each verb says so, and loses nothing."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.lifecycle.close import close
from sandbox.lifecycle.codes import renew_code
from sandbox.lifecycle.header import back_up
from sandbox.lifecycle.house import House
from sandbox.lifecycle.onboard import onboard
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.recover import Means, recover
from sandbox.lifecycle.settle import repair
from sandbox.lifecycle.shred import shred
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.secrets import VOLUME_KEY
from sandbox.state import journal
from tests.unit.fakes import CODES, NAME, PASSWORD, World, mails, make_house, make_wish, opens

Verb = Callable[[House], object]


def lose_key(house: House) -> None:
    house.vault.delete(house.records.load(NAME).id, VOLUME_KEY)


def make(house: House) -> None:
    onboard(house, make_wish())


def use(house: House) -> None:
    make(house)
    open_mailbox(house, NAME, headless=True)


def used(house: House) -> None:
    use(house)
    close(house, NAME)


def lost(house: House) -> None:
    used(house)
    lose_key(house)


def nothing(_house: House) -> None:
    return None


VERBS: dict[str, tuple[Verb, Verb]] = {
    "onboard": (nothing, make),
    "open": (used, lambda house: open_mailbox(house, NAME, headless=True)),
    "close": (use, lambda house: close(house, NAME)),
    "shred": (used, lambda house: shred(house, NAME)),
    "recover": (lost, lambda house: recover(house, NAME, Means(CODES[0], lambda: PASSWORD))),
    "recovery-code": (used, lambda h: renew_code(h, NAME, CODES.append, replace=True)),
    "header-backup": (used, lambda house: back_up(house, NAME, remove=False)),
}


@pytest.fixture(autouse=True)
def no_codes() -> Iterator[None]:
    CODES.clear()
    yield
    CODES.clear()


class Disk:
    """Lets so many writes of durable files through, and no more until there is room again."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.writes = 0

    def sync(self, _descriptor: int) -> None:
        self.writes += 1
        if self.left is not None:
            if self.left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.left -= 1


@pytest.mark.parametrize("name", VERBS)
def test_a_disk_that_is_full_from_any_moment_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, verb = VERBS[name]
    disk = Disk()
    monkeypatch.setattr(os, "fsync", disk.sync)
    world = World(tmp_path / "home")
    world.root.mkdir()
    before(make_house(world))
    shutil.copytree(world.root, tmp_path / "before")
    codes = list(CODES)
    disk.writes = 0
    verb(make_house(world))
    moments = disk.writes
    assert moments >= 3
    refused = 0
    for room in range(moments):
        shutil.rmtree(world.root)
        shutil.copytree(tmp_path / "before", world.root)
        CODES[:] = codes
        disk.left = room
        refused += _run_out(verb, world, f"{name} with room for {room}")
        disk.left = None
        _has_all(world, name, f"{name} with room for {room}")
    assert refused >= moments - 2


def _run_out(verb: Verb, world: World, where: str) -> bool:
    try:
        verb(make_house(world))
    except MailboxError as error:
        assert (error.code, error.exit_code) == ("disk-full", Exit.NO_SPACE), where
        assert "lost" in error.brief or "still" in error.brief or "kept" in error.brief, where
        assert "space" in error.resolution, where
        return True
    return False


def _has_all(world: World, name: str, where: str) -> None:
    """With room again, the next command brings order, and the mail is there."""
    house = make_house(world)
    repair(make_house(world), None)
    assert house.journal(NAME).read().pending() is None, where
    volume = house.paths.volume(NAME)
    if name == "shred":
        if house.records.find(NAME):
            shred(make_house(world), NAME)
        assert not volume.exists(), where
        return
    if name == "onboard":
        if house.records.find(NAME) is None:
            make(make_house(world))
    elif name == "recover":
        recover(make_house(world), NAME, Means(CODES[0], lambda: PASSWORD))
    had = mails(volume)
    close(make_house(world), NAME)
    open_mailbox(make_house(world), NAME, headless=True)
    assert mails(volume) == had + 1, where
    assert any(opens(volume, code.encode()) for code in CODES), where


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("name", VERBS)
def test_folders_that_cannot_be_written_to(name: str, world: World) -> None:
    before, verb = VERBS[name]
    house = make_house(world)
    before(house)
    folders = [house.paths.config, house.paths.data, house.paths.state]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    every = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    kept = {path: path.read_bytes() for path in every if path.is_file()}
    for path in every:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        with pytest.raises(MailboxError) as refused:
            verb(make_house(world))
        assert refused.value.code == "file-error" and "ermission" in refused.value.brief
        assert refused.value.resolution
        assert {path: path.read_bytes() for path in kept} == kept
    finally:
        for path in every:
            path.chmod(0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize("year", [1970, 2025, 2099])
def test_a_clock_that_is_years_off(
    year: int, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make_house(world)
    used(house)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(year, 1, 2, tzinfo=UTC)

    monkeypatch.setattr(journal, "datetime", Clock)
    open_mailbox(house, NAME, headless=True)
    close(house, NAME)
    assert house.journal(NAME).read().broken_at is None
    assert mails(house.paths.volume(NAME)) == 2
    lose_key(house)
    recover(house, NAME, Means(CODES[0], lambda: PASSWORD))
    open_mailbox(house, NAME, headless=True)
