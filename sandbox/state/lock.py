"""One verb at a time for a profile. flock(2): a dead holder's lock is free at once."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from sandbox.state import files


@contextlib.contextmanager
def hold(path: Path, purpose: str, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock at `path`; when it is taken, tell `on_wait` by whom and wait."""
    with _opened(path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            on_wait(holder or "another command")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Only told to those who wait: a full disk keeps nobody from holding the lock.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"`{purpose}` (process {os.getpid()})".encode(), 0)
        yield


@contextlib.contextmanager
def take_turn(path: Path) -> Iterator[None]:
    """Hold the lock at `path` for a moment; who comes meanwhile waits."""
    with _opened(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def attempt(path: Path) -> Iterator[bool]:
    """Hold the lock at `path`, or tell that somebody else does; waits for nobody."""
    with _opened(path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    files.private_folder(path.parent)
    with files.readable_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def holder(path: Path) -> str:
    """Who holds the lock now; empty when nobody does."""
    try:
        return path.read_text(errors="replace").strip() if is_held(path) else ""
    except OSError:
        return ""


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock now."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
