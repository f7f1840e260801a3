"""A volume on a disk that forgets at a power cut everything that it was not told to keep.

QEMU's `blklogwrites` driver notes each write and each flush in the order of their coming (as the
kernel's dm-log-writes does). The product finds the volume where it always is: a storage daemon
shows it there as a file. A power cut ends that daemon first, so that nothing can flush any more;
then the volume is what it was before, and all writes up to the last flush.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import time
from contextlib import suppress
from pathlib import Path

# Linux: Documentation/admin-guide/device-mapper/log-writes.rst; the sizes are in bytes.
_SECTOR = 512
_MAGIC = 0x6A736677736872
_FLUSH, _DISCARD = 1, 4


class ForgetfulDisk:
    """Use as a context manager; afterwards the volume is a plain file again."""

    def __init__(self, volume: Path, folder: Path) -> None:
        self._volume = volume
        self._before, self._real = folder / "before", folder / "real"
        self._log, self._pid = folder / "log", folder / "daemon.pid"

    def __enter__(self) -> ForgetfulDisk:
        shutil.move(self._volume, self._real)
        subprocess.run(["cp", "--sparse=always", self._real, self._before], check=True)
        self._log.touch()
        self._volume.touch(0o600)
        nodes = (
            f"driver=file,node-name=real,filename={self._real},discard=unmap",
            f"driver=file,node-name=log,filename={self._log}",
            f"driver=blklogwrites,node-name=noted,file=real,log=log,log-sector-size={_SECTOR}",
        )
        export = f"type=fuse,id=e,node-name=noted,mountpoint={self._volume},writable=on"
        command = ["qemu-storage-daemon", "--daemonize", "--pidfile", str(self._pid)]
        for node in nodes:
            command += ["--blockdev", node]
        subprocess.run([*command, "--export", export], check=True)
        return self

    def cut(self) -> None:
        """From now on nothing reaches the disk any more."""
        with suppress(ProcessLookupError):
            os.kill(int(self._pid.read_text()), signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        self.cut()
        subprocess.run(["fusermount3", "-u", "-z", str(self._volume)], check=False)
        for _ in range(100):
            with suppress(OSError):
                self._volume.unlink()
                break
            time.sleep(0.1)
        self._replay()
        self._before.chmod(0o600)
        shutil.move(self._before, self._volume)

    def _replay(self) -> None:
        """Bring the old file to where the last flush had it."""
        with self._log.open("rb") as log, self._before.open("r+b") as disk:
            magic, _version, _entries, size = struct.unpack("<QQQI", log.read(28))
            assert (magic, size) == (_MAGIC, _SECTOR), "not the log that was expected"
            pending: list[tuple[int, int, int]] = []
            at, end = _SECTOR, self._log.stat().st_size
            while at + 32 <= end:
                log.seek(at)
                sector, count, flags, _ = struct.unpack("<QQQQ", log.read(32))
                at += _SECTOR
                if flags & _FLUSH:
                    _apply(pending, log.fileno(), disk.fileno())
                    pending.clear()
                elif not flags & _DISCARD:
                    # What a discarded block holds is nobody's business.
                    pending.append((at, sector * _SECTOR, count * _SECTOR))
                    at += count * _SECTOR


def _apply(writes: list[tuple[int, int, int]], log: int, disk: int) -> None:
    for at, target, length in writes:
        os.pwrite(disk, os.pread(log, length, at), target)
