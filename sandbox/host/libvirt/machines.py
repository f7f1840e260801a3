"""Machines as transient libvirt domains."""

from __future__ import annotations

import atexit
import os
import resource
import time
from contextlib import suppress
from pathlib import Path

import libvirt

from sandbox.host.libvirt import connection as lv
from sandbox.host.libvirt import saving, warming
from sandbox.host.libvirt.domain_xml import domain_xml, volume_xml
from sandbox.host.probes.machines import SHORTER_HOME
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import MachineSpec, MachineState

# The share that a machine gets which nobody waits for, should all processors be busy: a tenth.
_NICE = 10
_STATES = {
    libvirt.VIR_DOMAIN_RUNNING: MachineState.OPEN,
    libvirt.VIR_DOMAIN_BLOCKED: MachineState.OPEN,
    libvirt.VIR_DOMAIN_SHUTDOWN: MachineState.OPEN,
    libvirt.VIR_DOMAIN_PAUSED: MachineState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: MachineState.PAUSED,
}


class LibvirtMachines:
    """The machines that one libvirt URI runs; connects when first asked."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._open: libvirt.virConnect | None = None

    @property
    def _connection(self) -> libvirt.virConnect:
        if self._open is None:
            self._open = lv.connect(self.uri)
            # It ends with its last reference, and needs its module for that (virConnect.__del__).
            atexit.register(self._forget_connection)
        return self._open

    def _forget_connection(self) -> None:
        self._open = None

    def states(self) -> dict[str, MachineState]:
        """The state of every machine of ours, by domain name, in one request."""
        with lv.explained("list its machines"):
            stats = self._connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE, 0)
        return {
            domain.name(): _STATES.get(values.get("state.state"), MachineState.UNKNOWN)
            for domain, values in stats
            if domain.name().startswith("mailbox-")
        }

    def state(self, name: str) -> MachineState:
        """The state of one machine; CLOSED when libvirt does not know it."""
        domain = self._find(name)
        if domain is None:
            return MachineState.CLOSED
        with lv.explained("tell the machine's state", lv.ERROR_NO_DOMAIN):
            return _STATES.get(domain.state()[0], MachineState.CLOSED)
        return MachineState.CLOSED

    def start(self, spec: MachineSpec) -> None:
        """Start the machine; it ends with its last reference, leaving no definition."""
        xml = domain_xml(spec, self._owner)
        try:
            self._connection.createXML(xml, libvirt.VIR_DOMAIN_START_VALIDATE)
        except libvirt.libvirtError as error:
            raise start_error(str(error)) from None
        if self.uri == lv.SESSION:
            _forbid_core_dump(spec.name)

    def start_warm(self, spec: MachineSpec, state: Path, digest: str) -> None:
        """Start the machine from the saved memory of another one of the same build."""
        warming.start_warm(self._connection, spec, state, digest)
        if self.uri == lv.SESSION:
            _forbid_core_dump(spec.name)

    def resume(self, name: str) -> None:
        """Let a paused machine go on, such as one whose volume found the disk full."""
        domain = self._find(name)
        if domain is not None:
            with lv.explained("let the machine go on"):
                domain.resume()

    def save(self, name: str, target: Path) -> None:
        """Write the machine's memory to `target` (never a plain file) and end it."""
        domain = self._find(name)
        if domain is None:
            raise _gone("was suspended")
        saving.save(domain, target)

    def save_empty(self, name: str, target: Path) -> None:
        """Write the memory of a machine that never had a volume to a plain file, and end it."""
        if self.has_volume(name):
            raise ValueError("memory that may hold mail never goes to a plain file")
        self.save(name, target)

    def restore(self, name: str, source: Path, volume_socket: Path) -> None:
        """Bring a saved machine back, paused, its volume served at `volume_socket`."""
        saving.restore(self._connection, source, name, volume_socket)
        if self.uri == lv.SESSION:
            _forbid_core_dump(name)

    def traits(self, spec: MachineSpec) -> dict[str, str]:
        """What a saved machine depends on; it is brought back only where all of it is equal."""
        return saving.traits(self._connection, domain_xml(spec, self._owner))

    @property
    def _owner(self) -> tuple[int, int] | None:
        return None if self.uri == lv.SESSION else (os.geteuid(), os.getegid())

    def has_volume(self, name: str) -> bool:
        """Whether the machine holds its volume."""
        domain = self._find(name)
        if domain is None:
            return False
        with lv.explained("describe the machine", lv.ERROR_NO_DOMAIN):
            return "<serial>volume</serial>" in domain.XMLDesc(0)
        return False

    def attach_volume(self, name: str, volume_socket: Path) -> None:
        """Plug the volume in that a storage daemon serves at `volume_socket`.

        Raises:
            MailboxError: `machine-gone`, `volume-not-attached`.
        """
        domain = self._find(name)
        if domain is None:
            raise _gone("had its volume plugged in")
        try:
            domain.attachDeviceFlags(volume_xml(volume_socket), libvirt.VIR_DOMAIN_AFFECT_LIVE)
        except libvirt.libvirtError as error:
            raise _not_attached(str(error)) from None

    def slow_down(self, name: str) -> None:
        """Let the machine run after everything else (a session libvirt's, which is ours)."""
        if self.uri == lv.SESSION:
            _slow_down(name)

    def wait_gone(self, name: str, deadline_s: float) -> bool:
        """Whether the machine ended by itself within the deadline (seconds)."""
        end = time.monotonic() + deadline_s
        while self.state(name) is not MachineState.CLOSED:
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def destroy(self, name: str) -> None:
        """End the machine at once, as a power cut does; one that is gone is ended already."""
        domain = self._find(name)
        if domain is None:
            return
        with lv.explained("end the machine", lv.ERROR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            domain.destroyFlags(libvirt.VIR_DOMAIN_DESTROY_DEFAULT)
        self.wait_gone(name, 10)

    def screenshot(self, name: str) -> bytes:
        """What the machine's display shows, as QEMU encodes it (PPM)."""
        domain = self._find(name)
        if domain is None:
            raise MailboxError(
                "The mailbox is closed, so there is no display to photograph.",
                resolution="Open it first.",
                code="machine-closed",
                exit_code=Exit.MACHINE,
            )
        kept = bytearray()
        with lv.explained("photograph the display"):
            stream = self._connection.newStream()
            domain.screenshot(stream, 0, 0)
            stream.recvAll(lambda _stream, data, _opaque: kept.extend(data), None)
            stream.finish()
        return bytes(kept)

    def _find(self, name: str) -> libvirt.virDomain | None:
        with lv.explained("find the machine", lv.ERROR_NO_DOMAIN):
            return self._connection.lookupByName(name)
        return None


def _gone(what: str) -> MailboxError:
    return MailboxError(
        f"The machine ended before it {what}; the mail is untouched.",
        code="machine-gone",
        exit_code=Exit.MACHINE,
    )


def _forbid_core_dump(name: str) -> None:
    """Keep the guest's memory out of a core file.

    libvirt 11 starts QEMU without a limit (max_core in its qemu.conf); the limit of a process of
    the same user may be lowered (prlimit(2)). Where that fails, `mailbox doctor` tells where dumps
    would go.
    """
    with suppress(OSError, ValueError):
        resource.prlimit(_qemu(name), resource.RLIMIT_CORE, (0, 0))


def _qemu(name: str) -> int:
    """The process of a session libvirt's machine, by libvirt's own note."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or Path.home() / ".cache"
    return int((Path(runtime) / "libvirt" / "qemu" / "run" / f"{name}.pid").read_text())


def _slow_down(name: str) -> None:
    # Niceness is a thread's own (setpriority(2)); threads that come later take their maker's.
    with suppress(OSError, ValueError):
        for thread in Path(f"/proc/{_qemu(name)}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), _NICE)


def start_error(text: str) -> MailboxError:
    """Why libvirt did not start a machine; it says a socket's path "is too long"."""
    deep = "too long" in text and "UNIX" in text
    return MailboxError(
        "libvirt could not start the machine: its folder for sockets lies too deep; "
        "the mail is untouched."
        if deep
        else "libvirt could not start the machine; the mail is untouched.",
        details=text,
        resolution=f"{SHORTER_HOME}." if deep else "`mailbox doctor` checks what it needs.",
        code="path-too-long" if deep else "libvirt-error",
        exit_code=Exit.HOST if deep else Exit.MACHINE,
    )


def _not_attached(text: str) -> MailboxError:
    return MailboxError(
        "The volume could not be plugged into the machine; nothing was changed on it.",
        details=text,
        resolution="`mailbox doctor` checks what libvirt and QEMU need.",
        code="volume-not-attached",
        exit_code=Exit.MACHINE,
    )
