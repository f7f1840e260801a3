"""The header of a machine that libvirt saved, rewritten for another machine of the same build.

libvirt restores a saved machine under its own name and UUID only. What it looks at is the XML in
the file's header, so another header before the same memory makes another machine of it. The format
is libvirt's own (src/qemu/qemu_saveimage.h): whatever is not known exactly is refused.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass
from xml.etree import ElementTree

from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import MachineSpec

# magic; version, data length, was running, compressed, cookie's offset; 14 unused numbers.
_FIXED = struct.Struct("<16s5I56s")
_MAGIC = b"LibvirtQemudSave"
_VERSION = 2
_MOST = 4 * 1024**2
LENGTH = _FIXED.size


@dataclass(frozen=True)
class Header:
    """A saved machine's description, and the cookie that libvirt keeps behind it."""

    xml: str
    cookie: bytes
    unused: bytes


def data_length(fixed: bytes) -> int:
    """How many bytes of description follow the header's fixed part."""
    return int(_fields(fixed)[2])


def parse(fixed: bytes, data: bytes) -> Header:
    """The header from its two parts.

    Raises:
        MailboxError: `saved-machine-unknown` for anything that is not known exactly.
    """
    _, _, length, _, _, offset, unused = _fields(fixed)
    xml, nul, rest = data.partition(b"\0")
    if len(data) != length or not nul or offset not in (0, len(xml) + 1):
        raise unknown("its header does not fit together")
    return Header(xml.decode(), rest, unused)


def _fields(fixed: bytes) -> tuple[bytes, int, int, int, int, int, bytes]:
    if len(fixed) != LENGTH:
        raise unknown("it is cut off")
    found = _FIXED.unpack(fixed)
    magic, version, length, running, compressed, _offset, _unused = found
    if magic != _MAGIC or version != _VERSION:
        raise unknown("it is of another kind or version")
    if running != 1 or compressed or not 0 < length <= _MOST:
        raise unknown("it is not a running machine, saved as it is")
    return found


def write(header: Header) -> bytes:
    """The header as libvirt reads it."""
    xml = header.xml.encode() + b"\0"
    offset = len(xml) if header.cookie else 0
    data = xml + header.cookie
    return _FIXED.pack(_MAGIC, _VERSION, len(data), 1, 0, offset, header.unused) + data


def for_machine(saved: str, spec: MachineSpec) -> str:
    """The saved machine's XML with the name, identity and paths of another one.

    Raises:
        MailboxError: `saved-machine-unknown` when it has other memory or processors, a volume, or
            not exactly the devices that every machine has.
    """
    root = ElementTree.fromstring(saved)  # noqa: S314 - libvirt wrote it; its digest is checked
    _same_size(root, spec)
    for path, value in _texts(spec).items():
        _only(root, path).text = value
    (image,) = _exactly_one(root, "devices/disk")
    _only(image, "source").set("file", str(spec.root_image))
    _only(root, "devices/channel/source").set("path", str(spec.channel_socket))
    for device in ("serial", "console"):
        for source in root.findall(f"devices/{device}/source"):
            source.set("path", str(spec.console_log))
    graphics = _only(root, "devices/graphics")
    for each in (graphics, *graphics.findall("listen")):
        if "socket" in each.attrib:
            each.set("socket", str(spec.display_socket))
    return ElementTree.tostring(root, encoding="unicode")


def _texts(spec: MachineSpec) -> dict[str, str]:
    return {
        "name": spec.name,
        "uuid": str(spec.uuid),
        "title": spec.title,
        # Another one than any machine had: the guest's kernel reseeds its random numbers.
        "genid": str(uuid.uuid4()),
        "os/kernel": str(spec.kernel),
        "os/initrd": str(spec.initrd),
    }


def _same_size(root: ElementTree.Element, spec: MachineSpec) -> None:
    memory = _only(root, "memory")
    if memory.get("unit") != "KiB" or int(memory.text or 0) * 1024 != spec.memory:
        raise unknown("it has other memory")
    if _only(root, "vcpu").text != str(spec.cpus):
        raise unknown("it has other processors")


def _only(root: ElementTree.Element, path: str) -> ElementTree.Element:
    (found,) = _exactly_one(root, path)
    return found


def _exactly_one(root: ElementTree.Element, path: str) -> list[ElementTree.Element]:
    found = root.findall(path)
    if len(found) != 1:
        raise unknown(f"it has {len(found)} times {path}")
    return found


def unknown(reason: str) -> MailboxError:
    """The error for a saved machine that is not exactly what is expected."""
    return MailboxError(
        f"The saved machine cannot be used: {reason}.",
        code="saved-machine-unknown",
        exit_code=Exit.MACHINE,
    )
