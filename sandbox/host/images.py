"""Guest images: built from a recipe, found, verified, removed.

An image is a folder `<client>-<id>` with the kernel, the initrd, the root file system and a
manifest; it appears complete or not at all. The plans of these are in `sandbox.lifecycle.images`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sandbox.host import image_build, image_manifest, recipes
from sandbox.host.data import data_root
from sandbox.host.image_build import Progress
from sandbox.host.image_manifest import FILES, MANIFEST, Manifest, read_manifest
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import Image, Shape
from sandbox.model.warm import WarmFailure, WarmNote, read_failure, read_note
from sandbox.state import files, lock

# A folder that a build works in; whatever is found of them while the lock is ours is left over.
_BUILD_PREFIX = ".build-"
_WARM_NAME = re.compile(r"warm-(\d+)-(\d+)\.(?:json|failed)")
_FOLDER_NAME = re.compile(r"[a-z][a-z0-9]{0,31}-[0-9a-f]{16}")


@dataclass(frozen=True)
class Damaged:
    """A folder that is named as an image and cannot be used as one, with the reason."""

    folder: Path
    error: MailboxError

    @property
    def client(self) -> str:
        return self.folder.name.rpartition("-")[0]

    @property
    def id(self) -> str:
        return self.folder.name.rpartition("-")[2]


@dataclass(frozen=True)
class ImageStore:
    """The images of one user, as the lifecycle asks for them."""

    folder: Path
    recipes: Path = field(default_factory=lambda: data_root() / "images")

    @contextlib.contextmanager
    def alone(self, purpose: str, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Hold the images for one change; `on_wait` is told for whom this waits."""
        files.private_folder(self.folder)
        with lock.hold(self.folder / ".lock", purpose, on_wait):
            yield

    def is_changing(self) -> bool:
        """Whether a command that changes images runs now."""
        return lock.is_held(self.folder / ".lock")

    def built(self, client: str) -> Image | None:
        """The image that the client's recipe made already; raises for a bad or unknown recipe."""
        recipe = recipes.load(client, self.recipes)
        for image in list_images(self.folder):
            if image.client == client and read_manifest(image.folder).recipe == recipe.digest:
                return image
        return None

    def leftovers(self) -> list[str]:
        """The folders that killed commands left; those of a running one count, too."""
        return sorted(folder.name for folder in self.folder.glob(f"{_BUILD_PREFIX}*"))

    def clear(self, progress: Progress) -> None:
        """Remove what killed commands left."""
        for name in self.leftovers():
            image_build.remove_leftover(self.folder / name, progress)

    def make(self, client: str, progress: Progress) -> Path:
        """Make all of an image in a folder that counts as a leftover until `place`.

        Raises:
            MailboxError: `image-unknown`, `program-missing`, `disk-full`, `image-build-failed`.
            InvalidInputError: for a malformed recipe.
        """
        recipe = recipes.load(client, self.recipes)
        folder = Path(tempfile.mkdtemp(prefix=f"{_BUILD_PREFIX}{client}-", dir=self.folder))
        image_build.make(recipe, folder, progress)
        _finish(recipe, folder)
        return folder

    def place(self, made: Path) -> Image:
        """Give what `make` made its name; an older image with the same content gives way."""
        sums = image_manifest.sums_of(made)
        target = self.folder / f"{_client_of(made)}-{image_manifest.image_id(sums)}"
        if target.exists():
            target.rename(self.folder / f"{_BUILD_PREFIX}replaced-{target.name}")
        made.rename(target)
        files.sync_folder(self.folder)
        return load(target)

    def remove(self, image: Image | Damaged) -> None:
        """Remove an image, usable or not: first from sight, then its files."""
        gone = image.folder.with_name(f"{_BUILD_PREFIX}removed-{image.folder.name}")
        with files.readable_errors(image.folder):
            image.folder.rename(gone)
            files.sync_folder(gone.parent)
            shutil.rmtree(gone)

    def newest(self, client: str) -> Image:
        """The image of a client that was built last."""
        return newest(client, self.folder)

    def verify(self, image: Image) -> None:
        """Refuse an image that is not as it was built."""
        verify(image)

    def warm_note(self, image: Image, shape: Shape) -> WarmNote | None:
        """What is noted of the image's warm state; None when it has none that can be read."""
        try:
            note = read_note(image.warm_note(shape).read_bytes())
            return note if note and image.warm(shape).stat().st_size == note.size else None
        except OSError:
            return None

    def warm_failure(self, image: Image, shape: Shape) -> WarmFailure | None:
        """Why there is none, if making it has failed."""
        try:
            return read_failure(image.warm_failure(shape).read_bytes())
        except OSError:
            return None

    def note_failure(self, image: Image, shape: Shape, failure: WarmFailure) -> None:
        """Keep why it could not be made."""
        files.replace(image.warm_failure(shape), failure.write())

    def keep_warm(self, image: Image, shapes: Collection[Shape]) -> None:
        """Remove what is warm of other shapes, and of the client's older images."""
        kept = {name for shape in shapes for name in _warm_names(image, shape)}
        older = [each for each in list_images(self.folder) if each.client == image.client]
        for folder in {image.folder, *(each.folder for each in older)}:
            for path in folder.glob("warm*"):
                if folder != image.folder or path.name not in kept:
                    files.remove(path)

    @contextlib.contextmanager
    def new_warm_state(self, image: Image, shape: Shape, fits: Mapping[str, str]) -> Iterator[Path]:
        """Where to save a warm state; on leaving it is the image's, read-only and whole.

        The caller is alone with the images.
        """
        with _build_folder("warm", self.folder) as folder:
            target = folder / image.warm(shape).name
            yield target
            with files.readable_errors(target):
                target.chmod(0o400)
                _sync(target)
                note = WarmNote(image_manifest.sha256(target), target.stat().st_size, fits)
                # Without its note there is no warm state: never one with another's note.
                files.remove(image.warm_note(shape))
                target.replace(image.warm(shape))
                files.replace(image.warm_note(shape), note.write())
                files.remove(image.warm_failure(shape))


def warm_shapes(image: Image) -> list[Shape]:
    """The shapes of which the image has a warm state, or why there is none."""
    found = (_WARM_NAME.fullmatch(path.name) for path in image.folder.glob("warm-*"))
    return sorted({Shape(int(each[1]), int(each[2])) for each in found if each})


def warm_failures(folder: Path) -> list[str]:
    """What could not be made warm, and why."""
    store = ImageStore(folder)
    return [
        f"{image.client}, {shape}: {failure.reason}"
        for image in list_images(folder)
        for shape in warm_shapes(image)
        if not store.warm_note(image, shape) and (failure := store.warm_failure(image, shape))
    ]


def _warm_names(image: Image, shape: Shape) -> set[str]:
    files_of_it = (image.warm(shape), image.warm_note(shape), image.warm_failure(shape))
    return {path.name for path in files_of_it}


def load(folder: Path) -> Image:
    """The image in a folder.

    Raises:
        MailboxError: `image-damaged` when the manifest or a file is missing or malformed.
    """
    manifest = read_manifest(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise image_manifest.damaged(folder, f"It lacks {', '.join(missing)}.")
    return manifest.image(folder)


def list_images(images: Path) -> list[Image]:
    """All usable images, the newest first; a broken one is in `list_damaged`."""
    found = [each for each in map(_look, _folders(images)) if isinstance(each, Image)]
    return sorted(found, key=lambda image: (image.built, image.id), reverse=True)


def list_damaged(images: Path) -> list[Damaged]:
    """All images that cannot be used, by name."""
    return [each for each in map(_look, _folders(images)) if isinstance(each, Damaged)]


def _folders(images: Path) -> list[Path]:
    found = images.iterdir() if images.is_dir() else ()
    return sorted(folder for folder in found if _FOLDER_NAME.fullmatch(folder.name))


def _look(folder: Path) -> Image | Damaged:
    try:
        return load(folder)
    except MailboxError as error:
        return Damaged(folder, error)


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
        raise image_manifest.damaged(image.folder, f"Not as it was built: {', '.join(wrong)}.")


def _is_as_built(path: Path, expected: str, size: int) -> bool:
    try:
        return path.stat().st_size == size and image_manifest.sha256(path) == expected
    except OSError:
        return False


@contextlib.contextmanager
def _build_folder(client: str, images: Path) -> Iterator[Path]:
    """A folder beside the images, on the same file system, gone afterwards unless renamed."""
    folder = Path(tempfile.mkdtemp(prefix=f"{_BUILD_PREFIX}{client}-", dir=images))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _client_of(made: Path) -> str:
    return made.name.removeprefix(_BUILD_PREFIX).partition("-")[0]


def _finish(recipe: recipes.Recipe, folder: Path) -> None:
    """Write the manifest of the finished files, and everything to the disk for good."""
    sums = image_manifest.sums_of(folder)
    built = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    manifest = Manifest(
        client=recipe.client,
        id=image_manifest.image_id(sums),
        built=built,
        suite=recipe.suite,
        recipe=recipe.digest,
        files=sums,
        packages=image_build.read_packages(folder),
    )
    for name in FILES:
        (folder / name).chmod(0o600)
        _sync(folder / name)
    files.replace(folder / MANIFEST, image_manifest.to_json(manifest))


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
