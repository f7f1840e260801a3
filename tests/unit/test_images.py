"""Guest images: recipes are read strictly, images are found, verified and removed."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.host import image_build, image_manifest, images, process, recipes
from sandbox.host.data import data_root
from sandbox.lifecycle.house import House
from sandbox.lifecycle.images import VERBS, build_image, remove_image
from sandbox.lifecycle.preview import repairing
from sandbox.lifecycle.settle import repair
from sandbox.model.errors import InvalidInputError, MailboxError
from sandbox.model.machine import Image
from sandbox.state.journal import Journal
from tests.unit import test_crash_matrix as matrix
from tests.unit.fakes import World, make_house

BASE = """
suite = "trixie"
packages = ["kmod"]
modules = ["ext4"]
locales = ["en_GB"]
checked = ["sbin/init"]
"""
MUA = """
extends = "base"
packages = ["mua", "kmod"]
checked = ["usr/bin/mua*"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small `images/` folder with one client."""
    _write(tmp_path / "recipes/base/recipe.toml", BASE)
    _write(tmp_path / "recipes/base/root/etc/hosts", "127.0.0.1 localhost\n")
    _write(tmp_path / "recipes/base/hooks/10-first", "#!/bin/sh\n", 0o755)
    _write(tmp_path / "recipes/mua/recipe.toml", MUA)
    _write(tmp_path / "recipes/mua/root/etc/hosts", "of the client\n")
    _write(tmp_path / "recipes/mua/hooks/05-early", "#!/bin/sh\n", 0o755)
    return tmp_path / "recipes"


def _write(path: Path, content: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(mode)


def _fake_make(content: bytes = b"root") -> Callable[..., None]:
    """A build that makes small files at once."""

    def make(recipe: recipes.Recipe, folder: Path, progress: Callable[[str], None]) -> None:
        for name in image_manifest.FILES:
            (folder / name).write_bytes(content + name.encode())
        (folder / image_build.PACKAGES).write_text("kmod 34-1\nmua 1.0\n")
        progress("made")

    return make


@pytest.fixture
def built(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Image:
    """An image that was built from the small recipe."""
    monkeypatch.setattr(image_build, "make", _fake_make())
    return build(folder, tmp_path / "images")


def house_with(store: Path, folder: Path) -> House:
    """A house of fakes with real images, built from the recipes in a folder."""
    world = World(store.parent / "world")
    return replace(make_house(world), images=images.ImageStore(store, folder))


def build(folder: Path, store: Path, *, rebuild: bool = False) -> Image:
    return build_image(house_with(store, folder), "mua", rebuild=rebuild)


def test_a_recipe_adds_to_the_base(folder: Path) -> None:
    recipe = recipes.load("mua", folder)
    assert recipe.suite == "trixie"
    assert recipe.packages == ["kmod", "mua"]
    assert recipe.lists == {
        "initrd_modules": [],
        "modules": ["ext4"],
        "locales": ["en_GB"],
        "checked": ["sbin/init", "usr/bin/mua*"],
    }
    assert recipes.hooks(recipe) == [
        ".mailbox-build/hooks/05-early",
        ".mailbox-build/hooks/10-first",
    ]


def test_everything_wrong_with_a_recipe_is_said_at_once(folder: Path) -> None:
    _write(folder / "base/recipe.toml", 'packages = ["a b"]\nmodule = ["x"]\n')
    _write(folder / "mua/stray", "")
    (folder / "mua/root/link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInputError) as caught:
        recipes.load("mua", folder)
    text = "\n".join(caught.value.problems)
    for part in ("packages: 'a b'", "module: is not known", "stray", "root/link", "suite"):
        assert part in text


@pytest.mark.parametrize("client", ["base", "nothing", "../base", ""])
def test_an_unknown_client_is_refused(folder: Path, client: str) -> None:
    with pytest.raises(MailboxError) as caught:
        recipes.load(client, folder)
    assert caught.value.code == "image-unknown"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: _write(folder / "base/root/etc/hosts", "another\n"),
        lambda folder: (folder / "base/hooks/10-first").chmod(0o644),
        lambda folder: (folder / "mua/root/etc/hosts").rename(folder / "mua/root/etc/host"),
        lambda folder: _write(folder / "mua/root/new", ""),
        lambda folder: _write(folder / "base/recipe.toml", BASE + "# comment\n"),
    ],
)
def test_any_change_of_a_recipe_changes_its_digest(
    folder: Path, change: Callable[[Path], object]
) -> None:
    before = recipes.load("mua", folder).digest
    change(folder)
    assert recipes.load("mua", folder).digest != before


def test_caches_of_tools_are_no_part_of_a_recipe(folder: Path) -> None:
    before = recipes.load("mua", folder).digest
    _write(folder / "mua/root/usr/__pycache__/client.pyc", "")
    _write(folder / "mua/root/.ruff_cache/x", "")
    assert recipes.load("mua", folder).digest == before


def test_the_overlay_belongs_to_root_and_the_client_comes_last(folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(recipes.overlay(recipes.load("mua", folder)))) as archive:
        entries = {entry.name: entry for entry in archive}
        hosts = archive.extractfile("etc/hosts")
        assert hosts is not None
        assert hosts.read() == b"of the client\n"
    assert {(entry.uid, entry.gid) for entry in entries.values()} == {(0, 0)}
    assert entries["etc"].isdir()
    assert entries["etc/hosts"].mode == 0o644
    assert entries[".mailbox-build/hooks/10-first"].mode == 0o755
    assert ".mailbox-build/modules" in entries


def test_the_shipped_recipes_are_valid() -> None:
    folder = data_root() / "images"
    assert "thunderbird" in recipes.clients(folder)
    for client in recipes.clients(folder):
        recipe = recipes.load(client, folder)
        hooks = [f for layer in recipe.layers for f in layer.files if f.name.startswith("hooks/")]
        assert hooks
        assert all(hook.executable for hook in hooks)


@pytest.mark.parametrize("layer", ["base", "thunderbird", "evolution"])
def test_the_shipped_scripts_have_no_syntax_errors(layer: str) -> None:
    for path in sorted((data_root() / "images" / layer).rglob("*")):
        if path.is_file() and path.read_bytes().startswith(b"#!/bin/sh"):
            subprocess.run(["sh", "-n", str(path)], check=True)


def test_the_command_packs_inside_and_hands_the_files_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "which", lambda name: f"/usr/bin/{name}")
    recipe = recipes.load("mua", folder)
    overlay = Path("/a folder/overlay.tar")
    command = image_build.mmdebstrap_command(recipe, overlay, rootless=True)
    assert command[-1] == "trixie"
    assert "--mode=unshare" in command
    assert "--include=kmod,mua" in command
    assert "--customize-hook=tar-in '/a folder/overlay.tar' /" in command
    order = [text for text in command if "hooks/" in text or "mkfs.erofs" in text]
    assert ["05-early" in order[0], "10-first" in order[1], "mkfs.erofs" in order[2]] == [True] * 3
    assert "--mode=root" in image_build.mmdebstrap_command(recipe, overlay, rootless=False)


def test_a_built_image_is_complete_private_and_described(built: Image) -> None:
    assert built.folder.name == f"mua-{built.id}"
    assert {path.name for path in built.folder.iterdir()} == {
        *image_manifest.FILES,
        image_manifest.MANIFEST,
    }
    assert {path.stat().st_mode & 0o777 for path in built.folder.iterdir()} == {0o600}
    manifest = image_manifest.read_manifest(built.folder)
    assert manifest.packages == {"kmod": "34-1", "mua": "1.0"}
    images.verify(built)
    assert images.load(built.folder) == built


def test_the_same_recipe_is_built_once(
    built: Image, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_build, "make", _fake_make(b"other"))
    store = built.folder.parent
    assert build(folder, store) == built
    again = build(folder, store, rebuild=True)
    assert again.id != built.id
    _write(folder / "mua/root/new", "")
    monkeypatch.setattr(image_build, "make", _fake_make(b"third"))
    assert build(folder, store).id not in (built.id, again.id)


def test_a_rebuild_replaces_a_damaged_image_of_the_same_content(built: Image, folder: Path) -> None:
    (built.folder / "vmlinuz").write_bytes(b"damaged")
    again = build(folder, built.folder.parent, rebuild=True)
    images.verify(again)
    assert again.folder == built.folder
    assert {path.name for path in built.folder.parent.iterdir()} == {".lock", built.folder.name}


def test_a_failed_build_leaves_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MailboxError("no network", code="image-build-failed")

    monkeypatch.setattr(image_build, "make", fail)
    with pytest.raises(MailboxError):
        build(folder, tmp_path / "images")
    assert [path.name for path in (tmp_path / "images").iterdir()] == [".lock"]


def test_repair_removes_what_a_killed_build_left(
    built: Image, folder: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "mailbox-build-x"
    _write(scratch / "tree/file", "")
    left = built.folder.parent / ".build-mua-x"
    _write(left / "scratch", str(scratch))
    house = house_with(built.folder.parent, folder)
    with house.images.alone("another build", lambda _: None):
        assert repair(house, None) == []  # it is at work
    assert [plan.name for plan in repairing(house, None)] == ["images"]
    assert [result.name for result in repair(house, None)] == ["images"]
    assert not left.exists()
    assert not scratch.exists()
    assert repair(house, None) == [] and repairing(house, None) == []


def test_a_leftover_names_no_foreign_folder(built: Image, folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    _write(precious / "file", "")
    _write(built.folder.parent / ".build-mua-x/scratch", str(precious))
    build(folder, built.folder.parent, rebuild=True)
    assert (precious / "file").exists()


@pytest.mark.parametrize("name", image_manifest.FILES)
def test_verify_names_the_file_that_differs(built: Image, name: str) -> None:
    with (built.folder / name).open("r+b") as file:
        file.write(b"X")
    with pytest.raises(MailboxError) as caught:
        images.verify(built)
    assert caught.value.code == "image-damaged"
    assert name in caught.value.details


def _without(document: dict[str, object], key: str) -> None:
    del document[key]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(version=2),
        lambda m: m.update(id="0" * 16),
        lambda m: m.update(client="other"),
        lambda m: m.update(surplus=1),
        lambda m: _without(m, "recipe"),
        lambda m: m["files"].update(extra={"sha256": "0" * 64, "size": 1}),
        lambda m: m["files"].pop("vmlinuz"),
        lambda m: m["files"]["vmlinuz"].update(sha256="0" * 64),
        lambda m: m["files"]["vmlinuz"].update(sha256="short"),
    ],
)
def test_a_changed_manifest_is_refused_and_the_list_goes_on(
    built: Image, change: Callable[[dict[str, object]], object]
) -> None:
    path = built.folder / image_manifest.MANIFEST
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(MailboxError) as caught:
        images.load(built.folder)
    assert caught.value.code == "image-damaged"
    assert images.list_images(built.folder.parent) == []


def test_the_newest_image_is_found(
    built: Image, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = images.ImageStore(built.folder.parent)
    assert store.newest("mua") == built
    with pytest.raises(MailboxError) as caught:
        store.newest("other")
    assert caught.value.code == "image-missing"


def test_a_removed_image_is_gone(built: Image) -> None:
    remove_image(make_house(World(built.folder.parents[1] / "world")), built)
    assert images.list_images(built.folder.parent) == []
    assert [path.name for path in built.folder.parent.iterdir()] == [".lock"]


@pytest.mark.parametrize("verb", ["build", "rebuild", "remove"])
def test_killed_anywhere_an_image_is_whole_or_gone(
    verb: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "world")
    matrix._observe(world, monkeypatch)
    make = _fake_make()

    def watched(recipe: recipes.Recipe, folder: Path, progress: Callable[[str], None]) -> None:
        world.point("before make")
        make(recipe, folder, progress)
        world.point("after make")

    monkeypatch.setattr(image_build, "make", watched)
    monkeypatch.setattr("tests.unit.test_crash_matrix.make_house", with_images(tmp_path, folder))
    before = () if verb == "build" else ("build",)
    count = moments_of(verb, before, world)
    assert count > 10
    for number in range(1, count + 1):
        house = stand(world, before)
        assert matrix._killed(world, IMAGE_VERBS[verb], number)
        matrix._next(world)
        found = [images.verify(each) for each in images.list_images(house.paths.images)]
        assert len(found) <= 1 and not images.list_damaged(house.paths.images)
        repair(house, None)
        assert house.images.leftovers() == [] and not house.images.is_changing()
        assert Journal(house.paths.image_journal).read().pending(*VERBS) is None
        images.verify(IMAGE_VERBS["build"](house))  # type: ignore[arg-type]


IMAGE_VERBS: dict[str, Callable[[House], object]] = {
    "build": lambda house: build_image(house, "mua"),
    "rebuild": lambda house: build_image(house, "mua", rebuild=True),
    "remove": lambda house: remove_image(house, house.images.newest("mua")),
}


def with_images(root: Path, folder: Path) -> Callable[[World], House]:
    def make(world: World) -> House:
        house = make_house(world)
        return replace(house, images=images.ImageStore(house.paths.images, folder))

    return make


def stand(world: World, before: tuple[str, ...]) -> House:
    shutil.rmtree(world.root, ignore_errors=True)
    world.root.mkdir()
    house = matrix._next(world)
    for each in before:
        IMAGE_VERBS[each](house)
    return house


def moments_of(verb: str, before: tuple[str, ...], world: World) -> int:
    house = stand(world, before)
    world.labels.clear()
    IMAGE_VERBS[verb](house)
    return len(world.labels)


def test_no_image_folder_is_no_error(tmp_path: Path) -> None:
    assert images.list_images(tmp_path / "none") == []
