"""Keyslots of volumes: looked into and changed without root, while no QEMU has the volume open."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sandbox.host import image_locks, luks, luks_new, volumes
from sandbox.model.errors import Exit, MailboxError
from sandbox.state import files

# What a person types deserves a slow PBKDF even with 140 random bits.
SLOW_PBKDF_S = 2.0


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
    if slot in active(path):
        raise _not_changed(path, f"Keyslot {slot} is in use.")
    iterations = luks_new.slow_iterations(SLOW_PBKDF_S) if slow else luks_new.FAST_ITERATIONS
    with explained(path), _alone(path) as descriptor:
        writes, derived = luks_new.new_keyslot(read(path), slot, opening, new, iterations)
        _write(descriptor, writes)
        opened = luks.remember(read(path), slot, new, derived)
    if not opened:
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
    with explained(path), _alone(path) as descriptor:
        writes = luks_new.dead_keyslot(read(path), slot)
        _write(descriptor, writes)
        after = read(path)
    if slot in active(path) or any(
        after[each.offset :][: len(each.content)] != each.content for each in writes
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


def _write(descriptor: int, writes: Iterable[luks_new.Write]) -> None:
    for each in writes:
        os.pwrite(descriptor, each.content, each.offset)
        os.fsync(descriptor)  # the next one says that this one is there


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[int]:
    """The volume to write to, while QEMU neither has it open nor opens it."""
    with files.readable_errors(path), path.open("r+b", buffering=0) as file:
        if not image_locks.take_whole(file):
            raise _in_use(path)
        yield file.fileno()


def _in_use(path: Path) -> MailboxError:
    return MailboxError(
        f"The volume {path} is in use; its keyslots were not changed.",
        resolution="Close the mailbox, then try again.",
        code="volume-in-use",
        exit_code=Exit.BUSY,
    )


def _not_changed(path: Path, details: str) -> MailboxError:
    return MailboxError(
        f"The keyslots of {path} could not be changed; the mail on it is untouched.",
        details=details,
        resolution="Try again; `mailbox doctor` checks QEMU, dmesg the disk.",
        code="keyslot-not-changed",
        exit_code=Exit.HOST,
    )
