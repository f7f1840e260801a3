"""Copies of a volume's header with its keyslots: made, put back, and destroyed."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from sandbox.host import keyslots, luks, volumes
from sandbox.model.errors import Exit, MailboxError
from sandbox.state import files


def back_up(volume: Path, backup: Path) -> str:
    """Copy header and keyslots, in place of an older copy, which is overwritten; its SHA-256."""
    content = keyslots.read(volume)
    with keyslots.explained(volume):
        luks.read_header(content)
    old = backup.open("r+b") if backup.exists() else None
    try:
        files.replace(backup, content)
        if old is not None:
            _overwrite(old.fileno(), backup)
    finally:
        if old is not None:
            old.close()
    return hashlib.sha256(content).hexdigest()


def digest(backup: Path) -> str | None:
    """The SHA-256 of the copy, or None when there is none."""
    if not backup.exists():
        return None
    with files.readable_errors(backup):
        return hashlib.sha256(backup.read_bytes()).hexdigest()


def restore(volume: Path, backup: Path, noted: str) -> None:
    """Put the copy back over the volume's header, and read it back.

    Raises:
        MailboxError: `header-backup-damaged` when the copy is not the one noted; nothing is
            written then.
    """
    content = backup.read_bytes() if backup.exists() else b""
    if hashlib.sha256(content).hexdigest() != noted:
        raise MailboxError(
            f"The header backup {backup} is not as it was made; nothing was written.",
            resolution="Copy it, or the whole volume, back from a backup.",
            code="header-backup-damaged",
            exit_code=Exit.DAMAGED,
        )
    with files.readable_errors(volume):
        descriptor = os.open(volume, os.O_RDWR)
        try:
            os.pwrite(descriptor, content, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if keyslots.read(volume) != content:
        raise volumes.header_damaged(volume, "What was put back could not be read back.")


def destroy(backup: Path) -> bool:
    """Overwrite the copy and remove it; returns whether there was one."""
    if not backup.exists():
        return False
    with files.readable_errors(backup), backup.open("r+b") as file:
        _overwrite(file.fileno(), backup)
    files.remove(backup)
    return True


def _overwrite(descriptor: int, path: Path) -> None:
    with files.readable_errors(path):
        noise = secrets.token_bytes(os.fstat(descriptor).st_size)
        os.pwrite(descriptor, noise, 0)
        os.fsync(descriptor)
