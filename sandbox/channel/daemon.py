"""What makes a Python program a lone background process: lock, own session, log."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


class Name:
    """The name of a file that was made here: another's, when the file there is not that one."""

    def __init__(self, path: Path, made: os.stat_result | None = None) -> None:
        self._path = path
        self._made = made or path.stat()

    def is_ours(self) -> bool:
        """Whether the file can still be reached by it."""
        with suppress(OSError):
            return os.path.samestat(self._path.stat(), self._made)
        return False

    def remove(self) -> None:
        """Remove the file, unless it is another's."""
        if self.is_ours():
            self._path.unlink(missing_ok=True)


def lock_file(control: Path) -> Path:
    """The file whose lock makes the process behind a control socket the only one."""
    return control.with_name(control.name + ".lock")


def own_lock(control: Path, given: Sequence[str]) -> int | None:
    """The lock that the process was born with, by its descriptor's number, else one taken now."""
    return int(given[0]) if given else hold_lock(control)


def release_lock(control: Path, descriptor: int) -> None:
    """Remove the file of a lock that ends with this process, unless it is another's by now."""
    Name(lock_file(control), os.fstat(descriptor)).remove()


def hold_lock(control: Path) -> int | None:
    """Return the descriptor that holds the lock until the process ends, None if it is taken."""
    path = lock_file(control)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if Name(path, os.fstat(descriptor)).is_ours():
            return descriptor
        # Its last holder removed the file between our open and our lock.
        os.close(descriptor)


def detach(log_file: Path) -> None:
    """Leave the starter's session and streams; nothing of this process may reach a core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(PermissionError):
        os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    log_descriptor = os.open(log_file, flags, 0o600)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, target in ((null, 0), (log_descriptor, 1), (log_descriptor, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(log_descriptor)
    _configure_log()


def _configure_log() -> None:
    formatter = logging.Formatter("%(asctime)sZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.INFO)
    # asyncssh logs what guests tell about themselves.
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL + 1)
