"""Facts that other adapters gather for the probes, and what runs the judgements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class LibvirtFacts:
    """One attempt to connect to libvirt; `error` is None when it answered.

    `apparmor`: it confines each machine by AppArmor, to what its XML names as files.
    """

    uri: str
    libvirt_version: str | None = None
    qemu_version: str | None = None
    error: str | None = None
    apparmor: bool = False


@dataclass(frozen=True)
class KeyringFacts:
    """The keyring backend in use, and whether secrets may be put into it."""

    backend: str
    safe: bool
    locked: bool = False
    error: str | None = None


class ProofKind(StrEnum):
    """What was run under KVM: a whole kernel proves much more than a boot sector."""

    KERNEL = "kernel"
    BOOT_SECTOR = "boot-sector"
    NONE = "none"


@dataclass(frozen=True)
class KvmProof:
    """Whether something that ran under KVM answered in time."""

    works: bool
    kind: ProofKind
    detail: str
    seconds: float = 0.0
    cached: bool = False


@dataclass(frozen=True)
class KvmDevice:
    """What `/dev/kvm` looks like from outside: a hint, no proof."""

    present: bool
    permitted: bool = False
    api_version: int | None = None


ConnectLibvirt = Callable[[str], LibvirtFacts]
ReadKeyring = Callable[[], KeyringFacts]
ProveKvm = Callable[[], KvmProof]
