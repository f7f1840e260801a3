"""Durable files: what these functions return from has survived a power cut."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from sandbox.model.errors import Exit, MailboxError


def private_folder(folder: Path) -> Path:
    """The folder, made with all its parents for its owner alone; an open one is closed.

    Raises:
        MailboxError: `folder-not-ours` when it belongs to somebody else, who could look into it.
    """
    with readable_errors(folder):
        missing = [each for each in (folder, *folder.parents) if not each.is_dir()]
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            sync_folder(each.parent)
        status = folder.stat()
        if status.st_uid != os.geteuid():
            raise _not_ours(folder)
        if status.st_mode & 0o077:
            folder.chmod(0o700)
    return folder


def _not_ours(folder: Path) -> MailboxError:
    return MailboxError(
        f"The folder {folder} belongs to somebody else, who could look into it; nothing was done.",
        resolution="Give it to yourself (chown), or set MAILBOX_HOME to a folder of your own.",
        code="folder-not-ours",
    )


def sync_folder(folder: Path) -> None:
    """Make names added to or removed from a folder durable (fsync(2))."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make everything in a folder durable that a program wrote which does not do so itself."""
    with readable_errors(folder):
        for path in (*folder.rglob("*"), folder):
            # A lock of that program's may go meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if path.is_dir():
                    sync_folder(path)
                elif path.is_file():
                    with path.open("rb") as file:
                        os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """Write a file so that, killed at any moment, it is either the old or the new one."""
    if not path.parent.is_dir():
        private_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.tmp")
    with readable_errors(path):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                sink.write(content)
                sink.flush()
                os.fsync(sink.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def create(path: Path, content: bytes) -> None:
    """Write a new file for its owner alone, durably; refuses one that is there, keeps no half."""
    with readable_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as sink:
                sink.write(content)
                sink.flush()
                os.fsync(sink.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def remove_unfinished(path: Path) -> None:
    """Remove what a killed `replace` of this file left; the caller holds the profile's lock."""
    pattern = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.tmp")
    with readable_errors(path):
        left = [each for each in path.parent.glob(".*.tmp") if pattern.fullmatch(each.name)]
        for each in left:
            each.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file and what was left of it, durably; one that is gone is removed already."""
    remove_unfinished(path)
    with readable_errors(path):
        if path.exists() or path.is_symlink():
            path.unlink()
            sync_folder(path.parent)


def stamp(path: Path) -> str:
    """Tells whether a file was changed: its size (bytes) and when that was (ns)."""
    with readable_errors(path):
        try:
            status = path.stat()
        except FileNotFoundError:
            return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"


def remove_pipe(path: Path) -> None:
    """Remove a named pipe; who waits in open(2) for its other end finds it, and goes on.

    Whoever opened it before it lost its name is woken (fifo(7): O_RDWR never waits); whoever comes
    later is told that it is not there.
    """
    try:
        if not stat.S_ISFIFO(path.lstat().st_mode):
            return
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def remove_pipes(folder: Path) -> None:
    """Remove the named pipes of a folder that is about to go."""
    for path in folder.glob("*"):
        remove_pipe(path)


@contextlib.contextmanager
def readable_errors(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a sentence with the way out."""
    try:
        yield
    except OSError as error:
        full = error.errno in (28, 122)  # ENOSPC, EDQUOT
        raise MailboxError(
            f"The disk that holds {path} is full; nothing that was there is lost."
            if full
            else f"{path} could not be used: {error.strerror}.",
            resolution="Free some space and run the command again."
            if full
            else "Check the folder's owner and permissions, then run the command again.",
            code="disk-full" if full else "file-error",
            exit_code=Exit.NO_SPACE if full else Exit.FAILED,
        ) from error
