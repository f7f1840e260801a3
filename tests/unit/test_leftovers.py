"""What is left outside of mailbox's folders: removed by its name, found by what it says."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import pytest

from sandbox.host.leftovers import Folders, Leftovers
from sandbox.model.profile import Profile
from sandbox.model.remains import Needle, Sought, needles
from tests.unit.fakes import ACCOUNT, SETTINGS

ID = "0c9b1a2e-5c5b-4a54-8f5c-0d6a3e1b7f11"
DOMAIN = "mailbox-a"
ADDRESS = "anna@kunde.test"


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(*(tmp_path / name for name in ("config", "data", "cache", "runtime")))


@pytest.fixture
def leftovers(folders: Folders) -> Leftovers:
    return Leftovers("qemu:///session", folders)


def write(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def search(leftovers: Leftovers, *folders: Path, **more: tuple[Path, ...]) -> set[tuple[str, str]]:
    wanted = (Needle("address", ADDRESS), Needle("profile id", ID), Needle("machine", DOMAIN))
    found = leftovers.search(Sought(wanted, folders, **more)).found
    return {(Path(each.path).name, each.kind) for each in found}


def test_libvirts_files_of_the_machine_go_and_others_stay(
    leftovers: Leftovers, folders: Folders
) -> None:
    log = folders.cache / "libvirt/qemu/log"
    mine = [write(log / f"{DOMAIN}.log{end}") for end in ("", ".0", ".12")]
    mine += [write(folders.config / "libvirt/qemu" / f"{DOMAIN}.xml")]
    mine += [write(folders.config / "libvirt/qemu/nvram" / f"{DOMAIN}_VARS.fd")]
    mine += [write(folders.config / "libvirt/qemu/save" / f"{DOMAIN}.save")]
    others = [write(log / f"{name}.log") for name in ("mailbox-ab", "mailbox-a.b", "a")]
    assert leftovers.clear(DOMAIN, ID, {})["libvirt_files"] == len(mine)
    assert not any(path.exists() for path in mine) and all(path.exists() for path in others)
    assert leftovers.clear(DOMAIN, ID, {})["libvirt_files"] == 0


def test_roots_libvirt_is_looked_at_where_it_is(folders: Folders) -> None:
    places = Leftovers("qemu:///system", folders).places()
    assert {Path("/var/log/libvirt"), Path("/etc/libvirt")} <= set(places)
    assert folders.cache / "libvirt" not in places


def test_pictures_go_unless_somebody_changed_them(leftovers: Leftovers, tmp_path: Path) -> None:
    same, changed = write(tmp_path / "same.png", "1"), write(tmp_path / "changed.png", "2")
    mark = hashlib.sha256(b"1").hexdigest()
    facts = leftovers.clear(DOMAIN, ID, {same: mark, changed: mark, tmp_path / "gone.png": mark})
    assert (facts["pictures"], facts["pictures_changed"]) == (1, 1)
    assert not same.exists() and changed.read_text() == "2"


def test_the_viewer_forgets_one_machine(leftovers: Leftovers, folders: Folders) -> None:
    other = "[11111111-2222-3333-4444-555555555555]\nmonitor-mapping=1:1\n"
    settings = write(
        folders.config / "virt-viewer/settings",
        f"[virt-viewer]\nshare-clipboard=false\n[{ID}]\nmonitor-mapping=1:2\n\n{other}",
    )
    assert leftovers.clear(DOMAIN, ID, {})["viewer_entries"] == 1
    assert settings.read_text() == f"[virt-viewer]\nshare-clipboard=false\n{other}"


def test_recent_files_forget_the_machine_and_its_pictures(
    leftovers: Leftovers, folders: Folders, tmp_path: Path
) -> None:
    def bookmark(address: str) -> str:
        return f'  <bookmark href="{address}" added="2026">\n    <info/>\n  </bookmark>\n'

    picture = tmp_path / "Bild ä.png"
    kept = bookmark("file:///home/a/letter.odt")
    text = f"<xbel>\n{kept}{bookmark('vnc+unix:///run/mailbox-a/d')}{bookmark(picture.as_uri())}"
    recent = write(folders.data / "recently-used.xbel", f"{text}</xbel>\n")
    assert leftovers.clear(DOMAIN, ID, {picture: ""})["viewer_entries"] == 1
    assert recent.read_text() == f"<xbel>\n{kept}</xbel>\n"


def test_names_and_contents_are_found_whatever_their_case(
    leftovers: Leftovers, tmp_path: Path
) -> None:
    write(tmp_path / "a/note", "To: ANNA@Kunde.test")
    write(tmp_path / "a/b" / f"{DOMAIN}.pid")
    write(tmp_path / "a/log", f"x{ID}x")
    write(tmp_path / "a/other", "mailbox-a2 mailbox-ab anna@kunde")
    assert search(leftovers, tmp_path / "a") == {("note", "address"), (f"{DOMAIN}.pid", "machine")}
    write(tmp_path / "a/log", f"{ID}")
    assert ("log", "profile id") in search(leftovers, tmp_path / "a")


@pytest.mark.parametrize("before", [0, (1 << 20) - 7, (1 << 20) - 1])
def test_nothing_hides_between_two_reads(leftovers: Leftovers, tmp_path: Path, before: int) -> None:
    write(tmp_path / "big", " " * before + ADDRESS + " " * 10)
    assert search(leftovers, tmp_path) == {("big", "address")}


def test_records_may_say_which_profile_but_not_whose(leftovers: Leftovers, tmp_path: Path) -> None:
    journal = write(tmp_path / "journal", f"{ID} {DOMAIN}")
    assert search(leftovers, tmp_path, kept=(journal,)) == set()
    write(journal, f"{ID} {ADDRESS}")
    assert search(leftovers, tmp_path, kept=(journal,)) == {("journal", "address")}
    assert search(leftovers, tmp_path, skipped=(journal,)) == set()


def test_a_found_path_does_not_repeat_the_address(leftovers: Leftovers, tmp_path: Path) -> None:
    write(tmp_path / ADDRESS / "x", ADDRESS)
    found = leftovers.search(Sought((Needle("address", ADDRESS),), (tmp_path,))).found
    assert found and ADDRESS not in found[0].path and "<address>" in found[0].path


def test_what_cannot_be_read_is_counted(leftovers: Leftovers, tmp_path: Path) -> None:
    with (tmp_path / "disk.img").open("wb") as file:
        file.truncate((64 << 20) + 1)
    write(tmp_path / "other.luks", ADDRESS)  # ciphertext of another mailbox
    looked = leftovers.search(Sought((Needle("address", ADDRESS),), (tmp_path,)))
    assert (looked.files, looked.unread, looked.found) == (1, 1, ())


def test_what_is_looked_for() -> None:
    profile = Profile(uuid.UUID(ID), "a", "default", "#000000", "", ACCOUNT, SETTINGS)
    found = needles(ID, DOMAIN, "", profile)
    assert {each.kind for each in found} == {"profile id", "machine", "address"}
    assert {each.kind for each in needles(ID, DOMAIN, "v", None)} == {
        *("profile id", "machine", "volume id"),
    }
