"""What a machine is made of, and the states it is seen in."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sandbox.model.names import human_size

# The name of the disk that a storage daemon serves.
VOLUME_EXPORT = "volume"


class MachineState(StrEnum):
    """The state of a profile's machine, as libvirt tells it."""

    CLOSED = "closed"
    OPEN = "open"
    PAUSED = "paused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, order=True)
class Shape:
    """How large a machine is: memory in bytes, number of processors."""

    memory: int
    cpus: int

    def __str__(self) -> str:
        return f"{human_size(self.memory)} and {self.cpus} processors"


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

    def warm(self, shape: Shape) -> Path:
        """The memory of a machine of that shape that waits for a customer, if it was saved."""
        return self._warm(shape, "state")

    def warm_note(self, shape: Shape) -> Path:
        """What that memory must be and what it fits; there only once it is whole."""
        return self._warm(shape, "json")

    def warm_failure(self, shape: Shape) -> Path:
        """Why that memory could not be saved the last time."""
        return self._warm(shape, "failed")

    def _warm(self, shape: Shape, kind: str) -> Path:
        return self.folder / f"warm-{shape.memory}-{shape.cpus}.{kind}"


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

    @property
    def shape(self) -> Shape:
        return Shape(self.memory, self.cpus)


def profile_of_domain(domain: str, home_tag: str = "") -> str | None:
    """The inverse of `domain_name`; None for a domain that is not of this home."""
    if not domain.startswith("mailbox-"):
        return None
    name, _, tag = domain.removeprefix("mailbox-").partition("+")
    return name if tag == home_tag else None


def domain_name(profile_name: str, home_tag: str = "") -> str:
    """The libvirt domain name of a profile's machine.

    The tag tells apart profiles of one name below different values of `MAILBOX_HOME`, which share
    one libvirt; no profile's name can hold the `+`.
    """
    return f"mailbox-{profile_name}+{home_tag}" if home_tag else f"mailbox-{profile_name}"
