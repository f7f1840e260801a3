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

_EXPORT = "volume"


def save(domain: libvirt.virDomain, target: Path) -> None:
    """Write the machine's memory to `target` and end it; a failure lets it go on."""
    with lv.explained("suspend the machine"):
        domain.saveFlags(str(target), None, 0)


def restore(connection: libvirt.virConnect, source: Path, name: str, volume_socket: Path) -> None:
    """Bring a machine back, paused, with its volume from `volume_socket`."""
    with lv.explained("bring the suspended machine back"):
        # The secret's id is in it and no secret.
        saved = connection.saveImageGetXMLDesc(str(source), 0)
        wished = with_served_volume(saved, name, volume_socket)
        connection.restoreFlags(str(source), wished, libvirt.VIR_DOMAIN_SAVE_PAUSED)


def with_served_volume(saved: str, name: str, socket: Path) -> str:
    """The saved machine's XML with its volume at a socket, and no key of it anywhere.

    A disk that has its key from libvirt would get it on QEMU's command line at a restore, and so
    into libvirt's log (encrypted, by a key that libvirt keeps in a file meanwhile).

    Raises:
        MailboxError: `saved-machine-unknown` when it is another machine, or has no volume.
    """
    root = ElementTree.fromstring(saved)  # noqa: S314 - libvirt wrote it, onto an encrypted volume
    disks = [each for each in root.iter("disk") if each.findtext("serial") == "volume"]
    if root.findtext("name") != name or len(disks) != 1:
        raise MailboxError(
            "The suspended machine is not the one that is expected.",
            code="saved-machine-unknown",
            exit_code=Exit.MACHINE,
        )
    (disk,) = disks
    disk.set("type", "network")
    for child in list(disk):
        if child.tag in ("source", "backingStore"):
            disk.remove(child)
    source = ElementTree.SubElement(disk, "source", protocol="nbd", name=_EXPORT)
    ElementTree.SubElement(source, "host", transport="unix", socket=str(socket))
    return ElementTree.tostring(root, encoding="unicode")


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
