"""Domain and disk XML from their templates: a value never becomes markup."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from string import Template

from sandbox.model.machine import VOLUME_EXPORT, MachineSpec

# `quiet` keeps the console short; the guest's init writes its failures there. A kernel that panics
# restarts, which ends the machine (on_reboot): else it would be waited for, at full load.
CMDLINE = "console=ttyS0 quiet panic=-1 mailbox.version=1"
# Ports for devices plugged in later; q35 has none by itself (libvirt: docs/pci-hotplug.html).
_ROOT_PORTS = 14
_SPARE_ROOT_PORT = "<controller type='pci' index='{0}' model='pcie-root-port'/>"
_CPU_HARDWARE = "mode='host-passthrough' check='none' migratable='on'"
_CPU_EMULATED = "mode='maximum'"
# Without ERMS: told that `rep stosb` is fast, kernel and glibc clear and copy memory with it, and
# TCG emulates it byte by byte.
_FEATURES_EMULATED = "<feature policy='disable' name='erms'/>"


def domain_xml(spec: MachineSpec, owner: tuple[int, int] | None = None) -> str:
    """The machine's domain XML.

    `owner` (uid, gid) makes a system libvirtd run QEMU as that user, so that it can enter the
    user's folders without their being opened to others; a session libvirtd needs none.
    """
    ports = (_SPARE_ROOT_PORT.format(index) for index in range(1, _ROOT_PORTS + 1))
    return _render(
        "domain.xml",
        raw={
            "domain_type": "kvm" if spec.hardware else "qemu",
            "cpu": _CPU_HARDWARE if spec.hardware else _CPU_EMULATED,
            "cpu_features": "" if spec.hardware else _FEATURES_EMULATED,
            "root_ports": "\n    ".join(ports),
            "seclabel": _owner_label(owner) if owner else "",
        },
        values={
            "name": spec.name,
            "uuid": str(spec.uuid),
            "title": spec.title,
            "memory": str(spec.memory),
            "cpus": str(spec.cpus),
            "kernel": str(spec.kernel),
            "initrd": str(spec.initrd),
            "cmdline": CMDLINE,
            "root_image": str(spec.root_image),
            "channel_socket": str(spec.channel_socket),
            "console_log": str(spec.console_log),
            "display_socket": str(spec.display_socket),
        },
    )


def volume_xml(socket: Path) -> str:
    """The disk XML that plugs in the volume that a storage daemon serves at `socket`."""
    return _render("volume.xml", values={"socket": str(socket), "export": VOLUME_EXPORT})


def _owner_label(owner: tuple[int, int]) -> str:
    uid, gid = owner
    return (
        "<seclabel type='static' model='dac' relabel='no'>"
        f"<label>+{uid:d}:+{gid:d}</label></seclabel>"
    )


def _render(name: str, values: dict[str, str], raw: dict[str, str] | None = None) -> str:
    # It brings an HTTP client with it, for which `mailbox list` need not wait.
    from xml.sax.saxutils import escape

    template = resources.files(__package__).joinpath("templates", name).read_text()
    escaped = {key: escape(value, {"'": "&apos;", '"': "&quot;"}) for key, value in values.items()}
    return Template(template).substitute(escaped | (raw or {}))
