"""What a machine is made of, and the states it is seen in."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class MachineState(StrEnum):
    """The state of a profile's machine, as libvirt tells it."""

    CLOSED = "closed"
    OPEN = "open"
    PAUSED = "paused"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Image:
    """A guest system that was built, by the paths of its files."""

    id: str
    client: str
    built: str
    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def root(self) -> Path:
        return self.folder / "root.erofs"


@dataclass(frozen=True)
class MachineSpec:
    """All that decides how a machine is built. Memory in bytes."""

    name: str
    uuid: uuid.UUID
    title: str
    memory: int
    cpus: int
    kernel: Path
    initrd: Path
    root_image: Path
    channel_socket: Path
    display_socket: Path
    console_log: Path
    hardware: bool
    clipboard: bool = False


def domain_name(profile_name: str) -> str:
    """The libvirt domain name of a profile's machine."""
    return f"mailbox-{profile_name}"
