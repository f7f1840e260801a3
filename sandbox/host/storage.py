"""LUKS volumes opened outside of a machine, by QEMU's storage daemon (qemu-storage-daemon(1)).

Its keys go through a pipe, so they are in no command line, no file and no log, and no other
program is told of them. Each place that it serves has a process of its own, which ends with it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sandbox.host import image_locks, process
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import VOLUME_EXPORT
from sandbox.state import files

DAEMON = "qemu-storage-daemon"
_FUSE = Path("/dev/fuse")
_START_S = 60.0
_END_S = 30.0
_POLL_S = 0.05
_CHUNK = 1024 * 1024
_PIECE = 32 * _CHUNK


def suspend_problem() -> str | None:
    """Why no file of an encrypted volume can be shown to libvirt here; None when it can."""
    if process.which(DAEMON) is None:
        return f"{DAEMON} is not installed (apt install qemu-system-common)"
    if not _FUSE.exists():
        return "there is no /dev/fuse (modprobe fuse)"
    if not os.access(_FUSE, os.R_OK | os.W_OK):
        return "/dev/fuse is not usable by this user (its usual mode is 0666)"
    if os.geteuid() and process.which("fusermount3") is None:
        return "fusermount3 is not installed (apt install fuse3)"
    return None


def serve_file(volume: Path, key: bytes, place: Path) -> None:
    """Show the content of a LUKS volume as the file `place` (FUSE), to this user alone."""
    end(place)
    files.replace(place, b"")
    _serve(volume, key, place, [f"type=fuse,id=export,node-name=plain,mountpoint={place}"])


def serve_disk(volume: Path, key: bytes, place: Path) -> None:
    """Serve the content of a LUKS volume as a disk (NBD) at the UNIX socket `place`."""
    end(place)
    server = ["--nbd-server", f"addr.type=unix,addr.path={place},max-connections=1"]
    _serve(volume, key, place, [f"type=nbd,id=export,node-name=plain,name={VOLUME_EXPORT}"], server)
    with files.readable_errors(place):
        place.chmod(0o600)


def _serve(
    volume: Path, key: bytes, place: Path, exports: list[str], server: list[str] | None = None
) -> None:
    with (
        files.readable_errors(volume),
        volume.open("rb") as held,
        process.secret_pipe(key) as descriptor,
    ):
        command = [
            *(DAEMON, "--daemonize", "--pidfile", str(_pid_file(place))),
            *("--object", f"secret,id=key,file=/dev/fd/{descriptor},format=raw"),
            "--blockdev",
            f"driver=file,node-name=cipher,filename={_escaped(volume)},discard=unmap",
            "--blockdev",
            "driver=luks,node-name=plain,file=cipher,key-secret=key,discard=unmap",
            *(server or ()),
            *("--export", f"{exports[0]},writable=on"),
        ]
        # A crash must not write the key to the disk.
        command = ["prlimit", "--core=0:0", *command]
        umask = os.umask(0o077)
        try:
            passed = (descriptor, held.fileno())
            done = process.run(command, pass_fds=passed, check=False, timeout=_START_S)
        finally:
            os.umask(umask)
        # An export lets others write, too. The daemon has inherited what holds this lock.
        alone = done.returncode == 0 and image_locks.refuse_writers(held)
    if not alone:
        end(place)
        raise _refused(volume, done.last_error()) if done.returncode else _in_use("")


def _escaped(path: Path) -> str:
    # A comma begins the next option; two are one.
    return str(path).replace(",", ",,")


def _refused(volume: Path, text: str) -> MailboxError:
    if "password" in text.lower():
        return MailboxError(
            "The key in the keyring does not unlock this volume; nothing was changed on it.",
            details=text,
            resolution="Check that volume and keyring belong together, or restore the volume.",
            code="volume-key-wrong",
            exit_code=Exit.DAMAGED,
        )
    if '" lock' in text:
        return _in_use(text)
    return MailboxError(
        f"The volume {volume} could not be unlocked; nothing was changed on it.",
        details=text,
        resolution="`mailbox doctor` checks what QEMU needs.",
        code="volume-not-served",
        exit_code=Exit.HOST,
    )


def _in_use(text: str) -> MailboxError:
    return MailboxError(
        "The volume is in use by another program; nothing was changed on it.",
        details=text,
        resolution="Close what holds it (`fuser -v` names it), then try again.",
        code="volume-in-use",
        exit_code=Exit.BUSY,
    )


def serves(place: Path) -> bool:
    """Whether a daemon serves at `place`."""
    return bool(_processes(place))


def end(place: Path) -> None:
    """End what serves at `place`; returns once everything written there is on the disk.

    Raises:
        MailboxError: `volume-not-released` when the daemon does not end.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        if _gone_after(place, number):
            break
    else:
        raise MailboxError(
            f"The storage daemon at {place} does not end.",
            resolution="Run the command again; `mailbox doctor` checks QEMU.",
            code="volume-not-released",
            exit_code=Exit.HOST,
        )
    if _is_mounted(place):
        _unmount(place)
    for left in (place, _pid_file(place)):
        with contextlib.suppress(OSError):
            left.unlink(missing_ok=True)


def _gone_after(place: Path, number: signal.Signals) -> bool:
    going = _processes(place)
    for pid in going:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    until = time.monotonic() + _END_S
    while going and time.monotonic() < until:
        time.sleep(_POLL_S)
        going = _processes(place)
    return not going


def _is_mounted(place: Path) -> bool:
    """As the kernel has it: a mount whose daemon was killed can no longer be asked itself."""
    # proc_pid_mounts(5) writes blanks as octal numbers.
    wanted = str(place).replace("\\", "\\134").replace(" ", "\\040")
    mounts = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
    return any(line.split(" ")[1] == wanted for line in mounts)


def _unmount(place: Path) -> None:
    """A killed daemon leaves a dead mount behind."""
    program = "fusermount3" if shutil.which("fusermount3") else "umount"
    options = ["-u", "-z"] if program == "fusermount3" else ["-l"]
    process.run([program, *options, str(place)], check=False)


def _pid_file(place: Path) -> Path:
    return place.with_name(f"{place.name}.pid")


def _processes(place: Path) -> list[int]:
    """The daemon; while it starts, it is two, and its file does not name it yet."""
    return list(process.started_with(_pid_file(place)))


def digest(volume: Path) -> str:
    """SHA-256 over what a sparse file holds and where; finds damage, not forgery."""
    found = hashlib.sha256()
    with files.readable_errors(volume), volume.open("rb", buffering=0) as file:
        descriptor, size = file.fileno(), os.fstat(file.fileno()).st_size
        # Hashing leaves Python's lock, so each processor takes pieces of its own.
        with ThreadPoolExecutor(os.cpu_count()) as processors:
            for piece in processors.map(lambda at: _piece(descriptor, at), range(0, size, _PIECE)):
                found.update(piece)
    found.update(str(size).encode())
    return found.hexdigest()


def _piece(descriptor: int, start: int) -> bytes:
    """What one piece of a file holds; nothing for a hole."""
    found, at, end = hashlib.sha256(), start, start + _PIECE
    while (at := _next_data(descriptor, at, end)) < end:
        part = os.pread(descriptor, _CHUNK, at)
        # Whether zeros are written or a hole is the file system's affair.
        if part != bytes(len(part)):
            found.update(f"{at};".encode() + part)
        at += _CHUNK
    return found.digest()


def _next_data(descriptor: int, at: int, end: int) -> int:
    """The chunk in which data go on after a hole (lseek(2), SEEK_DATA)."""
    try:
        return max(at, os.lseek(descriptor, at, os.SEEK_DATA) // _CHUNK * _CHUNK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return end
        raise
