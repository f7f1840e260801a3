"""The computer loses power at any moment of any verb: only what was synchronised is there again.

The harshest reading of fsync(2): content that was not synchronised is lost, and so is every name
that was added, removed or changed in a folder that was not synchronised since.
"""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandbox.lifecycle.house import House
from sandbox.lifecycle.open import open_mailbox
from sandbox.lifecycle.settle import repair
from sandbox.model.errors import MailboxError
from tests.unit import test_crash_matrix as matrix
from tests.unit.fakes import NAME, World, mails, make_house

# What is not ours to synchronise: QEMU writes volumes, GnuPG's files are synchronised by
# sandbox.host.gnupg, and the rest stands for the outside.
OUTSIDE = ("data/keys", "home", "world.json")
VOLATILE = ("machines", "wardens", "served", "custodians")


@dataclass
class Disk:
    """What of a folder would be there after a power cut: names by folder, content by inode."""

    root: Path
    names: dict[int, dict[str, int]] = field(default_factory=dict)
    content: dict[int, bytes] = field(default_factory=dict)
    version: int = 0
    held: dict[int, int] = field(default_factory=dict)

    def settle(self) -> None:
        """All that is there now is there for good."""
        for path in (self.root, *self.root.rglob("*")):
            self._keep(path)

    def sync(self, descriptor: int) -> None:
        """As fsync(2) of an open file or folder."""
        self._keep(Path(f"/proc/self/fd/{descriptor}").readlink())
        self.version += 1

    def close(self) -> None:
        """Let go of the inodes."""
        for descriptor in self.held.values():
            os.close(descriptor)
        self.held.clear()

    def _hold(self, path: Path) -> None:
        """Keep an inode's number from being given to another file when this one is removed."""
        inode = path.stat().st_ino
        if inode not in self.held:
            self.held[inode] = os.open(path, os.O_PATH | os.O_CLOEXEC)

    def _keep(self, path: Path) -> None:
        status = path.stat()
        self._hold(path)
        if stat.S_ISDIR(status.st_mode):
            self.names[status.st_ino] = {each.name: each.stat().st_ino for each in path.iterdir()}
            for each in path.iterdir():
                self._hold(each)
                if each.is_dir():
                    self.names.setdefault(each.stat().st_ino, {})
        else:
            self.content[status.st_ino] = path.read_bytes()

    def cut_power(self) -> None:
        """Make the folder what would be found after it."""
        kept = {each: self._current(self.root / each) for each in OUTSIDE}
        volumes = {
            path.stat().st_ino: path.read_bytes() for path in self.root.rglob("*.luks") if path
        }
        top = self.root.stat().st_ino
        shutil.rmtree(self.root)
        self._restore(self.root, top, self.content | volumes)
        for each, files in kept.items():
            shutil.rmtree(self.root / each, ignore_errors=True)
            for path, content in files.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        shutil.rmtree(self.root / "run", ignore_errors=True)

    def _current(self, place: Path) -> dict[Path, bytes]:
        found = [place] if place.is_file() else list(place.rglob("*"))
        return {path: path.read_bytes() for path in found if path.is_file()}

    def _restore(self, folder: Path, inode: int, content: dict[int, bytes]) -> None:
        folder.mkdir(mode=0o700)
        for name, each in self.names[inode].items():
            if each in self.names:
                self._restore(folder / name, each, content)
            else:
                (folder / name).write_bytes(content.get(each, b""))


def stand(scene: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[World, Disk]:
    """The world before the verb, on a disk that notices what is synchronised."""
    world = matrix._scene(scene, folder, monkeypatch)
    disk = Disk(world.root)
    disk.settle()

    def sync(descriptor: int) -> None:
        world.point("fsync")
        disk.sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    return world, disk


def moments(scene: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """The moments that differ in what a power cut would leave."""
    world, disk = stand(scene, folder, monkeypatch)
    found: list[tuple[int, str]] = []
    seen: set[tuple[int, str]] = set()

    def watch(label: str) -> None:
        outside = world._file.read_text() if world._file.exists() else ""
        if (disk.version, outside) not in seen:
            seen.add((disk.version, outside))
            found.append((len(world.labels), label))

    world.watch = watch
    matrix.VERBS[matrix._verb(scene)](make_house(world))
    disk.close()
    return found


def cut_at(world: World, disk: Disk, scene: str, number: int) -> None:
    """Run the verb in a process of its own until the power is cut."""

    def watch(_label: str) -> None:
        if len(world.labels) == number:
            disk.cut_power()

    world.watch = watch
    assert matrix._killed(world, matrix.VERBS[matrix._verb(scene)], number)
    world.watch = lambda _label: None


@pytest.mark.parametrize("scene", sorted(matrix.BEFORE))
def test_after_a_power_cut_it_converges(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, label in moments(scene, tmp_path / "rehearsal", monkeypatch):
        where = f"{scene}, power cut at {label} (moment {number})"
        world, disk = stand(scene, tmp_path / "case", monkeypatch)
        volume = make_house(world).paths.volume(NAME)
        had = mails(volume) if volume.exists() else 0
        cut_at(world, disk, scene, number)
        with world.change("power comes back") as state:
            state.update({each: {} for each in VOLATILE})
        repair(matrix._next(world), None)
        matrix._assert_tidy(world, where)
        house = make_house(world)
        if matrix._verb(scene) != "shred" and scene != "onboard":
            assert house.records.find(NAME) and mails(volume) >= had, where
        opens_or_says_why(house, where)
        matrix._assert_tidy(world, where)
        disk.close()


def opens_or_says_why(house: House, where: str) -> None:
    """A mailbox that is there can be used; one that is not is unknown, or shredded."""
    try:
        open_mailbox(house, NAME, headless=True)
    except MailboxError as error:
        expected = {"profile-unknown", "profile-shredded", "retained"}
        assert error.code in expected, f"{where}: {error.code}: {error.brief}"
        assert error.code == "retained" or house.records.find(NAME) is None, where


def test_what_was_not_synchronised_is_lost(tmp_path: Path) -> None:
    """The disk of these tests forgets, so that the tests above can fail."""
    root = tmp_path / "disk"
    (root / "a").mkdir(parents=True)
    (root / "a/old").write_text("old")
    disk = Disk(root)
    disk.settle()
    (root / "a/old").write_text("new")
    (root / "a/added").write_text("x")
    (root / "a/old").rename(root / "a/renamed")
    disk.cut_power()
    disk.close()
    assert {path.name: path.read_text() for path in (root / "a").iterdir()} == {"old": "old"}
