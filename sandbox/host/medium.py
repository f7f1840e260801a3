"""What a volume rests on, and where copies of it may be: disks, snapshots, backup programs.

Disks: sysfs (Documentation/ABI/stable/sysfs-block); as `lsblk -o MODEL,SERIAL` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox.host.probes import disks, leaks
from sandbox.host.probes.disks import Encryption, Place
from sandbox.host.probes.system import System
from sandbox.model.inventory import Copy

_SNAPSHOT_FOLDERS = (".snapshots", ".zfs/snapshot", "timeshift/snapshots", "timeshift-btrfs")
# Besides those that the probes know; a configuration is read for the volume's path.
_MORE_CONFIGS = {
    "restic": ("~/.config/restic", "/etc/restic", "/etc/default/restic"),
    "Borg": ("~/.config/borg",),
    "snapper": ("/etc/snapper/configs",),
    "sanoid": ("/etc/sanoid/sanoid.conf",),
    "duplicity": ("~/.config/duply", "/etc/duply"),
}
_MOST_FILES = 40


def medium(system: System, path: Path) -> dict[str, Any]:
    """The file system and the disks below a path, as far as this computer tells."""
    place = disks.place_of(system, path)
    if place is None:
        return {"disks": []}
    return {
        "file_system": place.fs_type,
        "encryption": str(place.encryption),
        "virtual": system.is_virtual(),
        "disks": [_disk(system, name) for name in place.disks],
    }


def _disk(system: System, name: str) -> dict[str, str]:
    base = f"/sys/block/{name}"
    rotating = disks.is_rotating(system, name)
    kind = {True: "rotating", False: "flash", None: "unknown"}[rotating]
    return {
        "name": name,
        "model": _line(system, f"{base}/device/model"),
        "serial": _line(system, f"{base}/device/serial") or _line(system, f"{base}/serial"),
        "kind": "virtual" if name.startswith(("vd", "xvd")) else kind,
    }


def _line(system: System, path: str) -> str:
    text = (system.text(path) or "").strip()
    return "".join(char for char in text if char.isprintable())[:80]


def swap(system: System) -> str:
    """Whether memory could reach a disk in the clear: none, encrypted, plain, or unknown."""
    listed = system.text("/proc/swaps")
    if listed is None:
        return "unknown"
    areas = disks.parse_swaps(listed)
    kinds = {disks.swap_encryption(system, path, kind) for path, kind in areas}
    if Encryption.PLAIN in kinds:
        return "plain"
    if Encryption.UNKNOWN in kinds:
        return "unknown"
    return "encrypted" if kinds else "none"


def copies(system: System, volume: Path) -> tuple[Copy, ...]:
    """Snapshots and backup programs that may hold the volume; nobody here can destroy those."""
    return (*_snapshots(system, volume), *_backups(system, volume))


def _snapshots(system: System, volume: Path) -> Iterator[Copy]:
    place = disks.place_of(system, volume)
    seen = [folder for folder in _snapshot_folders(volume) if system.names(folder)]
    if seen:
        yield Copy("snapshots", "data", ", ".join(seen), False)
    elif place is None or _may_snapshot(place):
        yield Copy("snapshots", "data", place.fs_type if place else "", False, None)
    if system.is_virtual():
        yield Copy("host-snapshots", "data", "", False, None)


def _may_snapshot(place: Place) -> bool:
    return place.fs_type in ("btrfs", "zfs", "bcachefs") or place.thin


def _snapshot_folders(volume: Path) -> list[str]:
    return [str(parent / name) for parent in volume.parents for name in _SNAPSHOT_FOLDERS]


def _backups(system: System, volume: Path) -> Iterator[Copy]:
    """One row for each program that is set up; `seen` where its configuration names the path."""
    for tool, places in {**leaks.BACKUP_CONFIGS, **_MORE_CONFIGS}.items():
        paths = [each.replace("~", str(system.home), 1) for each in places]
        there = [path for path in paths if system.exists(path)]
        if there:
            named = any(_names(system, path, volume) for path in there)
            yield Copy(f"backup:{tool}", "data", there[0], False, True if named else None)


def _names(system: System, config: str, volume: Path) -> bool:
    # Folders below / such as /home are in nearly every text; from the user's home on it tells.
    wanted = [str(parent) for parent in volume.parents if len(parent.parts) >= 3]
    texts = [config, *(f"{config}/{name}" for name in system.names(config)[:_MOST_FILES])]
    return any(path in (system.text(text) or "") for text in texts for path in wanted)
