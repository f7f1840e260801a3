"""A machine's memory to a file and back. The file is never a plain one: see sandbox.host.storage.

libvirt's managed save is used nowhere: it would write the memory unencrypted.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from xml.etree import ElementTree

import libvirt

from sandbox.host.libvirt import connection as lv
from sandbox.model.errors import Exit, MailboxError


def save(domain: libvirt.virDomain, target: Path) -> None:
    """Write the machine's memory to `target` and end it; a failure lets it go on."""
    with lv.explained("suspend the machine"):
        domain.saveFlags(str(target), None, 0)


def restore(connection: libvirt.virConnect, source: Path, name: str, volume_socket: Path) -> None:
    """Bring a machine back, paused, with its volume from `volume_socket`."""
    with lv.explained("bring the suspended machine back"):
        expect(connection.saveImageGetXMLDesc(str(source), 0), name, volume_socket)
        connection.restoreFlags(str(source), None, libvirt.VIR_DOMAIN_SAVE_PAUSED)


def expect(saved: str, name: str, volume_socket: Path) -> None:
    """Refuse a saved machine's XML that is not this machine with its one volume at this socket.

    Raises:
        MailboxError: `saved-machine-unknown`.
    """
    root = ElementTree.fromstring(saved)  # noqa: S314 - libvirt wrote it, onto an encrypted volume
    places = [
        (disk.get("type"), [host.get("socket") for host in disk.iterfind("source/host")])
        for disk in root.iter("disk")
        if disk.findtext("serial") == "volume"
    ]
    if root.findtext("name") != name or places != [("network", [str(volume_socket)])]:
        raise MailboxError(
            "The suspended machine is not the one that is expected.",
            code="saved-machine-unknown",
            exit_code=Exit.MACHINE,
        )


def traits(connection: libvirt.virConnect, xml: str) -> dict[str, str]:
    """What a saved machine depends on: how it is built, on what, and by which processor."""
    with lv.explained("tell its version"):
        return {
            "machine": hashlib.sha256(xml.encode()).hexdigest(),
            "qemu": str(connection.getVersion()),
            "libvirt": str(connection.getLibVersion()),
            "cpu": _cpu(),
        }


def _cpu() -> str:
    """This computer's processor and what it can do (proc_cpuinfo(5))."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").partition("\n\n")[0].splitlines()
    except OSError:
        return ""
    kept = [line for line in lines if line.split("\t")[0] in ("model name", "flags", "microcode")]
    return hashlib.sha256("\n".join(kept).encode()).hexdigest()
