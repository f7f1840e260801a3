"""On which devices a path rests, and what is known about them: encrypted, flash, snapshots.

Read from /proc/self/mountinfo and sysfs, as `lsblk` does; needs no root and no program.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sandbox.host.probes.system import System

_DEPTH = 12  # stacked devices; more is a loop


class Encryption(StrEnum):
    """Whether what is written to a device is encrypted below the file system."""

    ENCRYPTED = "encrypted"
    PLAIN = "plain"
    MEMORY = "memory"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Mount:
    """A line of mountinfo (proc_pid_mountinfo(5))."""

    device: str
    mount_point: str
    fs_type: str
    source: str


@dataclass(frozen=True)
class Place:
    """What a path rests on; `disks` are the names of the devices at the bottom."""

    fs_type: str
    source: str
    encryption: Encryption
    thin: bool = False
    disks: tuple[str, ...] = ()


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), text)


def parse_mounts(mountinfo: str) -> list[Mount]:
    """All mounts; lines that are not understood are left out."""
    return [mount for line in mountinfo.splitlines() if (mount := _parse_mount(line))]


def _parse_mount(line: str) -> Mount | None:
    left, separator, right = line.partition(" - ")
    before, after = left.split(), right.split()
    if not separator or len(before) < 6 or len(after) < 2:
        return None
    return Mount(before[2], _unescape(before[4]), after[0], _unescape(after[1]))


def mount_of(mounts: Iterable[Mount], path: Path) -> Mount | None:
    """The mount that `path` lies on: the deepest, and the latest of those."""
    best: Mount | None = None
    for mount in mounts:
        covers = path.is_relative_to(mount.mount_point)
        if covers and (best is None or len(mount.mount_point) >= len(best.mount_point)):
            best = mount
    return best


def place_of(system: System, path: Path) -> Place | None:
    """What `path` (or its nearest existing parent) rests on; None without mountinfo."""
    mounts = parse_mounts(system.text("/proc/self/mountinfo") or "")
    existing = next((p for p in (path, *path.parents) if system.exists(p)), Path("/"))
    real = system.inside(system.at(existing).resolve()) if system.root == Path("/") else existing
    mount = mount_of(mounts, real)
    return _place(system, mount) if mount else None


def _place(system: System, mount: Mount) -> Place:
    if mount.fs_type in ("tmpfs", "ramfs"):
        return Place(mount.fs_type, mount.source, Encryption.MEMORY)
    nodes = _nodes_of(system, mount)
    return Place(
        mount.fs_type,
        mount.source,
        _all_of(_encryption(system, node) for node in nodes),
        any(_is_thin(node) for node in nodes),
        tuple(sorted({disk.name for node in nodes for disk in _bottom(node)})),
    )


def _nodes_of(system: System, mount: Mount) -> list[Path]:
    """The sysfs folders of a mount's block devices; btrfs has a made-up number and many."""
    if mount.fs_type == "btrfs":
        return _btrfs_nodes(system, mount.source)
    node = system.at(f"/sys/dev/block/{mount.device}")
    return [node.resolve()] if node.exists() else []


def _btrfs_nodes(system: System, source: str) -> list[Path]:
    name = system.at(source).resolve().name
    for uuid in system.names("/sys/fs/btrfs"):
        members = system.names(f"/sys/fs/btrfs/{uuid}/devices")
        if name in members:
            return [node for member in members if (node := block_node(system, member))]
    return []


def block_node(system: System, name: str) -> Path | None:
    """The sysfs folder of a device name such as sda2 or dm-0."""
    node = system.at(f"/sys/class/block/{name}")
    return node.resolve() if node.exists() else None


def device_encryption(system: System, device: str) -> Encryption:
    """Whether a device such as /dev/sda2 or /dev/mapper/swap is encrypted."""
    node = block_node(system, system.at(device).resolve().name)
    return _encryption(system, node) if node else Encryption.UNKNOWN


def _below(node: Path) -> list[Path]:
    """What a device is made of: its slaves, or the disk of a partition."""
    slaves = node / "slaves"
    found = [slave.resolve() for slave in slaves.iterdir()] if slaves.is_dir() else []
    if not found and (node / "partition").exists():
        found = [node.parent]
    return sorted(found)


def _dm_uuid(node: Path) -> str:
    try:
        return (node / "dm/uuid").read_text().strip()
    except OSError:
        return ""


def _encryption(system: System, node: Path, depth: int = 0) -> Encryption:
    if _dm_uuid(node).startswith("CRYPT-"):
        return Encryption.ENCRYPTED
    if node.name.startswith(("zram", "ram")):
        return Encryption.MEMORY
    if depth >= _DEPTH or not node.exists():
        return Encryption.UNKNOWN
    if node.name.startswith("loop"):
        return _loop_encryption(system, node, depth)
    below = _below(node)
    if below:
        return _all_of(_encryption(system, part, depth + 1) for part in below)
    # network devices and unknown mappers may be encrypted where we cannot see it
    known_plain = node.name.startswith(("sd", "nvme", "vd", "xvd", "hd", "mmcblk"))
    return Encryption.PLAIN if known_plain else Encryption.UNKNOWN


def _loop_encryption(system: System, node: Path, depth: int) -> Encryption:
    try:
        backing = (node / "loop/backing_file").read_text().strip()
    except OSError:
        return Encryption.UNKNOWN
    mounts = parse_mounts(system.text("/proc/self/mountinfo") or "")
    mount = mount_of(mounts, Path(backing))
    nodes = _nodes_of(system, mount) if mount else []
    return _all_of(_encryption(system, part, depth + 1) for part in nodes)


def _all_of(parts: Iterable[Encryption]) -> Encryption:
    """Encrypted only when every part is; one plain part makes the whole plain."""
    found = set(parts)
    for verdict in (Encryption.PLAIN, Encryption.UNKNOWN, Encryption.ENCRYPTED, Encryption.MEMORY):
        if verdict in found:
            return verdict
    return Encryption.UNKNOWN


def _walk(node: Path, depth: int = 0) -> Iterator[Path]:
    yield node
    if depth < _DEPTH:
        for part in _below(node):
            yield from _walk(part, depth + 1)


def _is_thin(node: Path) -> bool:
    return any(_dm_uuid(part).endswith("-tpool") for part in _walk(node))


def _bottom(node: Path) -> Iterator[Path]:
    return (part for part in _walk(node) if not _below(part))


def is_rotating(system: System, disk: str) -> bool | None:
    """Whether a disk rotates, as the kernel says; None when it does not say."""
    text = system.text(f"/sys/block/{disk}/queue/rotational")
    return {"1": True, "0": False}.get((text or "").strip())


def parse_swaps(swaps: str) -> list[tuple[str, str]]:
    """The active swap areas of /proc/swaps as (path, type)."""
    rows = (line.split() for line in swaps.splitlines()[1:])
    return [(_unescape(row[0]), row[1]) for row in rows if len(row) >= 2]


def swap_encryption(system: System, path: str, kind: str) -> Encryption:
    """Whether a swap area is encrypted; a swap file is what its file system is."""
    if kind == "file":
        place = place_of(system, Path(path))
        return place.encryption if place else Encryption.UNKNOWN
    return device_encryption(system, path)
