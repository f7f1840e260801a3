"""LUKS volumes as raw files, made and destroyed without root."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from sandbox.host import luks, luks_new
from sandbox.model.errors import Exit, MailboxError
from sandbox.state import files

# Eight keyslots of 4000 stripes of a 64-byte key, each aligned to 4 KiB, end below this.
_LUKS1_HEADER = 2 * 1024**2
_CHUNK = 1024**2


@dataclass(frozen=True)
class VolumeFacts:
    """A volume as it is on the disk: size promised and space taken (bytes), changed when (ns)."""

    size: int
    allocated: int
    luks: bool
    changed: int = 0


def create(path: Path, size: int, key: bytes) -> None:
    """Make a LUKS volume of `size` bytes whose first keyslot opens with `key`.

    Never overwrites: raises `volume-exists`. Made under a temporary name and renamed, so that a
    volume under its own name is always whole.
    """
    files.private_folder(path.parent)
    if path.exists():
        raise MailboxError(
            f"A volume is already at {path}; it was not touched.",
            resolution="Move it away, or choose another name.",
            code="volume-exists",
            exit_code=Exit.EXISTS,
        )
    temporary = unfinished(path)
    try:
        _make(temporary, size, key)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _create_error(path, error) from None
    with files.readable_errors(path):
        os.link(temporary, path)  # unlike rename(2), refuses to replace
        temporary.unlink()
        files.sync_folder(path.parent)


def create_for_memory(path: Path, size: int, key: bytes) -> None:
    """Make the volume of a suspended machine, at once; what was there before is replaced.

    It survives a power cut; whether what was written to it does is told by its digest.
    """
    files.private_folder(path.parent)
    with files.readable_errors(path):
        _make(unfinished(path), size, key)
        unfinished(path).replace(path)
        files.sync_folder(path.parent)


def adopt(source: Path, path: Path) -> bool:
    """Copy a volume to where none is yet; returns whether a file system was ever written to it.

    Holes stay holes. The source is only read. Made under a temporary name as `create` does.
    """
    files.private_folder(path.parent)
    temporary = unfinished(path)
    files.remove(temporary)
    start = header_size(source)
    try:
        with files.readable_errors(path):
            written = _copy(source, temporary, start)
            os.link(temporary, path)
    finally:
        files.remove(temporary)
    return written


def _copy(source: Path, target: Path, data_from: int) -> bool:
    """Copy what is not zero; returns whether any of that lies behind `data_from`."""
    written = False
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with source.open("rb") as origin, os.fdopen(descriptor, "wb") as copy:
        while chunk := origin.read(_CHUNK):
            at = origin.tell() - len(chunk)
            if chunk.strip(b"\0"):
                copy.seek(at)
                copy.write(chunk)
                written = written or bool(chunk[max(0, data_from - at) :].strip(b"\0"))
        copy.truncate(origin.tell())
        copy.flush()
        os.fsync(copy.fileno())
    return written


def unfinished(path: Path) -> Path:
    """The name of a volume that is still being made."""
    return path.with_name(f".{path.name}.new")


def _make(path: Path, size: int, key: bytes) -> None:
    with path.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(luks_new.new_header(key))
        file.truncate(luks_new.PAYLOAD + size)
        file.flush()
        os.fsync(file.fileno())


def _create_error(path: Path, error: OSError) -> MailboxError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return MailboxError(
        f"The volume at {path} could not be made; nothing was kept of it.",
        details=error.strerror or "",
        resolution="Free some space and try again." if full else "See `mailbox doctor`.",
        code="disk-full" if full else "volume-not-made",
        exit_code=Exit.NO_SPACE if full else Exit.HOST,
    )


def look(path: Path) -> VolumeFacts | None:
    """What is at this path, or None when nothing is."""
    if not path.exists():
        return None
    with files.readable_errors(path):
        status = path.stat()
        with path.open("rb") as file:
            magic = file.read(len(luks.MAGIC))
    whole = magic == luks.MAGIC
    return VolumeFacts(status.st_size, status.st_blocks * 512, whole, status.st_mtime_ns)


def check(path: Path) -> None:
    """Refuse a volume that is missing or damaged before a machine is started for it.

    Raises:
        MailboxError: `volume-missing`, `volume-header-damaged`, `volume-truncated`.
    """
    facts = look(path)
    if facts is None:
        raise missing(path)
    if not facts.luks:
        raise header_damaged(path, "It does not begin as a LUKS header does.")
    if facts.size >= luks.PHDR:
        with files.readable_errors(path), path.open("rb") as file:
            content = file.read(luks.PHDR)
        try:
            luks.read_header(content)
        except luks.BadHeaderError as error:
            raise header_damaged(path, str(error)) from None
    if facts.size <= header_size(path):
        raise MailboxError(
            f"The volume {path} is cut off; nothing was written to it.",
            resolution="Copy the volume back from a backup.",
            code="volume-truncated",
            exit_code=Exit.DAMAGED,
        )


def missing(path: Path) -> MailboxError:
    """The error for a volume that is not there."""
    return MailboxError(
        f"The volume {path} is missing; without it the mail on this computer is gone.",
        resolution="Copy it back from a backup to that path, or shred this mailbox.",
        code="volume-missing",
        exit_code=Exit.DAMAGED,
    )


def header_damaged(path: Path, details: str) -> MailboxError:
    """The error for a header that cannot be what it was; the mail behind it may be whole."""
    return MailboxError(
        f"The header of the volume {path} is damaged; nothing was written to it.",
        details=details,
        resolution="`mailbox repair` puts a header backup back, if one was made; else copy the "
        "volume back from a backup. Do not write to it meanwhile.",
        code="volume-header-damaged",
        exit_code=Exit.DAMAGED,
    )


def header_size(path: Path) -> int:
    """Bytes before the encrypted data: header and all keyslots; a damaged header counts 2 MiB."""
    with files.readable_errors(path), path.open("rb") as file:
        content = file.read(luks.PHDR)
    try:
        return luks.read_header(content).payload
    except luks.BadHeaderError:
        return _LUKS1_HEADER


def erase_header(path: Path) -> bool:
    """Overwrite header and every keyslot with random bytes and read them back.

    Without a keyslot the volume key cannot be had from the key or any passphrase
    (cryptsetup-erase(8)). Returns whether a header was there to erase.
    """
    facts = look(path)
    if facts is None:
        return False
    length = min(header_size(path), facts.size)
    with files.readable_errors(path):
        descriptor = os.open(path, os.O_RDWR)
        try:
            erased = [_erase(descriptor, *part) for part in _written(descriptor, length)]
            # Then the holes between them, too, which hold nothing: on a full disk they stay.
            with contextlib.suppress(OSError):
                _erase(descriptor, 0, length)
        finally:
            os.close(descriptor)
    if not all(erased):
        raise MailboxError(
            f"The keyslots of {path} could not be overwritten; the volume may still be readable.",
            resolution="Check the disk (dmesg), then run `mailbox shred` again.",
            code="erase-failed",
            exit_code=Exit.DAMAGED,
        )
    return True


def _written(descriptor: int, length: int) -> list[tuple[int, int]]:
    """Beginning and end of what was ever written before `length` (lseek(2), SEEK_DATA).

    To overwrite these needs no room; to fill a hole does, on a disk that may have none.
    """
    parts, at = [], 0
    with contextlib.suppress(OSError):  # ENXIO: nothing but a hole from here on
        while at < length:
            begin = os.lseek(descriptor, at, os.SEEK_DATA)
            at = min(os.lseek(descriptor, begin, os.SEEK_HOLE), length)
            if begin < length:
                parts.append((begin, at))
    return parts


def _erase(descriptor: int, begin: int, end: int) -> bool:
    noise = secrets.token_bytes(end - begin)
    done = 0
    while done < len(noise):
        written = os.pwrite(descriptor, noise[done:], begin + done)
        if not written:
            return False  # and would be nothing again, for ever
        done += written
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, begin, end - begin, os.POSIX_FADV_DONTNEED)
    return os.pread(descriptor, end - begin, begin) == noise


def remove(path: Path) -> None:
    """Remove the volume and anything of it that was unfinished."""
    files.remove(unfinished(path))
    files.remove(path)
