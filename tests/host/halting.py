"""Machines that start and stand still, for what libvirt, QEMU and `mailbox` do around a guest."""

from __future__ import annotations

import struct
from pathlib import Path

from demo.session import Session
from sandbox.host import image_manifest
from sandbox.host.image_manifest import MANIFEST, Manifest
from sandbox.state import files


def halting_kernel() -> bytes:
    """A Linux boot image as QEMU's loader knows it (Linux: arch/x86/boot.rst), that halts."""
    image = bytearray(64 * 1024)
    image[0x1F1] = 4  # sectors of set-up code
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x200:0x202] = b"\xeb\x66"  # jmp 0x268
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x020C)  # boot protocol
    image[0x211] = 1  # loaded high
    struct.pack_into("<I", image, 0x22C, 0x7FFFFFFF)  # highest address for the initrd
    image[0x268:0x26C] = b"\xfa\xf4\xeb\xfd"  # cli; hlt; jmp to hlt
    return bytes(image)


def halting_image(images: Path) -> None:
    """An image as `mailbox image build` leaves one, except that it halts."""
    making = files.private_folder(images / "making")
    (making / "vmlinuz").write_bytes(halting_kernel())
    (making / "initrd.img").write_bytes(bytes(4096))
    (making / "root.erofs").write_bytes(bytes(1024**2))
    sums = image_manifest.sums_of(making)
    manifest = Manifest(
        client="thunderbird",
        id=image_manifest.image_id(sums),
        built="2026-01-01T00:00:00Z",
        suite="trixie",
        recipe="0" * 64,
        files=sums,
        packages={},
    )
    (making / MANIFEST).write_bytes(image_manifest.to_json(manifest))
    making.rename(images / f"thunderbird-{manifest.id}")


def processes(session: Session) -> dict[str, tuple[bytes, bytes]]:
    """Command line and environment of every process that belongs to this session.

    The environment of one that lets nobody trace it, such as gpg-agent, reads as empty.
    """
    found = {}
    marks = [str(folder).encode() for folder in (session.root, session.runtime)]
    for path in Path("/proc").glob("[0-9]*"):
        command, environment = _read(path / "cmdline"), _read(path / "environ")
        ours = f"XDG_RUNTIME_DIR={session.runtime}\0".encode() in environment
        if ours or any(mark in command for mark in marks):
            found[path.name] = (command, environment)
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
