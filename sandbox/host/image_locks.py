"""The locks by which QEMU keeps programs that do not go together off one image file.

Each permission that a program uses, and each that it shares with nobody, is one locked byte
(QEMU: block/file-posix.c, RAW_LOCK_PERM_BASE and RAW_LOCK_SHARED_BASE). They are locks of an open
file description (fcntl(2), F_OFD_SETLK): a program that inherits the description has them, too.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import IO

_USED, _UNSHARED = 100, 200
_PERMISSIONS = 64
_WRITE = 1  # of BLK_PERM_WRITE, which is the second bit
_LOCK = struct.Struct("hhqqi4x")  # struct flock of 64-bit Linux


def take_whole(file: IO[bytes]) -> bool:
    """Keep every QEMU off a file that is open for writing; False when one has it open."""
    wholes = ((first, _PERMISSIONS) for first in (_USED, _UNSHARED))
    return all(_lock(file, fcntl.F_WRLCK, begin, length) for begin, length in wholes)


def refuse_writers(file: IO[bytes]) -> bool:
    """Keep every other QEMU from opening the file for writing; False when that cannot be."""
    return _lock(file, fcntl.F_RDLCK, _UNSHARED + _WRITE, 1)


def _lock(file: IO[bytes], kind: int, begin: int, length: int) -> bool:
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, begin, length, 0))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES
        return False
    return True
