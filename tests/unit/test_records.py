"""What rests on the disk: files replaced whole, names without case, tombstones, locks."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.model.errors import Exit, InvalidInputError, MailboxError
from sandbox.state import files, lock
from sandbox.state.records import Records
from tests.unit.fakes import SHIPPED, make_paths
from tests.unit.test_profile import PROFILE


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(make_paths(tmp_path), SHIPPED)


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    files.replace(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MailboxError) as refused:
        files.replace(path, b"new")
    assert refused.value.code == "disk-full" and refused.value.exit_code == Exit.NO_SPACE
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_and_folder_reach_the_disk_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool]] = []
    path = tmp_path / "a"
    monkeypatch.setattr(
        os, "fsync", lambda d: seen.append((Path(f"/proc/self/fd/{d}").is_dir(), path.exists()))
    )
    files.replace(path, b"new")
    assert seen == [(False, False), (True, True)]
    assert path.stat().st_mode & 0o777 == 0o600


def test_only_what_is_left_of_this_very_file_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".a.toml.0123abcd.tmp"
    others = [tmp_path / name for name in (".b.toml.0123abcd.tmp", ".a.toml.toml.0123abcd.tmp")]
    for path in (left, *others):
        path.touch()
    files.remove(tmp_path / "a.toml")
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    made = files.private_folder(tmp_path / "a/b/c")
    for folder in (made, made.parent, made.parent.parent):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_profile_is_found_whatever_its_case(records: Records) -> None:
    records.save(PROFILE)
    assert records.find("CLIENTa") == "clientA"
    assert records.load("clienta") == PROFILE
    assert records.names() == ["clientA"]


@pytest.mark.parametrize("name", ["../clientA", "", "a/b", "x" * 300, "a\0"])
def test_what_is_no_name_finds_nothing(records: Records, name: str) -> None:
    records.save(PROFILE)
    assert records.find(name) is None
    with pytest.raises(MailboxError) as refused:
        records.load(name)
    assert refused.value.code == "profile-unknown"


def test_a_profile_in_another_ones_file_is_refused(records: Records, tmp_path: Path) -> None:
    records.save(PROFILE)
    make_paths(tmp_path).profile("clientA").rename(make_paths(tmp_path).profile("other"))
    with pytest.raises(InvalidInputError, match="other"):
        records.load("other")


@pytest.mark.parametrize("content", [b"=", b"\xff", b"", b"version = 1", b"template = 5"])
def test_a_broken_profile_is_a_sentence(records: Records, tmp_path: Path, content: bytes) -> None:
    files.replace(make_paths(tmp_path).profile("a"), content)
    with pytest.raises(MailboxError):
        records.load("a")


def test_a_profile_that_cannot_be_read_is_a_sentence(records: Records, tmp_path: Path) -> None:
    make_paths(tmp_path).profile("a").mkdir(parents=True)
    with pytest.raises(MailboxError) as refused:
        records.load("a")
    assert refused.value.code == "file-error"


def test_drafts_go_with_their_profile_and_no_other(records: Records, tmp_path: Path) -> None:
    records.save(PROFILE)
    folder = make_paths(tmp_path).profiles
    mine, other = folder / ".clientA.ab12_x9z.edit", folder / ".clientA.b.ab12_x9z.edit"
    mine.touch()
    other.touch()
    records.remove("clientA")
    assert list(folder.iterdir()) == [other]


def test_the_users_own_template_goes_before_one_that_ships(
    records: Records, tmp_path: Path
) -> None:
    shipped = records.template("default")
    own = make_paths(tmp_path).templates / "default.toml"
    files.replace(own, b'client = "evolution"\n')
    assert records.template("default").client == "evolution" != shipped.client
    with pytest.raises(MailboxError) as refused:
        records.template("../x")
    assert refused.value.code == "template-unknown"


def test_a_tombstone_stays_and_speaks_for_every_case(records: Records) -> None:
    records.bury("clientA", "1")
    first = records.tombstone("CLIENTA")
    records.bury("clientA", "1")
    assert first is not None and records.tombstone("clientA") == first
    with pytest.raises(MailboxError) as refused:
        records.load("clienta")
    assert refused.value.code == "profile-shredded"
    assert first.shredded in refused.value.brief


def test_a_second_burial_under_the_name_tells_the_newer_profile(records: Records) -> None:
    records.bury("clientA", "1")
    records.bury("clientA", "2")
    stone = records.tombstone("clientA")
    assert stone is not None and stone.profile_id == "2"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_a_damaged_tombstone_still_refuses(
    records: Records, tmp_path: Path, content: bytes
) -> None:
    files.replace(make_paths(tmp_path).tombstone("clientA"), content)
    stone = records.tombstone("clienta")
    assert stone is not None and stone.name == "clientA"


def test_a_profile_outlives_saving(records: Records) -> None:
    records.save(PROFILE)
    records.save(replace(PROFILE, colour="#000000"))
    assert records.load("clientA").colour == "#000000"
    records.remove("clientA")
    records.remove("clientA")
    assert records.names() == []


def test_a_lock_is_waited_for_and_says_for_whom(tmp_path: Path) -> None:
    path, said, order = tmp_path / "l", [], []
    entered = threading.Event()

    def waits(holder: str) -> None:
        said.append(holder)
        entered.set()

    def second() -> None:
        with lock.hold(path, "mailbox close a", waits):
            order.append("second")

    waiting = threading.Thread(target=second)
    with lock.hold(path, "mailbox open a", said.append):
        waiting.start()
        assert entered.wait(30)
        assert lock.is_held(path)
        order.append("first")
    waiting.join(30)
    assert order == ["first", "second"]
    assert len(said) == 1 and "mailbox open a" in said[0] and str(os.getpid()) in said[0]
    assert not lock.is_held(path)
