"""Guest images: built from a recipe by mmdebstrap without root, found, verified, removed.

An image is a folder `<client>-<id>` with the kernel, the initrd, the root file system and a
manifest; it appears complete or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.host import process, recipes
from sandbox.host.data import data_root
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import Image
from sandbox.model.schema import Reader
from sandbox.state import files, lock

Progress = Callable[[str], None]

FILES = ("vmlinuz", "initrd.img", "root.erofs")
MANIFEST = "manifest.json"
# A folder that a build works in; whatever is found of them while the lock is ours is left over.
_BUILD_PREFIX = ".build-"
_SCRATCH_PREFIX = "mailbox-build-"
_SCRATCH_NEEDED = 3 * 1024**3
_FOLDER_NAME = re.compile(r"[a-z][a-z0-9]{0,31}-[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PROGRAMS = ("mmdebstrap", "mkfs.erofs")


@dataclass(frozen=True)
class Manifest:
    """What is written down about an image; `files` maps names to (sha256, size)."""

    client: str
    id: str
    built: str
    suite: str
    recipe: str
    files: dict[str, tuple[str, int]]
    packages: dict[str, str]

    def image(self, folder: Path) -> Image:
        """The image in this folder."""
        return Image(self.id, self.client, self.built, folder)


@dataclass(frozen=True)
class ImageStore:
    """The images of one user, as the lifecycle asks for them."""

    folder: Path

    def newest(self, client: str) -> Image:
        """The image of a client that was built last."""
        return newest(client, self.folder)

    def verify(self, image: Image) -> None:
        """Refuse an image that is not as it was built."""
        verify(image)


def build(
    client: str,
    images: Path,
    progress: Progress,
    *,
    rebuild: bool = False,
    recipes_folder: Path | None = None,
) -> Image:
    """Build a client's image, or return the one that this recipe made already.

    Raises:
        MailboxError: `image-unknown`, `invalid-input`, `program-missing`, `disk-full`,
            `image-build-failed`.
    """
    recipe = recipes.load(client, recipes_folder or data_root() / "images")
    files.private_folder(images)
    with lock.hold(images / ".lock", f"image build {client}", _waiting(progress)):
        _remove_leftovers(images)
        known = None if rebuild else _built_from(recipe, images)
        if known is not None:
            return known
        for program in _PROGRAMS:
            _need(program)
        with _build_folder(client, images) as folder:
            with _scratch_folder(folder) as scratch:
                _run_mmdebstrap(recipe, folder, scratch, progress)
            return _put_in_place(_finish(recipe, folder), folder, images)


def load(folder: Path) -> Image:
    """The image in a folder.

    Raises:
        MailboxError: `image-damaged` when the manifest or a file is missing or malformed.
    """
    manifest = read_manifest(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise _damaged(folder, f"It lacks {', '.join(missing)}.")
    return manifest.image(folder)


def list_images(images: Path) -> list[Image]:
    """All usable images, the newest first; a broken one is left out."""
    found = []
    for folder in images.iterdir() if images.is_dir() else ():
        if _FOLDER_NAME.fullmatch(folder.name):
            with contextlib.suppress(MailboxError):
                found.append(load(folder))
    return sorted(found, key=lambda image: (image.built, image.id), reverse=True)


def newest(client: str, images: Path) -> Image:
    """The image of a client that was built last.

    Raises:
        MailboxError: `image-missing`.
    """
    for image in list_images(images):
        if image.client == client:
            return image
    raise MailboxError(
        f"There is no image for {client} yet.",
        resolution=f"Run `mailbox image build {client}`.",
        code="image-missing",
        exit_code=Exit.NOT_FOUND,
    )


def verify(image: Image) -> None:
    """Compare every file with the manifest, reading all of it.

    Raises:
        MailboxError: `image-damaged`, naming each file that differs.
    """
    manifest = read_manifest(image.folder)
    wrong = [
        name
        for name, (expected, size) in manifest.files.items()
        if not _is_as_built(image.folder / name, expected, size)
    ]
    if wrong:
        raise _damaged(image.folder, f"Not as it was built: {', '.join(wrong)}.")


def remove(image: Image) -> None:
    """Remove an image: first from sight, then its files."""
    gone = image.folder.with_name(f"{_BUILD_PREFIX}removed-{image.folder.name}")
    with files.readable_errors(image.folder):
        image.folder.rename(gone)
        files.sync_folder(gone.parent)
        shutil.rmtree(gone)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an image.

    Raises:
        MailboxError: `image-damaged`.
    """
    try:
        document = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(folder, f"Its manifest cannot be read: {error}.") from error
    manifest, problems = _parse_manifest(document)
    if f"{manifest.client}-{manifest.id}" != folder.name:
        problems.append("the folder has another name than the image")
    if problems:
        raise _damaged(folder, "Its manifest is not valid: " + "; ".join(problems) + ".")
    return manifest


def _parse_manifest(document: Any) -> tuple[Manifest, list[str]]:
    reader = Reader(document)
    if reader.get("version", int) != 1:
        reader.problem("version", "is not known here")
    listed = reader.table("files")
    sums = {name: _parse_file(listed.table(name)) for name in FILES}
    listed.finish()
    manifest = Manifest(
        client=reader.get("client", str),
        id=reader.get("id", str),
        built=reader.get("built", str),
        suite=reader.get("suite", str),
        recipe=reader.get("recipe", str),
        files=sums,
        packages=dict(reader.get("packages", dict, {})),
    )
    if manifest.id != _image_id(sums):
        reader.problem("id", "does not belong to these files")
    reader.finish()
    return manifest, reader.problems


def _parse_file(reader: Reader) -> tuple[str, int]:
    found = reader.checked("sha256", lambda t: None if _SHA256.fullmatch(t) else "is no digest")
    size = reader.get("size", int)
    reader.finish()
    return found, size


def _image_id(sums: dict[str, tuple[str, int]]) -> str:
    return hashlib.sha256("".join(sums[name][0] for name in FILES).encode()).hexdigest()[:16]


def _is_as_built(path: Path, expected: str, size: int) -> bool:
    try:
        return path.stat().st_size == size and _sha256(path) == expected
    except OSError:
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _damaged(folder: Path, details: str) -> MailboxError:
    return MailboxError(
        f"The image {folder.name} is damaged and is not used.",
        details=details,
        resolution=f"Run `mailbox image build --rebuild {folder.name.rpartition('-')[0]}`.",
        code="image-damaged",
        exit_code=Exit.DAMAGED,
    )


def _waiting(progress: Progress) -> Callable[[str], None]:
    return lambda holder: progress(f"waiting for {holder}")


def _built_from(recipe: recipes.Recipe, images: Path) -> Image | None:
    for image in list_images(images):
        if image.client == recipe.client and read_manifest(image.folder).recipe == recipe.digest:
            return image
    return None


def _need(program: str) -> str:
    path = process.which(program)
    if path is None:
        raise MailboxError(
            f"An image cannot be built: {program} is not installed.",
            resolution="Install the packages mmdebstrap, uidmap and erofs-utils.",
            code="program-missing",
            exit_code=Exit.HOST,
        )
    return path


@contextlib.contextmanager
def _build_folder(client: str, images: Path) -> Iterator[Path]:
    """A folder beside the images, on the same file system, gone afterwards unless renamed."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_BUILD_PREFIX}{client}-", dir=images))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _scratch_folder(build_folder: Path) -> Iterator[Path]:
    """Where the guest's tree is made: other user numbers must get in, so not in private folders."""
    parent = Path(os.environ.get("TMPDIR") or "/var/tmp")  # noqa: S108 - /tmp may be memory
    free = shutil.disk_usage(parent).free
    if free < _SCRATCH_NEEDED:
        raise MailboxError(
            f"The image needs 3 GB in {parent} while it is built; {free // 10**6} MB are free.",
            resolution="Free some space, or set TMPDIR to a folder with more.",
            code="disk-full",
            exit_code=Exit.NO_SPACE,
        )
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH_PREFIX, dir=parent))
    try:
        scratch.chmod(0o711)
        (build_folder / "scratch").write_text(str(scratch), "utf-8")
        yield scratch
    finally:
        _remove_scratch(scratch)


def _remove_leftovers(images: Path) -> None:
    """Remove what a killed build left: its folder here and the guest's tree it was making."""
    for folder in images.glob(f"{_BUILD_PREFIX}*"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            scratch = Path((folder / "scratch").read_text("utf-8"))
            if scratch.name.startswith(_SCRATCH_PREFIX) and scratch.stat().st_uid == os.geteuid():
                _remove_scratch(scratch)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_scratch(scratch: Path) -> None:
    trees = [str(path) for path in scratch.glob("mmdebstrap.*")]
    if trees and os.geteuid() != 0:
        # Its files belong to our subordinate user numbers: only their root may remove them.
        process.run(["mmdebstrap", "--unshare-helper", "rm", "-rf", *trees], check=False)
    shutil.rmtree(scratch, ignore_errors=True)


def _run_mmdebstrap(
    recipe: recipes.Recipe, folder: Path, scratch: Path, progress: Progress
) -> None:
    overlay = folder / "overlay.tar"
    overlay.write_bytes(recipes.overlay(recipe))
    environment = dict(os.environ) | {
        "TMPDIR": str(scratch),
        "SOURCE_DATE_EPOCH": str(recipes.EPOCH),
        "LC_ALL": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/sbin:/sbin:" + os.environ.get("PATH", "/usr/bin:/bin"),
    }
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)
        del heard[:-12]
        if line.startswith("I: "):
            progress(line.removeprefix("I: "))

    done = process.run(
        mmdebstrap_command(recipe, overlay, folder, rootless=os.geteuid() != 0),
        env=environment,
        check=False,
        stdout_line=hear,
    )
    if done.returncode != 0:
        raise MailboxError(
            f"The image for {recipe.client} could not be built; nothing was changed.",
            details="\n".join(heard),
            resolution="Check the network and the free space, then run the command again.",
            code="image-build-failed",
            exit_code=Exit.HOST,
        )


def mmdebstrap_command(
    recipe: recipes.Recipe, overlay: Path, folder: Path, *, rootless: bool
) -> list[str]:
    """The one command that makes the guest's tree and packs it; pure."""
    unwanted = ("/usr/share/doc/*", "/usr/share/man/*", "/etc/kernel/postinst.d/initramfs-tools")
    work = f'"$1"/{recipes.WORK}'
    identity = uuid.UUID(recipe.digest[:32])
    hooks = [
        f"tar-in {shlex.quote(str(overlay))} /",
        *(f'"$1"/{hook} "$1"' for hook in recipes.hooks(recipe)),
        f"chroot \"$1\" dpkg-query -W -f '${{Package}} ${{Version}}\\n' >{work}/out/packages",
        f"{shlex.quote(_need('mkfs.erofs'))} --quiet -zlz4hc -C65536 -x-1 -T{recipes.EPOCH}"
        f" -U{identity} --exclude-path={recipes.WORK} --exclude-regex='^(dev|proc|run|sys|tmp)/.*'"
        f' {work}/out/root.erofs "$1" >/dev/null',
        *(
            f"download /{recipes.WORK}/out/{name} {shlex.quote(str(folder / name))}"
            for name in (*FILES, "packages")
        ),
    ]
    return [
        "mmdebstrap",
        f"--mode={'unshare' if rootless else 'root'}",
        "--variant=essential",
        "--format=null",
        "--skip=cleanup",  # the tree is thrown away
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={path}" for path in unwanted),
        f"--include={','.join(recipe.packages)}",
        *(f"--customize-hook={hook}" for hook in hooks),
        recipe.suite,
    ]


def _finish(recipe: recipes.Recipe, folder: Path) -> Manifest:
    """Write the manifest of the finished files, and everything to the disk for good."""
    lines = (folder / "packages").read_text("utf-8").splitlines()
    for name in ("overlay.tar", "packages", "scratch"):
        (folder / name).unlink()
    sums = {name: (_sha256(folder / name), (folder / name).stat().st_size) for name in FILES}
    built = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    manifest = Manifest(
        client=recipe.client,
        id=_image_id(sums),
        built=built,
        suite=recipe.suite,
        recipe=recipe.digest,
        files=sums,
        packages=dict(sorted(line.split(" ", 1) for line in lines if " " in line)),
    )
    for name in FILES:
        (folder / name).chmod(0o600)
        _sync(folder / name)
    files.replace(folder / MANIFEST, _manifest_json(manifest))
    return manifest


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _manifest_json(manifest: Manifest) -> bytes:
    sums = {name: {"sha256": sha, "size": size} for name, (sha, size) in manifest.files.items()}
    document = {
        "version": 1,
        "client": manifest.client,
        "id": manifest.id,
        "built": manifest.built,
        "suite": manifest.suite,
        "recipe": manifest.recipe,
        "files": sums,
        "packages": manifest.packages,
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def _put_in_place(manifest: Manifest, folder: Path, images: Path) -> Image:
    """Give the folder its name; an older image with the same content gives way."""
    target = images / f"{manifest.client}-{manifest.id}"
    if target.exists():
        target.rename(images / f"{_BUILD_PREFIX}replaced-{target.name}")
    folder.rename(target)
    files.sync_folder(images)
    _remove_leftovers(images)
    return manifest.image(target)
