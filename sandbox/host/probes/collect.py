"""All probes in the order in which `mailbox doctor` shows them."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.host.probes import desk, disks, kvm, leaks, machines, secrets
from sandbox.host.probes.disks import Encryption, Place
from sandbox.host.probes.facts import ConnectLibvirt, KvmDevice, ProveKvm, ReadKeyring
from sandbox.host.probes.finding import Finding, Verdict, unknown
from sandbox.host.probes.sleep import SleepFacts, judge_sleep
from sandbox.host.probes.system import System

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """Where the probes get their facts from; other adapters' are handed in."""

    data_folder: Path
    connect_libvirt: ConnectLibvirt
    keyring_facts: ReadKeyring
    prove_kvm: ProveKvm
    sleep_facts: Callable[[], SleepFacts]
    warm_failures: Callable[[], Sequence[str]] = tuple
    libvirt_uris: Sequence[str] = ()
    config_home: Path | None = None
    system: System = field(default_factory=System)
    kvm_device: Callable[[], KvmDevice] = kvm.device_facts
    free_bytes: Callable[[Path], int | None] = desk.free_bytes
    core_limit: Callable[[], int] = lambda: resource.getrlimit(resource.RLIMIT_CORE)[1]


@dataclass(frozen=True)
class Probe:
    """One thing to look at."""

    id: str
    title: str
    look: Callable[[], Verdict]


def collect(sources: Sources, progress: Progress = lambda title: None) -> list[Finding]:
    """Run every probe; one that fails becomes an `unknown` finding and hides no other."""
    findings = []
    for probe in probes(sources):
        progress(probe.title)
        findings.append(_run(probe))
    return findings


def _run(probe: Probe) -> Finding:
    try:
        verdict = probe.look()
    except Exception as error:  # a doctor that falls ill helps nobody
        reason = str(error).strip() or type(error).__name__
        verdict = unknown(f"This could not be looked at: {reason}")
    return Finding(probe.id, probe.title, verdict.level, verdict.detail, verdict.remedy)


def probes(sources: Sources) -> list[Probe]:
    """Every probe, not yet run."""
    return [*_machine_probes(sources), *_tool_probes(sources), *_leak_probes(sources)]


def _machine_probes(sources: Sources) -> list[Probe]:
    system = sources.system
    uris = sources.libvirt_uris or machines.candidates({}, system.uid)
    config = sources.config_home or system.home / ".config"
    return [
        Probe(
            "libvirt",
            "libvirt",
            lambda: machines.libvirt(system, sources.connect_libvirt, uris, config),
        ),
        Probe("qemu", "QEMU", lambda: machines.qemu(system)),
        Probe("qemu-tools", "QEMU's disk tools", lambda: machines.qemu_tools(system)),
        Probe(
            "kvm",
            "Hardware acceleration (KVM)",
            lambda: machines.kvm(system, sources.kvm_device(), sources.prove_kvm),
        ),
        Probe("fuse", "FUSE", lambda: machines.fuse(system)),
    ]


def _tool_probes(sources: Sources) -> list[Probe]:
    system, folder = sources.system, sources.data_folder
    return [
        Probe("keyring", "Keyring", lambda: secrets.judge_keyring(sources.keyring_facts())),
        Probe("gnupg", "GnuPG", lambda: secrets.gnupg(system)),
        Probe("pinentry", "Passphrase entry", lambda: secrets.pinentry(system)),
        Probe("viewer", "Viewer", lambda: desk.viewer(system)),
        Probe("image-tools", "Image building", lambda: desk.image_tools(system)),
        Probe("warm-states", "Warm states", lambda: desk.judge_warm(sources.warm_failures())),
        Probe("space", "Free space", lambda: desk.judge_space(sources.free_bytes(folder), folder)),
    ]


def _leak_probes(sources: Sources) -> list[Probe]:
    system, folder = sources.system, sources.data_folder

    def place() -> Place | None:
        return disks.place_of(system, folder)

    def encryption() -> Verdict:
        return leaks.judge_data_encryption(place(), folder, virtual=system.is_virtual())

    def snapshots() -> Verdict:
        return leaks.judge_snapshots(place(), folder, virtual=system.is_virtual())

    return [
        Probe("data-encryption", "Encryption below the data", encryption),
        Probe("swap", "Swap", lambda: _swap(system)),
        Probe("hibernation", "Hibernation", lambda: _hibernation(system)),
        Probe("sleep", "Sleep", lambda: judge_sleep(sources.sleep_facts())),
        Probe("core-dumps", "Core dumps", lambda: _core_dumps(system, sources.core_limit())),
        Probe("snapshots", "Snapshots", snapshots),
        Probe("disk-kind", "Kind of disk", lambda: _disk_kind(system, place())),
        Probe(
            "backups", "Backups", lambda: leaks.judge_backups(leaks.backup_tools(system), folder)
        ),
    ]


def _swap_areas(system: System) -> dict[str, Encryption] | None:
    listed = system.text("/proc/swaps")
    if listed is None:
        return None
    areas = disks.parse_swaps(listed)
    return {path: disks.swap_encryption(system, path, kind) for path, kind in areas}


def _swap(system: System) -> Verdict:
    areas = _swap_areas(system)
    return unknown("/proc/swaps cannot be read") if areas is None else leaks.judge_swap(areas)


def _hibernation(system: System) -> Verdict:
    return leaks.judge_hibernation(
        system.text("/sys/power/state"),
        forbidden=leaks.hibernation_forbidden(system),
        resume=leaks.resume_device(system),
        areas=_swap_areas(system) or {},
    )


def _core_dumps(system: System, limit: int) -> Verdict:
    return leaks.judge_core_dumps(
        system.text("/proc/sys/kernel/core_pattern"),
        limit=limit,
        storage_off=leaks.core_storage_off(system),
    )


def _disk_kind(system: System, place: Place | None) -> Verdict:
    kinds = [disks.is_rotating(system, disk) for disk in place.disks] if place else []
    return leaks.judge_disk_kind(kinds, place, virtual=system.is_virtual())
