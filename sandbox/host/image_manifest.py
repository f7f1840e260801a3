"""The manifest of a guest image: what its files must be, byte for byte."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import Image
from sandbox.model.schema import Reader

FILES = ("vmlinuz", "initrd.img", "root.erofs")
MANIFEST = "manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")


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


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of an image.

    Raises:
        MailboxError: `image-damaged`.
    """
    try:
        document = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        raise damaged(folder, f"Its manifest cannot be read: {error}.") from error
    manifest, problems = _parse_manifest(document)
    if f"{manifest.client}-{manifest.id}" != folder.name:
        problems.append("the folder has another name than the image")
    if problems:
        raise damaged(folder, "Its manifest is not valid: " + "; ".join(problems) + ".")
    return manifest


def to_json(manifest: Manifest) -> bytes:
    """The manifest as it is written."""
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


def sums_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Digest and size of each file of an image."""
    return {name: (sha256(folder / name), (folder / name).stat().st_size) for name in FILES}


def image_id(sums: dict[str, tuple[str, int]]) -> str:
    """The name that an image has by its content."""
    return hashlib.sha256("".join(sums[name][0] for name in FILES).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    """The digest of a file, without holding the file in memory."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def damaged(folder: Path, details: str) -> MailboxError:
    """The error for an image that is not what it should be."""
    return MailboxError(
        f"The image {folder.name} is damaged and is not used.",
        details=details,
        resolution=f"Run `mailbox image build --rebuild {folder.name.rpartition('-')[0]}`.",
        code="image-damaged",
        exit_code=Exit.DAMAGED,
    )


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
    if manifest.id != image_id(sums):
        reader.problem("id", "does not belong to these files")
    reader.finish()
    return manifest, reader.problems


def _parse_file(reader: Reader) -> tuple[str, int]:
    found = reader.checked("sha256", lambda t: None if _SHA256.fullmatch(t) else "is no digest")
    size = reader.get("size", int)
    reader.finish()
    return found, size
