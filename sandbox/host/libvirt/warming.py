"""A machine from the warm state of its image: another header, the same memory, nothing copied."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import libvirt

from sandbox.host.libvirt import connection as lv
from sandbox.host.libvirt import saveheader
from sandbox.model.errors import MailboxError
from sandbox.model.machine import MachineSpec
from sandbox.state import files

_CHUNK = 1024 * 1024
_WHAT = "bring the warm machine up"
# How often libvirt opens the file: once, or once for the header alone and again for all of it
# (qemu_saveimage.c, qemuSaveImageGetMetadata). Its version does not tell: Ubuntu's 10.0 does as
# 11.2 does.
_OPENED = (1, 2)


def start_warm(connection: libvirt.virConnect, spec: MachineSpec, state: Path, digest: str) -> None:
    """Start a machine from the saved memory in `state`, which is only read.

    Raises:
        MailboxError: `saved-machine-unknown` (also when its SHA-256 is not `digest`),
            `libvirt-error`.
    """
    fifo = spec.channel_socket.with_name("warm.fifo")
    with files.readable_errors(state), state.open("rb", buffering=0) as source:
        # The very file that is read afterwards, whatever its name may stand for then.
        if hashlib.file_digest(source, "sha256").hexdigest() != digest:
            raise saveheader.unknown("its file was damaged")
        head, memory = _head_for(source.fileno(), spec)
        for times in _OPENED:
            source.seek(memory)
            try:
                with _fed(fifo, head * times, source.fileno()), lv.explained(_WHAT):
                    connection.restoreFlags(str(fifo), None, libvirt.VIR_DOMAIN_SAVE_RUNNING)
                return
            except MailboxError:
                # It took the memory for a header, and started nothing.
                if times == _OPENED[-1]:
                    raise


def _head_for(source: int, spec: MachineSpec) -> tuple[bytes, int]:
    """The new header, and where in the source the memory begins (bytes)."""
    os.lseek(source, 0, os.SEEK_SET)
    fixed = os.read(source, saveheader.LENGTH)
    length = saveheader.data_length(fixed)
    found = saveheader.parse(fixed, os.pread(source, length, saveheader.LENGTH))
    xml = saveheader.for_machine(found.xml, spec)
    head = saveheader.write(saveheader.Header(xml, found.cookie, found.unused))
    return head, saveheader.LENGTH + length


@contextlib.contextmanager
def _fed(fifo: Path, head: bytes, source: int) -> Iterator[None]:
    """A named pipe out of which the header and the rest of the source come."""
    files.remove_pipe(fifo)
    os.mkfifo(fifo, 0o600)
    try:
        # As long as this end is open, who reads later need not wait, and the feeder is not refused.
        held = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        feeder = threading.Thread(target=_feed, args=(fifo, head, source))
        try:
            feeder.start()
            yield
        finally:
            # A feeder whom nobody reads any more is refused and ends.
            os.close(held)
            feeder.join()
    finally:
        files.remove_pipe(fifo)


def _feed(fifo: Path, head: bytes, source: int) -> None:
    # Python ignores SIGPIPE: a reader that gave up is an error here, and its reason is told there.
    with contextlib.suppress(OSError), fifo.open("wb", buffering=0) as sink:
        with contextlib.suppress(OSError):
            fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _CHUNK)
        left = memoryview(head)
        while left:
            left = left[sink.write(left) or 0 :]
        while os.splice(source, sink.fileno(), _CHUNK):
            pass
