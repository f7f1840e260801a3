"""The customer's volume: wait for the disk, format it if it is wished and empty, mount it."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import say

SERIAL = "volume"
LABEL = "mailbox"
MOUNT_POINT = Path("/home")
HOME = MOUNT_POINT / "mail-user"
USER_ID = 1000
DISK_DEADLINE_S = 30.0
# Time enough for the host to stop the machine.
THAW_S = 30
# linux/fs.h, for 64-bit machines.
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_SYNC_FL = 0x80086601, 0x40086602, 0x8
# linux/fs.h: _IOWR('X', 120, int)
_FITHAW = 0xC0045878
OPTIONS = "nosuid,nodev,noatime,discard"


def open_volume(blank: bool) -> None:
    """Make the volume usable at /home, whatever state a former attempt left it in."""
    disk = wait_for_disk(DISK_DEADLINE_S)
    mounted = mounted_source()
    if mounted is None:
        prepare_file_system(disk, blank)
        _run_or_fail("mount", "-t", "ext4", "-o", OPTIONS, disk, str(MOUNT_POINT))
    elif mounted != disk:
        raise say.FailureError("volume-damaged", f"/home is {mounted}, not the volume")
    create_home()


def find_disk() -> str | None:
    """Return the device of the disk with the volume's serial, if it is plugged in."""
    for path in sorted(Path("/sys/block").glob("vd*/serial")):
        try:
            serial = path.read_text("ascii").strip()
        except (OSError, UnicodeError):
            continue
        if serial == SERIAL:
            return f"/dev/{path.parent.name}"
    return None


def wait_for_disk(deadline_s: float) -> str:
    """Return the volume's device, waiting for it: the host plugs it in while this runs."""
    end = time.monotonic() + deadline_s
    while (disk := find_disk()) is None or not Path(disk).exists():
        if time.monotonic() > end:
            raise say.FailureError(
                "volume-missing", f"no disk with serial {SERIAL!r} was plugged in"
            )
        time.sleep(0.1)
    return disk


def mounted_source() -> str | None:
    """Return the device that is mounted at /home."""
    for line in Path("/proc/self/mounts").read_text("utf-8").splitlines():
        source, target = line.split(" ")[:2]
        if target == str(MOUNT_POINT):
            return source
    return None


def prepare_file_system(disk: str, blank: bool) -> None:
    """Check the file system of the volume; make one only where nothing at all is found."""
    signatures = find_signatures(disk)
    if signatures.get("TYPE") == "ext4" and (not blank or signatures.get("LABEL") == LABEL):
        check_file_system(disk)
    elif signatures:
        found = signatures.get("TYPE") or signatures.get("PTTYPE") or "something"
        raise say.FailureError(
            "volume-damaged", f"the volume holds {found}, not the mailbox it should"
        )
    elif blank:
        make_file_system(disk)
    else:
        raise say.FailureError("volume-damaged", "the volume holds no file system")


def find_signatures(disk: str) -> dict[str, str]:
    """Return what is recognised on the disk; empty only if it certainly carries nothing known."""
    probe = _run("blkid", "-p", "-o", "export", disk)
    if probe.returncode == 0:
        lines = probe.stdout.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)
    wiped = _run("wipefs", "--noheadings", "--output", "TYPE", disk)
    if probe.returncode != 2 or wiped.returncode:
        raise say.FailureError("volume-damaged", f"the volume cannot be read: {_tail(probe)}")
    return {"TYPE": wiped.stdout.split()[0]} if wiped.stdout.split() else {}


def make_file_system(disk: str) -> None:
    """Make an ext4; few inodes, since mail programs keep few and large files."""
    options = ["-L", LABEL, "-m", "0", "-i", "65536", "-E", "nodiscard,lazy_itable_init=1"]
    _run_or_fail("mkfs.ext4", "-q", *options, disk)


def check_file_system(disk: str) -> None:
    """Replay the journal and repair what is safe to repair; say so when there was anything."""
    unclean = "needs_recovery" in _run("dumpe2fs", "-h", disk).stdout
    check = _run("e2fsck", "-p", disk)
    if check.returncode & ~0b11:
        raise say.FailureError(
            "volume-damaged", f"the volume needs a repair by hand: {_tail(check)}"
        )
    if check.returncode:
        say.warning("volume-repaired", f"the volume was repaired: {_tail(check)}")
    elif unclean:
        say.warning(
            "volume-unclean", "the volume was not closed last time; its journal was replayed"
        )


def create_home() -> None:
    """Make the user's home where it is missing; complete at once or not at all."""
    if HOME.is_dir():
        return
    unfinished = MOUNT_POINT / ".mail-user.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree("/etc/skel", unfinished)
    for path in [unfinished, *unfinished.rglob("*")]:
        os.chown(path, USER_ID, USER_ID, follow_symlinks=False)
    unfinished.chmod(0o700)
    unfinished.rename(HOME)


def write_through(folder: Path) -> None:
    """Let what is written to a folder be durable at once, as mail clients do not see to it.

    What is made in it later inherits that (ext4, chattr(1) S). As the user whose files they are: a
    link leads nowhere that this user could not write to anyway.
    """
    os.setegid(USER_ID)
    os.seteuid(USER_ID)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _, _, names, descriptor in os.fwalk(folder):
            if not mark_synchronous(descriptor):
                break
            for name in names:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
                file = os.open(name, flags, dir_fd=descriptor)
                mark_synchronous(file)
                os.close(file)
    except OSError as error:
        say.warning("mail-not-durable", f"a power cut may lose mail just stored: {error}")
    finally:
        os.seteuid(0)
        os.setegid(0)


def mark_synchronous(descriptor: int) -> bool:
    """Give a file or folder the attribute S; False when it has it already (ioctl_iflags(2))."""
    found = bytearray(8)
    fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, found)
    flags = int.from_bytes(found[:4], sys.byteorder)
    if flags & FS_SYNC_FL:
        return False
    fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, (flags | FS_SYNC_FL).to_bytes(8, sys.byteorder))
    return True


def freeze() -> None:
    """Let the file system rest, whole as it is on the disk; it thaws by itself after a while.

    The while counts only as long as the machine runs.
    """
    subprocess.Popen(
        ["/usr/bin/sh", "-c", f"sleep {THAW_S}; exec fsfreeze -u {MOUNT_POINT}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    _run_or_fail("fsfreeze", "-f", str(MOUNT_POINT))


def thaw() -> None:
    """Let the file system be written again; one that is not frozen stays as it is."""
    if mounted_source() is None:
        return
    folder = os.open(MOUNT_POINT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.ioctl(folder, _FITHAW, 0)
    finally:
        os.close(folder)


def close_volume() -> bool:
    """Unmount /home; if something still holds it, make it read-only. Say whether it is safe."""
    os.sync()
    for _ in range(20):
        if mounted_source() is None:
            return True
        if _run("umount", str(MOUNT_POINT)).returncode == 0:
            continue
        time.sleep(0.1)
    return _run("mount", "-o", "remount,ro", str(MOUNT_POINT)).returncode == 0


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _run_or_fail(*argv: str) -> None:
    done = _run(*argv)
    if done.returncode:
        raise say.FailureError("volume-damaged", f"{argv[0]} failed: {_tail(done)}")


def _tail(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stdout + done.stderr).split())[-300:] or f"exit {done.returncode}"
