"""Can this computer run machines: libvirt, QEMU, KVM, FUSE."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.host.probes.facts import (
    ConnectLibvirt,
    KvmDevice,
    KvmProof,
    LibvirtFacts,
    ProofKind,
    ProveKvm,
)
from sandbox.host.probes.finding import Verdict, ok, problem, unknown, warning
from sandbox.host.probes.system import System

SESSION = "qemu:///session"
SYSTEM = "qemu:///system"
QEMU_MINIMUM = (7, 2)
SOCKET_LIMIT = 107
SHORTER_HOME = (
    "Set XDG_CONFIG_HOME to a folder with a short path (40 bytes or less), and log in again"
)

_INSTALL_LIBVIRT = (
    "sudo apt-get install libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86"
)
_SLOW = "Machines run under emulation: right, but about twenty times slower"


def version_in(text: str) -> tuple[int, ...] | None:
    """The first dotted version number in a program's output."""
    found = re.search(r"\b(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else None


def candidates(environment: Mapping[str, str], uid: int) -> tuple[str, ...]:
    """The libvirt URIs to try, the preferred one first; root has no session of its own.

    LIBVIRT_DEFAULT_URI does not count: Ubuntu sets it to the system's libvirt at every login.
    """
    configured = environment.get("MAILBOX_LIBVIRT_URI")
    if configured:
        return (configured,)
    return (SYSTEM,) if uid == 0 else (SESSION, SYSTEM)


def first_working(
    uris: Sequence[str], connect: ConnectLibvirt
) -> tuple[LibvirtFacts | None, list[LibvirtFacts]]:
    """The libvirt that `doctor` reports and `open` uses, and those before it that failed."""
    failed: list[LibvirtFacts] = []
    for uri in uris:
        facts = connect(uri)
        if facts.error is None:
            return facts, failed
        failed.append(facts)
    return None, failed


def longest_monitor_path(config_home: Path) -> int:
    """Bytes of the longest path that a session libvirt binds for a machine.

    libvirt: virQEMUDriverConfigNew, qemuDomainSetPrivatePaths, virDomainDefGetShortName (the
    name is cut at 20 bytes); five digits for the machine's number.
    """
    folder = config_home / "libvirt/qemu/lib" / f"domain-99999-{'n' * 20}"
    return len(os.fsencode(folder / "monitor.sock"))


def libvirt(
    system: System, connect: ConnectLibvirt, uris: Sequence[str], config_home: Path
) -> Verdict:
    """Whether libvirt answers, at which URI, and whether its sockets have room there."""
    chosen, tried = first_working(uris, connect)
    if chosen is not None:
        length = longest_monitor_path(config_home)
        if chosen.uri == SESSION and length > SOCKET_LIMIT:
            return judge_deep_home(config_home, length)
        return judge_libvirt(chosen, preferred=not tried)
    return judge_no_libvirt(
        tried,
        root=system.uid == 0,
        systemd=system.has_systemd(),
        installed=system.which("libvirtd") is not None or system.which("virtqemud") is not None,
    )


def judge_libvirt(facts: LibvirtFacts, *, preferred: bool) -> Verdict:
    """A connection that works; the second choice is fine too, and said."""
    versions = f"libvirt {facts.libvirt_version or '?'}, QEMU {facts.qemu_version or '?'}"
    note = "" if preferred else "; the preferred address does not work"
    if facts.apparmor:
        # libvirt: AppArmorSetSecurityImageLabelInternal names files to AppArmor, and no sockets.
        return warning(
            f"{facts.uri} works ({versions}){note}, but confines machines by AppArmor, which may "
            "keep them from the socket of their volume",
            "Use mailbox as an ordinary user, whose libvirt does not; or allow the folder of "
            "sockets (docs/files.md) in /etc/apparmor.d/local/abstractions/libvirt-qemu",
        )
    return ok(f"{facts.uri} works ({versions}){note}")


def judge_deep_home(config_home: Path, length: int) -> Verdict:
    """A session libvirt cannot bind its sockets below this folder (unix(7): 107 bytes)."""
    return problem(
        f"No machine can start: libvirt's sockets below {config_home} would have paths of up to "
        f"{length} bytes, and {SOCKET_LIMIT} are possible",
        SHORTER_HOME,
    )


def judge_no_libvirt(
    tried: Sequence[LibvirtFacts], *, root: bool, systemd: bool, installed: bool
) -> Verdict:
    """No connection at all: what to install or start."""
    seen = "; ".join(f"{facts.uri}: {facts.error}" for facts in tried) or "nothing was tried"
    if not installed:
        return problem(f"libvirt is not installed ({seen})", _INSTALL_LIBVIRT)
    if systemd:
        remedy = "sudo systemctl start libvirtd"
    elif root:
        remedy = "virtlogd -d; libvirtd -d"
    else:
        remedy = "Start the daemon once by hand to see why it fails: libvirtd --timeout=120"
    return problem(f"No libvirt daemon answers ({seen})", remedy)


def qemu(system: System) -> Verdict:
    """QEMU's machine emulator and its version."""
    program = "qemu-system-x86_64"
    remedy = "sudo apt-get install qemu-system-x86"
    if system.which(program) is None:
        return problem(f"{program} is not installed", remedy)
    return judge_qemu(system.output([program, "--version"]), remedy)


def judge_qemu(output: str, remedy: str) -> Verdict:
    """QEMU's `--version` against the oldest one that is known to work."""
    version = version_in(output)
    if version is None:
        return unknown("QEMU does not say its version")
    shown = ".".join(map(str, version))
    if version < QEMU_MINIMUM:
        least = ".".join(map(str, QEMU_MINIMUM))
        return problem(f"QEMU {shown} is older than {least}", f"Install a newer QEMU: {remedy}")
    return ok(f"QEMU {shown}")


def qemu_tools(system: System) -> Verdict:
    """The programs that make and export volumes."""
    missing = [name for name in ("qemu-img", "qemu-storage-daemon") if not system.which(name)]
    if missing:
        # qemu-storage-daemon is in qemu-system-common or in qemu-utils, by release
        return problem(
            f"{' and '.join(missing)} not installed",
            "sudo apt-get install qemu-utils qemu-system-common",
        )
    return ok("qemu-img and qemu-storage-daemon are there")


def kvm(system: System, device: KvmDevice, prove: ProveKvm) -> Verdict:
    """Hardware acceleration, proven by something that ran under it."""
    if not device.present:
        return judge_no_kvm(virtual=system.is_virtual())
    if not device.permitted:
        return warning(
            f"/dev/kvm exists but {system.user} may not use it. {_SLOW}",
            f"sudo usermod -aG kvm {system.user}, then log in again",
        )
    return judge_kvm(prove(), device)


def judge_no_kvm(*, virtual: bool) -> Verdict:
    """No device: a virtual computer needs nested virtualisation, a real one its firmware."""
    if virtual:
        remedy = "Switch on nested virtualisation for this virtual computer"
    else:
        remedy = "Switch on VT-x or AMD-V in the firmware, then: sudo modprobe -a kvm_intel kvm_amd"
    return warning(f"There is no /dev/kvm. {_SLOW}", remedy)


def judge_kvm(proof: KvmProof, device: KvmDevice) -> Verdict:
    """The result of the proof, with what was proven."""
    hint = f"/dev/kvm is there, API version {device.api_version or 'unknown'}"
    again = ", as seen before" if proof.cached else ""
    if proof.kind is ProofKind.NONE:
        return unknown(f"{hint}, but it could not be tried: {proof.detail}")
    if not proof.works:
        return warning(
            f"{hint}, yet it does not work: {proof.detail}{again}. {_SLOW}",
            "Run on hardware with virtualisation of its own, or accept the emulation",
        )
    if proof.kind is ProofKind.BOOT_SECTOR:
        return unknown(
            f"{hint}; a boot sector ran{again}, which does not yet prove a whole kernel",
            "mailbox image build, then mailbox doctor again: it boots the image's kernel",
        )
    return ok(f"A whole kernel boots under KVM ({proof.seconds:.1f} s{again})")


def fuse(system: System) -> Verdict:
    """`/dev/fuse`, through which encrypted volumes are exported."""
    return judge_fuse(
        present=system.exists("/dev/fuse"),
        usable=system.usable("/dev/fuse"),
        mounter=system.uid == 0 or system.which("fusermount3") is not None,
    )


def judge_fuse(*, present: bool, usable: bool, mounter: bool) -> Verdict:
    """Needed to suspend machines, not to open them."""
    if not present:
        return warning(
            "There is no /dev/fuse, so machines cannot be suspended", "sudo modprobe fuse"
        )
    if not usable:
        return warning(
            "/dev/fuse is not usable by this user, so machines cannot be suspended",
            "sudo chmod 0666 /dev/fuse (the usual mode; a udev rule keeps it)",
        )
    if not mounter:
        return warning("fusermount3 is not installed", "sudo apt-get install fuse3")
    return ok("/dev/fuse is usable")
