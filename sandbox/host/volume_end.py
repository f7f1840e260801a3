"""The end of a volume: what its header said, whether a key opens it, its blocks given back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sandbox.host import luks, process
from sandbox.model.errors import MailboxError

_DEADLINE_S = 60.0


def describe(path: Path) -> dict[str, Any]:
    """What the header of a LUKS1 volume says; empty when there is none to read.

    `key_bits` are those of the cipher, whose XTS mode takes two keys (IEEE 1619).
    """
    try:
        with path.open("rb") as file:
            header = luks.read_header(file.read(luks.PHDR))
    except (OSError, luks.BadHeaderError):
        return {}
    return {
        "luks_version": 1,
        "volume_id": header.uuid,
        "cipher": luks.CIPHER,
        "hash": header.hash,
        "key_bits": header.key_bytes * 8 // 2,
        "keyslots": len(header.slots),
    }


def opens(path: Path, key: bytes) -> bool | None:
    """Whether QEMU reads the volume's first sector with this key; None when it cannot be tried.

    This is the program that opens it for a machine, so its refusal is the one that counts.
    """
    if not path.is_file() or process.which("qemu-io") is None:
        return None
    name = str(path).replace(",", ",,")
    image = f"driver=luks,key-secret=key,file.driver=file,file.filename={name}"
    with process.secret_pipe(key) as descriptor:
        secret = f"secret,id=key,file=/dev/fd/{descriptor},format=raw"
        command = ["qemu-io", "-r", "-U", "--object", secret, "-c", "read 0 512"]
        try:
            done = process.run(
                [*command, "--image-opts", image],
                pass_fds=(descriptor,),
                check=False,
                timeout=_DEADLINE_S,
            )
        except MailboxError:
            return None
    # Older versions of qemu-io end with 0 although a command failed.
    return done.returncode == 0 and b"read 512/512" in done.stdout


def discard(path: Path) -> bool | None:
    """Give the volume's blocks back to the file system (fallocate(2), FALLOC_FL_PUNCH_HOLE).

    Returns None when there is no volume, and False where the file system cannot.
    """
    if not path.is_file() or path.stat().st_size == 0:
        return None
    size = str(path.stat().st_size)
    command = ["fallocate", "--punch-hole", "--offset", "0", "--length", size, str(path)]
    try:
        return process.run(command, check=False).returncode == 0
    except MailboxError:
        return False
