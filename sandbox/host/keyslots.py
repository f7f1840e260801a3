"""Keyslots of volumes: looked into with our own eyes, changed by QEMU's LUKS driver."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from sandbox.host import luks, process, volumes
from sandbox.model.errors import Exit, MailboxError
from sandbox.state import files

# What a person types deserves a slow PBKDF even with 140 random bits; in milliseconds.
SLOW_PBKDF_MS = 2000


def find(path: Path, passphrase: bytes) -> int | None:
    """The keyslot that the passphrase opens, or None; reads only.

    Raises:
        MailboxError: `volume-missing`, `volume-header-damaged`.
    """
    with explained(path):
        return luks.find_slot(read(path), passphrase)


def active(path: Path) -> tuple[int, ...]:
    """The numbers of the keyslots in use; raises as `find`."""
    with explained(path):
        return tuple(slot.number for slot in luks.read_header(read(path)).slots)


def fingerprints(path: Path) -> dict[str, str]:
    """SHA-256 of each part of the header in use, to be noted when it changes; raises as `find`."""
    with explained(path):
        return luks.fingerprints(read(path))


def expected_size(path: Path, size: int) -> int:
    """The length of the file of a volume that holds `size` bytes; raises as `find`."""
    with explained(path):
        return luks.read_header(read(path)).payload + size


def add(path: Path, slot: int, opening: bytes, new: bytes, *, slow: bool) -> None:
    """Let `new` open a keyslot that is free, or that it opens already.

    Raises:
        MailboxError: `keyslot-not-changed`, `volume-in-use`, `disk-full`, or as `find`.
    """
    if _opens(path, slot, new):
        return
    milliseconds = SLOW_PBKDF_MS if slow else volumes.FAST_PBKDF_MS
    change = f"state=active,new-secret=new,keyslot={slot},iter-time={milliseconds}"
    _amend(path, opening, change, new)
    if not _opens(path, slot, new):
        raise _not_changed(path, "The new keyslot does not open.")


def kill(path: Path, slot: int, opening: bytes) -> None:
    """Overwrite a keyslot other than the one that `opening` opens; one not in use stays so.

    Raises:
        MailboxError: as `add`.
    """
    if slot not in active(path):
        return
    if find(path, opening) in (None, slot):
        raise _not_changed(path, "No other keyslot would open it.")
    before = read(path)
    _amend(path, opening, f"state=inactive,keyslot={slot}", None)
    old = luks.read_header(before).slot(slot)
    after = read(path)
    if slot in active(path) or (
        old and before[old.offset :][: old.length] == after[old.offset :][: old.length]
    ):
        raise _not_changed(path, f"Keyslot {slot} could not be overwritten.")


def read(path: Path) -> bytes:
    """The volume up to its data, as far as it is there; of a damaged one, its first 2 MiB."""
    if not path.exists():
        raise volumes.missing(path)
    with files.readable_errors(path), path.open("rb") as file:
        return file.read(volumes.header_size(path))


def _opens(path: Path, slot: int, passphrase: bytes) -> bool:
    with explained(path):
        return luks.opens(read(path), slot, passphrase)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what is wrong with a header into a sentence."""
    try:
        yield
    except luks.BadHeaderError as error:
        raise volumes.header_damaged(path, str(error)) from None


def _amend(path: Path, opening: bytes, change: str, new: bytes | None) -> None:
    image = f"driver=luks,key-secret=key,file.filename={str(path).replace(',', ',,')}"

    def once() -> process.Completed:
        with contextlib.ExitStack() as pipes:
            secrets = {"key": opening} | ({"new": new} if new is not None else {})
            fds = {
                name: pipes.enter_context(process.secret_pipe(secrets[name])) for name in secrets
            }
            objects = [
                part
                for name, fd in fds.items()
                for part in ("--object", f"secret,id={name},file=/dev/fd/{fd},format=raw")
            ]
            command = ["qemu-img", "amend", "-q", *objects, "-o", change, "--image-opts", image]
            return process.run(command, pass_fds=tuple(fds.values()), check=False)

    done = volumes.steadily(once)
    if done.returncode != 0:
        raise _refused(path, done.last_error())
    with files.readable_errors(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _refused(path: Path, text: str) -> MailboxError:
    if "lock" in text.lower():
        return MailboxError(
            f"The volume {path} is in use; its keyslots were not changed.",
            resolution="Close the mailbox, then try again.",
            code="volume-in-use",
            exit_code=Exit.BUSY,
        )
    if "No space left" in text:
        return MailboxError(
            f"The disk that holds {path} is full; what opened the volume before still does.",
            resolution="Free some space and run the command again.",
            code="disk-full",
            exit_code=Exit.NO_SPACE,
        )
    return _not_changed(path, text)


def _not_changed(path: Path, details: str) -> MailboxError:
    return MailboxError(
        f"The keyslots of {path} could not be changed; the mail on it is untouched.",
        details=details,
        resolution="Try again; `mailbox doctor` checks QEMU, dmesg the disk.",
        code="keyslot-not-changed",
        exit_code=Exit.HOST,
    )
