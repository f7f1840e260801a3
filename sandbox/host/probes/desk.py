"""What people need at hand: a viewer, tools that build images, room on the disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sandbox.host.probes.finding import Verdict, ok, problem, unknown, warning
from sandbox.host.probes.system import System

_GIB = 1 << 30
SPACE_NEEDED = 3 * _GIB  # one image and a small volume
SPACE_WANTED = 12 * _GIB  # an image build beside the old image, and a few volumes

_BUILD_TOOLS = {"mmdebstrap": "mmdebstrap", "mkfs.erofs": "erofs-utils"}


def viewer(system: System) -> Verdict:
    """The program that shows a machine's screen."""
    for name in ("remote-viewer", "virt-viewer"):
        if system.which(name):
            return ok(f"{name} shows the screens of machines")
    return warning(
        "No viewer: machines can only be opened with --headless",
        "sudo apt-get install virt-viewer",
    )


def judge_warm(failures: Sequence[str]) -> Verdict:
    """Whether making warm states works; without one a machine boots at every open."""
    if failures:
        return warning(
            f"Machines boot, as a warm state could not be made: {'; '.join(failures)}",
            "mailbox image warm CLIENT tries again and says more",
        )
    return ok("None has failed to be made")


def image_tools(system: System) -> Verdict:
    """What `mailbox image build` needs; an ordinary user also needs subordinate ids."""
    needed = dict(_BUILD_TOOLS)
    if system.uid != 0:
        needed["newuidmap"] = "uidmap"
    missing = {name: package for name, package in needed.items() if not system.which(name)}
    if missing:
        return warning(
            f"Images cannot be built here: {', '.join(missing)} not installed",
            f"sudo apt-get install {' '.join(missing.values())}",
        )
    if system.uid == 0:
        return ok("Images can be built, as root")
    return judge_subordinate_ids(
        system.user,
        system.uid,
        {name: system.text(f"/etc/{name}") or "" for name in ("subuid", "subgid")},
        namespaces=_namespaces_allowed(system),
    )


def _namespaces_allowed(system: System) -> bool:
    switch = (system.text("/proc/sys/kernel/unprivileged_userns_clone") or "1").strip()
    limit = (system.text("/proc/sys/user/max_user_namespaces") or "1").strip()
    return switch != "0" and limit != "0"


def subordinate_count(table: str, user: str, uid: int) -> int:
    """How many ids subuid(5) or subgid(5) gives to a user."""
    rows = (line.strip().split(":") for line in table.splitlines())
    mine = [row for row in rows if len(row) == 3 and row[0] in (user, str(uid))]
    return sum(int(row[2]) for row in mine if row[2].isdigit())


def judge_subordinate_ids(
    user: str, uid: int, tables: dict[str, str], *, namespaces: bool
) -> Verdict:
    """A root file system needs 65536 ids of its own (mmdebstrap(1), unshare mode)."""
    if not namespaces:
        return warning(
            "Images cannot be built by an ordinary user: user namespaces are switched off",
            "sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000",
        )
    short = [name for name, table in tables.items() if subordinate_count(table, user, uid) < 65536]
    if short:
        places = " and ".join(f"/etc/{name}" for name in short)
        return warning(
            f"Images cannot be built by {user}: no 65536 ids in {places}",
            f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
        )
    return ok("Images can be built without root")


def free_bytes(folder: Path) -> int | None:
    """What an ordinary user may still write where `folder` is or will be."""
    for path in (folder, *folder.parents):
        try:
            facts = os.statvfs(path)
        except OSError:
            continue
        return facts.f_bavail * facts.f_frsize
    return None


def judge_space(free: int | None, folder: Path) -> Verdict:
    """Room for an image and volumes."""
    if free is None:
        return unknown(f"The free space in {folder} could not be read")
    detail = f"{free / _GIB:.1f} GiB free in {folder}"
    remedy = "Make room, or set MAILBOX_HOME to a folder on a larger disk"
    if free < SPACE_NEEDED:
        return problem(f"{detail}: not enough for an image and a volume", remedy)
    if free < SPACE_WANTED:
        return warning(f"{detail}: little for building images beside volumes", remedy)
    return ok(detail)
