"""Which libvirt to talk to, and how its errors become sentences."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import libvirt

from sandbox.host.probes.facts import ConnectLibvirt, LibvirtFacts
from sandbox.host.probes.machines import SESSION, SYSTEM, candidates, first_working
from sandbox.model.errors import Exit, MailboxError

__all__ = ["SESSION", "SYSTEM", "choose_uri", "connect", "explained", "facts"]
# Of the host's <secmodel>: https://libvirt.org/formatcaps.html
_APPARMOR = "<model>apparmor</model>"
# libvirt's numbers: https://libvirt.org/html/libvirt-virterror.html
ERROR_NO_DOMAIN = libvirt.VIR_ERR_NO_DOMAIN


def choose_uri(environment: Mapping[str, str], uid: int, look: ConnectLibvirt | None = None) -> str:
    """The URI as configured, else the first that works (probes.machines, as `doctor` does)."""
    uris = candidates(environment, uid)
    if len(uris) == 1:
        return uris[0]
    chosen, _failed = first_working(uris, look or facts)
    return chosen.uri if chosen else uris[0]


def connect(uri: str) -> libvirt.virConnect:
    """An open connection.

    Raises:
        MailboxError: `libvirt-unreachable`, saying what to start.
    """
    # libvirt prints every error to stderr unless told otherwise.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    try:
        return libvirt.open(uri)
    except libvirt.libvirtError as error:
        raise MailboxError(
            f"libvirt does not answer at {uri}; no machine was touched.",
            details=str(error),
            resolution=_start_hint(uri),
            code="libvirt-unreachable",
            exit_code=Exit.HOST,
        ) from None


def _start_hint(uri: str) -> str:
    if uri == SESSION and os.geteuid() != 0:
        return "Install it: apt install libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86"
    with_systemd = os.path.isdir("/run/systemd/system")  # noqa: PTH112 - sd_booted(3)
    start = "systemctl start libvirtd" if with_systemd else "virtlogd -d; libvirtd -d"
    return f"Start it: {start}; or run mailbox as an ordinary user, who needs no daemon started."


def facts(uri: str) -> LibvirtFacts:
    """What this URI answers; never raises."""
    try:
        connection = connect(uri)
    except MailboxError as error:
        return LibvirtFacts(uri, error=error.details or error.brief)
    try:
        return LibvirtFacts(
            uri,
            _dotted(connection.getLibVersion()),
            _dotted(connection.getVersion()),
            apparmor=_APPARMOR in connection.getCapabilities(),
        )
    except libvirt.libvirtError as error:
        return LibvirtFacts(uri, error=str(error))
    finally:
        connection.close()


def _dotted(version: int) -> str:
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"


@contextmanager
def explained(what: str, *ignored: int) -> Iterator[None]:
    """Turn libvirt's refusal into a sentence; error codes in `ignored` are no refusal."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() in ignored:
            return
        raise MailboxError(
            f"libvirt could not {what}.",
            details=str(error),
            resolution="`mailbox doctor` checks what libvirt and QEMU need.",
            code="libvirt-error",
            exit_code=Exit.MACHINE,
        ) from None
