"""The processes that belong to an open mailbox, and the memory that each has for itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from demo.session import Session

# What is there for one open mailbox, as its command line names it.
KINDS = {
    "QEMU": "qemu-system",
    "warden": "sandbox.channel.warden",
    "custodian": "sandbox.host.custody",
    "storage daemon": "qemu-storage-daemon",
}


def of_session(session: Session) -> Iterator[tuple[int, str]]:
    """Number and command line of every process that this session started."""
    places = [os.fsencode(session.runtime), os.fsencode(session.root)]
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes()
            both = words + (process / "environ").read_bytes()
            if any(place in both for place in places):
                yield int(process.name), words.replace(b"\0", b" ").decode(errors="replace")


def memory(session: Session) -> dict[str, int]:
    """Bytes by kind: each page of memory divided by the number of those who share it (Pss)."""
    found: dict[str, int] = {}
    for pid, command in of_session(session):
        for kind, word in KINDS.items():
            if word in command:
                found[kind] = found.get(kind, 0) + pss(pid)
    return found


def pss(pid: int) -> int:
    """The proportional set size of a process (proc_pid_smaps(5)), in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "Pss":
            return int(value.split()[0]) * 1024
    return 0
