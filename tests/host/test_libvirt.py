"""Real libvirt: machines start and end, volumes are plugged in, and their keys rest nowhere.

The machine's kernel only halts: what matters here is what libvirt and QEMU do.
"""

from __future__ import annotations

import base64
import io
import resource
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from demo import traces
from demo.session import Session, find_bytes
from sandbox.host import storage, volumes
from sandbox.host.libvirt import connection, saving
from sandbox.host.libvirt.machines import LibvirtMachines
from sandbox.host.picture import to_png
from sandbox.host.vault import Vault
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.machine import MachineSpec, MachineState
from tests.host.conftest import absent, need_libvirt
from tests.host.halting import halting_kernel, processes

NAME = "mailbox-test"
GONE_S = 30.0
# What a saved machine begins with (libvirt: src/qemu/qemu_saveimage.h).
LIBVIRT_SAVED = b"LibvirtQemudSave"


@pytest.fixture(scope="module")
def machines(in_session: Session) -> LibvirtMachines:
    need_libvirt()
    made = LibvirtMachines(connection.SESSION)
    made.states()
    return made


@pytest.fixture
def folder(in_session: Session) -> Path:
    made = in_session.runtime / f"m{uuid.uuid4().hex[:6]}"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def spec(machines: LibvirtMachines, folder: Path) -> Iterator[MachineSpec]:
    (folder / "vmlinuz").write_bytes(halting_kernel())
    (folder / "initrd.img").write_bytes(bytes(4096))
    (folder / "root.erofs").write_bytes(bytes(1024**2))
    yield MachineSpec(
        name=NAME,
        uuid=uuid.uuid4(),
        title="a <test> & more",
        memory=256 * 1024**2,
        cpus=1,
        kernel=folder / "vmlinuz",
        initrd=folder / "initrd.img",
        root_image=folder / "root.erofs",
        channel_socket=folder / "channel.sock",
        display_socket=folder / "display.sock",
        console_log=folder / "console.log",
        hardware=False,
    )
    for name in machines.states():
        machines.destroy(name)


@pytest.fixture
def started(machines: LibvirtMachines, spec: MachineSpec) -> MachineSpec:
    machines.start(spec)
    return spec


@pytest.fixture
def key() -> bytes:
    return Vault.new_key()


@pytest.fixture
def volume(in_session: Session, key: bytes) -> Path:
    path = in_session.root / f"{uuid.uuid4().hex}.luks"
    volumes.create(path, 64 * 1024**2, key)
    return path


@pytest.fixture
def disk(folder: Path) -> Iterator[Path]:
    """Where a volume is served."""
    made = folder / "volume.sock"
    yield made
    storage.end(made)


def qemu(session: Session) -> tuple[int, bytes]:
    """Number and command line of the one QEMU."""
    (found,) = (
        (int(pid), command)
        for pid, (command, _) in processes(session).items()
        if b"qemu-system" in command.split(b"\0")[0]
    )
    return found


def assert_nowhere(session: Session, key: bytes) -> None:
    """Neither the key's text nor its bits, nor its hexadecimal form."""
    needles = [key, base64.b64decode(key), base64.b64decode(key).hex().encode()]
    needles.append(base64.b64encode(key))
    assert find_bytes(session.folders, needles) == []
    for command, environment in processes(session).values():
        assert not any(needle in command + environment for needle in needles)


def test_a_machine_starts_is_seen_and_ends(
    machines: LibvirtMachines, spec: MachineSpec, in_session: Session
) -> None:
    assert machines.state(NAME) is MachineState.CLOSED
    machines.start(spec)
    assert machines.state(NAME) is MachineState.OPEN
    assert machines.states() == {NAME: MachineState.OPEN}
    assert not machines.has_volume(NAME)
    # What QEMU will hold of the volume's key reaches no core file.
    assert resource.prlimit(qemu(in_session)[0], resource.RLIMIT_CORE) == (0, 0)
    assert not machines.wait_gone(NAME, 0)
    machines.destroy(NAME)
    machines.destroy(NAME)
    assert machines.wait_gone(NAME, GONE_S)
    assert machines.state(NAME) is MachineState.CLOSED and machines.states() == {}


def test_nothing_of_it_stays_defined(machines: LibvirtMachines, started: MachineSpec) -> None:
    domain = machines._connection.lookupByName(NAME)
    assert not domain.isPersistent()
    machines.destroy(NAME)
    assert machines._connection.listDefinedDomains() == []


def test_one_profile_has_one_machine(machines: LibvirtMachines, started: MachineSpec) -> None:
    with pytest.raises(MailboxError) as refused:
        machines.start(started)
    assert refused.value.code == "libvirt-error" and refused.value.exit_code == Exit.MACHINE
    assert machines.states() == {NAME: MachineState.OPEN}


def test_machines_of_others_are_not_ours(machines: LibvirtMachines, spec: MachineSpec) -> None:
    machines.start(replace(spec, name="somebody-elses"))
    try:
        assert machines.states() == {}
    finally:
        machines.destroy("somebody-elses")


def test_a_paused_machine_is_told_apart_and_goes_on(
    machines: LibvirtMachines, started: MachineSpec
) -> None:
    machines._connection.lookupByName(NAME).suspend()
    assert machines.state(NAME) is MachineState.PAUSED
    machines.resume(NAME)
    assert machines.state(NAME) is MachineState.OPEN


def test_qemu_gets_no_network_no_usb_and_its_sandbox(
    in_session: Session, started: MachineSpec
) -> None:
    command = qemu(in_session)[1].decode().split("\0")
    assert "-netdev" not in command
    devices = [command[i + 1] for i, word in enumerate(command) if word == "-device"]
    kinds = {each.partition('"driver":"')[2].partition('"')[0] for each in devices}
    assert kinds <= {
        *("pcie-root-port", "virtio-serial-pci", "virtio-blk-pci", "virtserialport"),
        *("isa-serial", "virtio-tablet-pci", "virtio-keyboard-pci", "virtio-vga"),
        *("virtio-rng-pci", "virtio-balloon-pci", "vmgenid"),
    }
    assert command[command.index("-sandbox") + 1].startswith("on")
    assert "dump-guest-core=off" in str(command) and "mem-merge=off" in str(command)


def test_sockets_are_where_the_profile_wants_them(
    machines: LibvirtMachines, started: MachineSpec
) -> None:
    assert started.channel_socket.is_socket() and started.display_socket.is_socket()


def test_a_volume_is_plugged_in_and_its_key_rests_nowhere(
    in_session: Session,
    machines: LibvirtMachines,
    started: MachineSpec,
    volume: Path,
    key: bytes,
    disk: Path,
) -> None:
    storage.serve_disk(volume, key, disk)
    machines.attach_volume(NAME, disk)
    assert machines.has_volume(NAME)
    assert machines._connection.listSecrets() == []
    assert len(processes(in_session)) >= 2 and str(started.kernel).encode() in qemu(in_session)[1]
    logs = list(in_session.root.rglob("qemu/log/*.log"))
    assert f"{NAME}.log" in {log.name for log in logs}
    assert_nowhere(in_session, key)
    holders, searched = traces.in_memory([key], passing=lambda _arguments: False)
    assert {arguments.split(b"\0")[0].rpartition(b"/")[2] for arguments, _ in holders} == {
        storage.DAEMON.encode()
    }
    if not all(any(each in one for one in searched) for each in (b"libvirtd", b"qemu-system")):
        absent("the memory of libvirt's daemon and of QEMU may not be read here")
    machines.destroy(NAME)
    storage.end(disk)
    assert_nowhere(in_session, key)
    assert traces.in_memory([key], passing=lambda _arguments: False)[0] == []


def test_the_search_would_find_a_key(in_session: Session, key: bytes) -> None:
    (in_session.root / "note").write_bytes(b"x" + key + b"x")
    try:
        with pytest.raises(AssertionError):
            assert_nowhere(in_session, key)
    finally:
        (in_session.root / "note").unlink()


def test_a_volume_that_is_not_served_is_a_sentence(
    machines: LibvirtMachines, started: MachineSpec, disk: Path
) -> None:
    with pytest.raises(MailboxError) as refused:
        machines.attach_volume(NAME, disk)
    assert refused.value.code == "volume-not-attached" and refused.value.details
    assert not machines.has_volume(NAME)


def test_a_volume_of_no_machine_is_a_sentence(machines: LibvirtMachines, disk: Path) -> None:
    with pytest.raises(MailboxError) as refused:
        machines.attach_volume("mailbox-none", disk)
    assert refused.value.code == "machine-gone"


def test_the_display_is_a_picture(machines: LibvirtMachines, started: MachineSpec) -> None:
    picture = Image.open(io.BytesIO(to_png(machines.screenshot(NAME))))
    assert picture.format == "PNG" and picture.width >= 640
    with pytest.raises(MailboxError) as refused:
        machines.screenshot("mailbox-none")
    assert refused.value.code == "machine-closed"


def test_a_machine_that_cannot_start_is_a_sentence(
    machines: LibvirtMachines, spec: MachineSpec
) -> None:
    with pytest.raises(MailboxError) as refused:
        machines.start(replace(spec, kernel=spec.kernel.with_name("none")))
    assert refused.value.code == "libvirt-error" and refused.value.details
    assert machines.states() == {}


def test_no_libvirt_is_a_sentence_that_says_what_to_do() -> None:
    nowhere = LibvirtMachines("qemu+unix:///session?socket=/nonexistent")
    with pytest.raises(MailboxError) as refused:
        nowhere.states()
    assert refused.value.code == "libvirt-unreachable" and refused.value.exit_code == Exit.HOST
    assert refused.value.resolution
    assert connection.facts(nowhere.uri).error


@pytest.mark.parametrize(
    ("environment", "uid", "uri"),
    [
        ({}, 0, "qemu:///system"),
        ({"MAILBOX_LIBVIRT_URI": "test:///default"}, 1000, "test:///default"),
        ({"MAILBOX_LIBVIRT_URI": "a", "LIBVIRT_DEFAULT_URI": "b"}, 0, "a"),
    ],
)
def test_the_uri_is_as_configured_or_as_the_user_needs_it(
    environment: dict[str, str], uid: int, uri: str
) -> None:
    assert connection.choose_uri(environment, uid) == uri


def test_a_suspended_machine_comes_back_and_no_key_is_anywhere(
    in_session: Session,
    machines: LibvirtMachines,
    started: MachineSpec,
    volume: Path,
    key: bytes,
    disk: Path,
) -> None:
    problem = storage.suspend_problem()
    if problem:
        pytest.skip(problem)
    saved, state_key = volume.with_name(f"{volume.stem}-state.luks"), Vault.new_key()
    volumes.create(saved, 512 * 1024**2, state_key)
    window = started.console_log.with_name("saved")
    storage.serve_disk(volume, key, disk)
    machines.attach_volume(NAME, disk)
    storage.serve_file(saved, state_key, window)
    try:
        machines.save(NAME, window)
        assert machines.state(NAME) is MachineState.CLOSED
        storage.serve_disk(volume, key, disk)
        machines.restore(NAME, window, disk)
        storage.end(window)
        assert machines.state(NAME) is MachineState.PAUSED and machines.has_volume(NAME)
        for each in (key, state_key):
            assert_nowhere(in_session, each)
        _, command = qemu(in_session)
        assert b"-incoming" in command and b'"driver":"nbd"' in command
        machines.resume(NAME)
        assert machines.state(NAME) is MachineState.OPEN
        assert LIBVIRT_SAVED not in saved.read_bytes()
    finally:
        machines.destroy(NAME)
        storage.end(window)
        storage.end(disk)
    for each in (key, state_key):
        assert_nowhere(in_session, each)


def _saved(name: str = NAME, socket: str = "/run/volume.sock", disks: int = 1) -> str:
    disk = (
        f"<disk type='network'><source><host socket='{socket}'/></source>"
        "<serial>volume</serial></disk>"
    )
    return f"<domain><name>{name}</name><devices>{disk * disks}</devices></domain>"


@pytest.mark.parametrize(
    "saved",
    [
        _saved(name="other"),
        _saved(socket="/run/other.sock"),
        _saved(disks=0),
        _saved(disks=2),
        _saved().replace("network", "file"),
    ],
)
def test_another_machines_memory_is_refused(saved: str) -> None:
    place = Path("/run/volume.sock")
    saving.expect(_saved(), NAME, place)
    with pytest.raises(MailboxError) as refused:
        saving.expect(saved, NAME, place)
    assert refused.value.code == "saved-machine-unknown"
