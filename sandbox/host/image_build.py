"""The making of a guest image's files from a recipe, by mmdebstrap and mkfs.erofs, without root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from sandbox.host import process, recipes
from sandbox.host.image_manifest import FILES
from sandbox.model.errors import Exit, MailboxError

Progress = Callable[[str], None]

PACKAGES = "packages"
_OVERLAY = "overlay.tar"
_SCRATCH = "scratch"
_SCRATCH_PREFIX = "mailbox-build-"
_SCRATCH_NEEDED = 3 * 1024**3
_PROGRAMS = ("mmdebstrap", "mkfs.erofs")
# What mmdebstrap says, and what a person is told.
_STAGES = {
    "I: running apt-get update": "reading the package lists",
    "I: downloading packages": "downloading packages",
    "I: extracting archives": "unpacking the base",
    "I: installing essential packages": "installing the base",
    "I: installing remaining packages": "installing the packages",
    "I: running special hook: tar-in": "adding our own files",
    "mailbox: ": "",
}


def make(recipe: recipes.Recipe, folder: Path, progress: Progress) -> None:
    """Make the files of an image, and the list of its packages, in this folder.

    Raises:
        MailboxError: `program-missing`, `disk-full`, `image-build-failed`.
    """
    for program in _PROGRAMS:
        _need(program)
    overlay = folder / _OVERLAY
    overlay.write_bytes(recipes.overlay(recipe))
    with _scratch_folder(folder) as (scratch, note):
        _run_mmdebstrap(recipe, overlay, scratch, note, progress)
    overlay.unlink()
    (folder / _SCRATCH).unlink()


def read_packages(folder: Path) -> dict[str, str]:
    """The versions of the packages in an image that was just made; the list is used up."""
    lines = (folder / PACKAGES).read_text("utf-8").splitlines()
    (folder / PACKAGES).unlink()
    return {name: version for name, _, version in (line.partition(" ") for line in sorted(lines))}


def remove_leftover(folder: Path, progress: Progress) -> None:
    """Remove what a killed build left: its folder and the guest's tree that it was making."""
    with contextlib.suppress(OSError, UnicodeDecodeError), (folder / _SCRATCH).open() as note:
        _wait_for_orphan(note.fileno(), progress)
        scratch = Path(note.read())
        if scratch.name.startswith(_SCRATCH_PREFIX) and scratch.stat().st_uid == os.geteuid():
            _remove_scratch(scratch)
    shutil.rmtree(folder, ignore_errors=True)


def _wait_for_orphan(note: int, progress: Progress) -> None:
    """Wait for the mmdebstrap of a killed build: it inherited the lock on this file."""
    try:
        fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        progress("waiting for the rest of a killed build")
        fcntl.flock(note, fcntl.LOCK_EX)


def mmdebstrap_command(recipe: recipes.Recipe, overlay: Path, *, rootless: bool) -> list[str]:
    """The one command that makes the guest's tree and packs it; pure."""
    unwanted = ("/usr/share/doc/*", "/usr/share/man/*", "/etc/kernel/postinst.d/initramfs-tools")
    folder = overlay.parent
    work = f'"$1"/{recipes.WORK}'
    identity = uuid.UUID(recipe.digest[:32])
    hooks = [
        f"tar-in {shlex.quote(str(overlay))} /",
        *(f'"$1"/{hook} "$1"' for hook in recipes.hooks(recipe)),
        f"chroot \"$1\" dpkg-query -W -f '${{Package}} ${{Version}}\\n' >{work}/out/{PACKAGES}",
        "echo mailbox: packing the root file system",
        f"{shlex.quote(_need('mkfs.erofs'))} --quiet -zlz4hc -C65536 -x-1 -T{recipes.EPOCH}"
        f" -U{identity} --exclude-path={recipes.WORK}"
        f" --exclude-regex='^(dev|run|tmp)/|^(proc|sys)$'"
        f' {work}/out/root.erofs "$1" >/dev/null',
        *(
            f"download /{recipes.WORK}/out/{name} {shlex.quote(str(folder / name))}"
            for name in (*FILES, PACKAGES)
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
def _scratch_folder(build_folder: Path) -> Iterator[tuple[Path, int]]:
    """Where the guest's tree is made: other user numbers must get in, so not in private folders.

    It is noted in the build's folder; the second result is the lock on that note.
    """
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
        with (build_folder / _SCRATCH).open("w") as note:
            fcntl.flock(note, fcntl.LOCK_EX)
            note.write(str(scratch))
            note.flush()
            yield scratch, note.fileno()
    finally:
        _remove_scratch(scratch)


def _remove_scratch(scratch: Path) -> None:
    trees = [str(path) for path in scratch.glob("mmdebstrap.*")]
    if trees and os.geteuid() != 0:
        # Its files belong to our subordinate user numbers: only their root may remove them.
        process.run(["mmdebstrap", "--unshare-helper", "rm", "-rf", *trees], check=False)
    shutil.rmtree(scratch, ignore_errors=True)


def _run_mmdebstrap(
    recipe: recipes.Recipe, overlay: Path, scratch: Path, note: int, progress: Progress
) -> None:
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
        stage = _stage(line)
        if stage:
            progress(stage)

    done = process.run(
        mmdebstrap_command(recipe, overlay, rootless=os.geteuid() != 0),
        env=environment,
        pass_fds=(note,),
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


def _stage(line: str) -> str | None:
    for prefix, text in _STAGES.items():
        if line.startswith(prefix):
            return text or line.removeprefix(prefix)
    return None
