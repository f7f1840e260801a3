"""Where this computer itself would let mail, keys or traces out: disks, swap, dumps, copies.

Volumes are encrypted whatever the disk below; what is at stake here is the memory of open
machines, the records about customers, and copies that a later `shred` does not reach.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.host.probes.disks import Encryption, Place
from sandbox.host.probes.finding import Verdict, ok, problem, unknown, warning
from sandbox.host.probes.system import System

_CANNOT_SEE = {"zfs", "overlay", "ecryptfs", "nfs", "nfs4", "cifs", "9p", "virtiofs", "bcachefs"}
_NO_CORE = "echo 'kernel.core_pattern=|/bin/false' | sudo tee /etc/sysctl.d/60-no-core.conf"

BACKUP_CONFIGS = {
    "Timeshift": ("/etc/timeshift/timeshift.json", "/etc/timeshift.json"),
    "borgmatic": (
        "/etc/borgmatic/config.yaml",
        "/etc/borgmatic.d",
        "~/.config/borgmatic/config.yaml",
        "~/.config/borgmatic.d",
    ),
    "Déjà Dup": ("~/.cache/deja-dup",),
    "Vorta": ("~/.local/share/Vorta",),
    "Back In Time": ("~/.config/backintime/config", "/etc/backintime/config"),
    "rsnapshot": ("/etc/rsnapshot.conf",),
    "Kup": ("~/.config/kuprc",),
}


def judge_data_encryption(place: Place | None, folder: Path, *, virtual: bool) -> Verdict:
    """Whether records and images rest on an encrypted device."""
    if place is None:
        return unknown(f"It could not be found out which device holds {folder}")
    where = f"{folder} is on {place.fs_type} ({place.source})"
    if place.encryption is Encryption.ENCRYPTED:
        return ok(f"{where}, encrypted below the file system")
    if place.encryption is Encryption.MEMORY:
        return problem(
            f"{where}: in memory, so every mailbox is lost when the computer stops",
            "Set MAILBOX_HOME to a folder on a disk",
        )
    if place.encryption is Encryption.UNKNOWN or _opaque(place.fs_type):
        return unknown(f"{where}; whether that is encrypted cannot be seen from here")
    below = "; what lies below this virtual computer's disk cannot be seen" if virtual else ""
    return warning(
        f"{where}, not encrypted: volumes are, the records about customers are not{below}",
        "Install the system with full disk encryption, or move MAILBOX_HOME to an encrypted disk",
    )


def _opaque(fs_type: str) -> bool:
    return fs_type in _CANNOT_SEE or fs_type.startswith("fuse")


def judge_swap(areas: Mapping[str, Encryption]) -> Verdict:
    """The memory of an open machine, plaintext mail and its key included, can go to swap."""
    if not areas:
        return ok("No swap")
    plain = [path for path, kind in areas.items() if kind is Encryption.PLAIN]
    unclear = [path for path, kind in areas.items() if kind is Encryption.UNKNOWN]
    if plain:
        return problem(
            f"Swap on {', '.join(plain)} is not encrypted: mail and keys of open machines "
            "can be written to it",
            f"sudo swapoff {' '.join(plain)}; zram is fine: sudo apt-get install zram-tools",
        )
    if unclear:
        return unknown(f"Whether swap on {', '.join(unclear)} is encrypted cannot be seen")
    return ok(f"Swap on {', '.join(areas)} is encrypted or in memory")


def resume_device(system: System) -> str | None:
    """What a hibernated system would resume from, where that is set up."""
    number = (system.text("/sys/power/resume") or "").strip()
    if number not in ("", "0:0"):
        return number
    command_line = (system.text("/proc/cmdline") or "").split()
    for word in command_line:
        if word.startswith("resume=") and "noresume" not in command_line:
            return word.partition("=")[2]
    setting = system.text("/etc/initramfs-tools/conf.d/resume") or ""
    found = re.search(r"^\s*RESUME=(\S+)", setting, re.MULTILINE)
    return found[1] if found and found[1].lower() != "none" else None


def _drop_ins(system: System, name: str) -> str:
    """The texts of a systemd configuration file and its drop-ins, the deciding one last."""
    texts = [system.text(f"{base}/systemd/{name}") or "" for base in ("/usr/lib", "/etc")]
    for base in ("/usr/lib", "/etc", "/run"):
        folder = f"{base}/systemd/{name}.d"
        texts += [system.text(f"{folder}/{part}") or "" for part in system.names(folder)]
    return "\n".join(texts)


def setting(text: str, key: str) -> str | None:
    """The last value of a key in a systemd configuration."""
    values = re.findall(rf"^[ \t]*{re.escape(key)}[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE)
    return values[-1] if values else None


def hibernation_forbidden(system: System) -> bool:
    """Whether systemd's sleep.conf forbids hibernation."""
    value = setting(_drop_ins(system, "sleep.conf"), "AllowHibernation") or "yes"
    return value.lower() in ("no", "false", "0", "off")


def judge_hibernation(
    states: str | None, *, forbidden: bool, resume: str | None, areas: Mapping[str, Encryption]
) -> Verdict:
    """Hibernation writes all memory to swap: every open machine with its key."""
    on_disk = {path: kind for path, kind in areas.items() if kind is not Encryption.MEMORY}
    if states is None:
        return unknown("/sys/power/state cannot be read")
    if "disk" not in states.split():
        return ok("The kernel does not offer hibernation")
    if forbidden:
        return ok("systemd forbids hibernation (AllowHibernation=no)")
    if not on_disk:
        return ok("There is no swap on a disk to hibernate to")
    if all(kind is Encryption.ENCRYPTED for kind in on_disk.values()):
        return ok("Hibernation would go to encrypted swap")
    return _hibernation_to_plain(resume)


def _hibernation_to_plain(resume: str | None) -> Verdict:
    remedy = (
        "Put `[Sleep]` and `AllowHibernation=no` into /etc/systemd/sleep.conf.d/mailbox.conf "
        "(mkdir -p the folder), or use sudo systemctl mask hibernate.target"
    )
    if resume:
        return problem(
            f"Hibernation is set up (resume from {resume}) and would write the memory of open "
            "machines to swap that is not known to be encrypted",
            remedy,
        )
    return warning(
        "The kernel can hibernate to swap that is not known to be encrypted; no resume device "
        "is set up",
        remedy,
    )


def core_storage_off(system: System) -> bool:
    """Whether systemd-coredump keeps no dumps (coredump.conf(5))."""
    return setting(_drop_ins(system, "coredump.conf"), "Storage") == "none"


def judge_core_dumps(pattern: str | None, *, limit: int, storage_off: bool) -> Verdict:
    """A dump of the channel's process would hold keys; of a machine, parts of its state."""
    if pattern is None:
        return unknown("/proc/sys/kernel/core_pattern cannot be read")
    text = pattern.strip()
    if text.startswith("|"):
        return _judge_core_handler(text[1:].strip(), storage_off=storage_off)
    if limit == 0:
        return ok("Core dumps are off (the hard RLIMIT_CORE is 0)")
    return warning(f"Core dumps are written to files named {text!r}", _NO_CORE)


def _judge_core_handler(handler: str, *, storage_off: bool) -> Verdict:
    program = Path(handler.split(" ")[0]).name
    if program in ("false", "true"):
        return ok("Core dumps are thrown away")
    if program == "systemd-coredump":
        if storage_off:
            return ok("systemd-coredump keeps no dumps (Storage=none)")
        return warning(
            "systemd-coredump keeps core dumps in /var/lib/systemd/coredump",
            "Put `[Coredump]` and `Storage=none` into /etc/systemd/coredump.conf.d/mailbox.conf",
        )
    # a handler gets the dump whatever RLIMIT_CORE says (core(5))
    return warning(f"Core dumps are handed to {program}, which may keep them", _NO_CORE)


def judge_snapshots(place: Place | None, folder: Path, *, virtual: bool) -> Verdict:
    """A snapshot of a volume, its header included, survives the volume's destruction."""
    if place is None:
        return unknown(f"It could not be found out which file system holds {folder}")
    if place.fs_type in ("btrfs", "zfs", "bcachefs"):
        return warning(
            f"{folder} is on {place.fs_type}: a snapshot keeps a volume after it was shredded",
            "Keep the folder out of snapshots: on btrfs make it a subvolume of its own that no "
            "tool snapshots",
        )
    if place.thin:
        return warning(
            f"{folder} is on an LVM thin volume: a snapshot keeps a volume after it was shredded",
            "List snapshots with `sudo lvs` before you shred",
        )
    if _opaque(place.fs_type) or place.encryption is Encryption.UNKNOWN:
        return unknown(f"Whether {place.fs_type} ({place.source}) keeps snapshots cannot be seen")
    if virtual:
        return unknown(
            f"{place.fs_type} keeps none, but this is a virtual computer: snapshots of its disk "
            "cannot be seen from inside",
            "Ask whoever runs it whether its disks are snapshotted or backed up",
        )
    return ok(f"{place.fs_type} keeps no snapshots")


def judge_disk_kind(
    rotating: Sequence[bool | None], place: Place | None, *, virtual: bool
) -> Verdict:
    """What overwriting means on this disk when a mailbox is shredded."""
    if place is None or not rotating or None in rotating:
        return unknown("Whether the disk is a rotating or a flash device cannot be seen")
    disks = ", ".join(place.disks)
    if virtual:
        return unknown(
            f"{disks}: a virtual disk, what it rests on cannot be seen. An overwritten keyslot "
            "may survive below it"
        )
    if all(rotating):
        return ok(f"{disks}: a rotating disk, where overwriting reaches the old place")
    if place.encryption is Encryption.ENCRYPTED:
        return ok(
            f"{disks}: flash, where old copies of an overwritten keyslot may stay in its cells; "
            "the disk's own encryption covers them"
        )
    return warning(
        f"{disks}: flash without encryption below: old copies of an overwritten keyslot may stay "
        "in its cells",
        "Encrypt the disk, and erase all of it (nvme format, blkdiscard) before you part with it",
    )


def backup_tools(system: System) -> list[str]:
    """The backup programs that have a configuration here."""
    home = str(system.home)
    return [
        name
        for name, paths in BACKUP_CONFIGS.items()
        if any(system.exists(path.replace("~", home, 1)) for path in paths)
    ]


def judge_backups(tools: Sequence[str], folder: Path) -> Verdict:
    """A backup of a volume with its header, and of the keyring, outlives `shred`."""
    if not tools:
        return ok("No backup program with a known configuration found")
    return warning(
        f"{', '.join(tools)} may copy volumes: a copy outlives a shredded mailbox",
        f"Exclude {folder} there, or count the backups in when you shred",
    )
