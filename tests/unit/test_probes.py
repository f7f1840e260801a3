"""The doctor's probes, on recorded computers: a tree of files and recorded programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox.host import process
from sandbox.host.libvirt.connection import choose_uri
from sandbox.host.libvirt.machines import start_error
from sandbox.host.probes import desk, disks, kvm, leaks, machines, secrets
from sandbox.host.probes.collect import Sources, collect
from sandbox.host.probes.disks import Encryption, Place
from sandbox.host.probes.facts import KeyringFacts, KvmDevice, KvmProof, LibvirtFacts, ProofKind
from sandbox.host.probes.finding import Level
from sandbox.host.probes.sleep import SleepFacts
from sandbox.host.probes.system import System

DATA = Path("/home/anna/.local/share/mailbox")


class Computer:
    """Builds a recorded computer below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mounts: list[str] = []

    def file(self, path: str, text: str = "") -> None:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def device(self, name: str, number: str, *, below: Sequence[str] = (), dm: str = "") -> None:
        """A whole block device; `below` are devices it is made of."""
        self._node(f"sys/devices/virtual/block/{name}", name, number)
        for slave in below:
            link = self.root / f"sys/devices/virtual/block/{name}/slaves/{slave}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((self.root / f"sys/class/block/{slave}").resolve())
        if dm:
            self.file(f"sys/devices/virtual/block/{name}/dm/uuid", dm + "\n")

    def partition(self, disk: str, name: str, number: str) -> None:
        node = f"sys/devices/virtual/block/{disk}/{name}"
        self._node(node, name, number)
        self.file(f"{node}/partition", "1")

    def disk(self, name: str, number: str, *, rotational: str = "0") -> None:
        self.device(name, number)
        self.file(f"sys/block/{name}/queue/rotational", rotational + "\n")

    def _node(self, node: str, name: str, number: str) -> None:
        (self.root / node).mkdir(parents=True, exist_ok=True)
        for link in (f"sys/dev/block/{number}", f"sys/class/block/{name}"):
            place = self.root / link
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(self.root / node)

    def mount(self, number: str, point: str, fs_type: str, source: str) -> None:
        (self.root / point.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.mounts.append(f"27 1 {number} / {point} rw,relatime shared:1 - {fs_type} {source} rw")
        self.file("/proc/self/mountinfo", "\n".join(self.mounts) + "\n")

    def system(self, *, programs: Mapping[str, str] | None = None, uid: int = 1000) -> System:
        outputs = dict(programs or {})
        return System(
            root=self.root,
            which=lambda name: f"/usr/bin/{name}" if name in outputs else None,
            output=lambda argv: outputs[argv[0]],
            uid=uid,
            user="anna",
            home=Path("/home/anna"),
        )


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    return Computer(tmp_path)


def place(computer: Computer) -> Place:
    found = disks.place_of(computer.system(), DATA)
    assert found is not None
    return found


# --- what the data rests on


def test_a_partition_is_plain(computer: Computer) -> None:
    computer.disk("sda", "8:0", rotational="1")
    computer.partition("sda", "sda2", "8:2")
    computer.mount("8:2", "/", "ext4", "/dev/sda2")
    found = place(computer)
    assert found == Place("ext4", "/dev/sda2", Encryption.PLAIN, False, ("sda",))
    assert disks.is_rotating(computer.system(), "sda") is True


def test_lvm_on_luks_is_encrypted(computer: Computer) -> None:
    computer.disk("nvme0n1", "259:0")
    computer.partition("nvme0n1", "nvme0n1p3", "259:3")
    computer.device("dm-0", "253:0", below=["nvme0n1p3"], dm="CRYPT-LUKS2-abc-luks")
    computer.device("dm-1", "253:1", below=["dm-0"], dm="LVM-xyz")
    computer.mount("253:1", "/", "ext4", "/dev/mapper/vg-root")
    assert place(computer).encryption is Encryption.ENCRYPTED
    assert place(computer).disks == ("nvme0n1",)


def test_one_plain_leg_makes_a_raid_plain(computer: Computer) -> None:
    computer.disk("sda", "8:0")
    computer.disk("sdb", "8:16")
    computer.device("dm-0", "253:0", below=["sda"], dm="CRYPT-LUKS2-abc")
    computer.device("md0", "9:0", below=["dm-0", "sdb"])
    computer.mount("9:0", "/", "ext4", "/dev/md0")
    assert place(computer).encryption is Encryption.PLAIN


def test_the_deepest_and_latest_mount_counts(computer: Computer) -> None:
    computer.disk("sda", "8:0")
    computer.disk("sdb", "8:16")
    computer.device("dm-0", "253:0", below=["sdb"], dm="CRYPT-LUKS2-abc")
    computer.mount("8:0", "/", "ext4", "/dev/sda")
    computer.mount("8:0", "/home", "ext4", "/dev/sda")
    computer.mount("253:0", "/home", "ext4", "/dev/mapper/home")
    computer.mount("8:0", "/home/ann", "ext4", "/dev/sda")
    assert place(computer).source == "/dev/mapper/home"


def test_thin_volumes_are_seen(computer: Computer) -> None:
    computer.disk("sda", "8:0")
    computer.device("dm-0", "253:0", below=["sda"], dm="LVM-abc-tpool")
    computer.device("dm-1", "253:1", below=["dm-0"], dm="LVM-def")
    computer.mount("253:1", "/", "ext4", "/dev/mapper/vg-thin")
    found = place(computer)
    assert found.thin
    assert leaks.judge_snapshots(found, DATA, virtual=False).level is Level.WARNING


def test_every_member_of_a_btrfs_counts(computer: Computer) -> None:
    computer.disk("sda", "8:0")
    computer.disk("sdb", "8:16")
    computer.device("dm-0", "253:0", below=["sda"], dm="CRYPT-LUKS2-abc")
    computer.file("/dev/dm-0")
    (computer.root / "dev/mapper").mkdir()
    (computer.root / "dev/mapper/luks").symlink_to("../dm-0")
    computer.file("/sys/fs/btrfs/uuid-1/devices/dm-0")
    computer.mount("0:35", "/", "btrfs", "/dev/mapper/luks")
    assert place(computer).encryption is Encryption.ENCRYPTED
    computer.file("/sys/fs/btrfs/uuid-1/devices/sdb")
    assert place(computer).encryption is Encryption.PLAIN


@pytest.mark.parametrize("fs_type", ["zfs", "overlay", "fuse.gocryptfs", "nfs4"])
def test_what_cannot_be_seen_is_unknown(computer: Computer, fs_type: str) -> None:
    computer.mount("0:40", "/", fs_type, "somewhere")
    verdict = leaks.judge_data_encryption(place(computer), DATA, virtual=False)
    assert verdict.level is Level.UNKNOWN


def test_devices_that_are_not_known_are_unknown(computer: Computer) -> None:
    computer.device("nbd0", "43:0")
    computer.mount("43:0", "/", "ext4", "/dev/nbd0")
    assert place(computer).encryption is Encryption.UNKNOWN


def test_a_loop_is_what_its_file_rests_on(computer: Computer) -> None:
    computer.disk("sda", "8:0")
    computer.mount("8:0", "/", "ext4", "/dev/sda")
    computer.device("loop0", "7:0")
    computer.file("/sys/devices/virtual/block/loop0/loop/backing_file", "/srv/disk.img\n")
    computer.mount("7:0", "/home", "ext4", "/dev/loop0")
    assert place(computer).encryption is Encryption.PLAIN


def test_slaves_in_a_circle_end(computer: Computer) -> None:
    computer.device("dm-0", "253:0")
    computer.device("dm-1", "253:1", below=["dm-0"])
    computer.root.joinpath("sys/devices/virtual/block/dm-0/slaves").mkdir()
    computer.root.joinpath("sys/devices/virtual/block/dm-0/slaves/dm-1").symlink_to(
        computer.root / "sys/class/block/dm-1"
    )
    computer.mount("253:1", "/", "ext4", "/dev/dm-1")
    assert place(computer).encryption is Encryption.UNKNOWN


def test_mountinfo_with_blanks_and_nonsense() -> None:
    text = "1 2 8:1 / /a\\040b rw - ext4 /dev/sda1 rw\nnonsense\n1 2 3 - \n"
    assert [mount.mount_point for mount in disks.parse_mounts(text)] == ["/a b"]


def test_data_in_memory_is_a_problem(computer: Computer) -> None:
    computer.mount("0:25", "/", "tmpfs", "tmpfs")
    verdict = leaks.judge_data_encryption(place(computer), DATA, virtual=False)
    assert verdict.level is Level.PROBLEM


# --- swap, hibernation, dumps, copies

SWAPS = "Filename\tType\tSize\tUsed\tPriority\n"


def swap_level(computer: Computer, swaps: str) -> Level:
    system = computer.system()
    areas = disks.parse_swaps(SWAPS + swaps)
    return leaks.judge_swap(
        {path: disks.swap_encryption(system, path, kind) for path, kind in areas}
    ).level


def test_swap(computer: Computer) -> None:
    computer.disk("sda", "8:0")
    computer.partition("sda", "sda3", "8:3")
    computer.device("zram0", "252:0")
    computer.device("dm-2", "253:2", below=["sda3"], dm="CRYPT-PLAIN-swap")
    computer.mount("8:0", "/", "ext4", "/dev/sda")
    assert swap_level(computer, "") is Level.OK
    assert swap_level(computer, "/dev/zram0 partition 1 0 100\n") is Level.OK
    assert swap_level(computer, "/dev/dm-2 partition 1 0 -2\n") is Level.OK
    assert swap_level(computer, "/dev/sda3 partition 1 0 -2\n") is Level.PROBLEM
    assert swap_level(computer, "/swap\\040file file 1 0 -2\n") is Level.PROBLEM
    assert swap_level(computer, "/dev/unheard-of partition 1 0 -2\n") is Level.UNKNOWN


PLAIN_SWAP = {"/dev/sda3": Encryption.PLAIN}


@pytest.mark.parametrize(
    ("states", "forbidden", "resume", "areas", "level"),
    [
        ("freeze mem\n", False, "8:3", PLAIN_SWAP, Level.OK),
        ("freeze mem disk\n", True, "8:3", PLAIN_SWAP, Level.OK),
        ("freeze mem disk\n", False, "8:3", {}, Level.OK),
        ("freeze mem disk\n", False, None, {"/dev/zram0": Encryption.MEMORY}, Level.OK),
        ("disk\n", False, "253:1", {"/dev/dm-1": Encryption.ENCRYPTED}, Level.OK),
        ("disk\n", False, "8:3", PLAIN_SWAP, Level.PROBLEM),
        ("disk\n", False, None, PLAIN_SWAP, Level.WARNING),
        (None, False, None, {}, Level.UNKNOWN),
    ],
)
def test_hibernation(
    states: str | None,
    forbidden: bool,
    resume: str | None,
    areas: Mapping[str, Encryption],
    level: Level,
) -> None:
    verdict = leaks.judge_hibernation(states, forbidden=forbidden, resume=resume, areas=areas)
    assert verdict.level is level


def test_where_a_resume_device_is_named(computer: Computer) -> None:
    system = computer.system()
    assert leaks.resume_device(system) is None
    computer.file("/etc/initramfs-tools/conf.d/resume", "RESUME=none\n")
    assert leaks.resume_device(system) is None
    computer.file("/etc/initramfs-tools/conf.d/resume", "# x\nRESUME=UUID=12-34\n")
    assert leaks.resume_device(system) == "UUID=12-34"
    computer.file("/proc/cmdline", "root=/dev/sda1 resume=/dev/sda3\n")
    assert leaks.resume_device(system) == "/dev/sda3"
    computer.file("/sys/power/resume", "0:0\n")
    assert leaks.resume_device(system) == "/dev/sda3"
    computer.file("/sys/power/resume", "8:3\n")
    assert leaks.resume_device(system) == "8:3"


def test_systemd_settings_with_drop_ins(computer: Computer) -> None:
    system = computer.system()
    assert not leaks.hibernation_forbidden(system)
    computer.file("/etc/systemd/sleep.conf", "[Sleep]\n#AllowHibernation=no\n")
    assert not leaks.hibernation_forbidden(system)
    computer.file("/etc/systemd/sleep.conf.d/a.conf", "[Sleep]\nAllowHibernation = no\n")
    assert leaks.hibernation_forbidden(system)
    computer.file("/etc/systemd/coredump.conf.d/a.conf", "[Coredump]\nStorage=none\n")
    assert leaks.core_storage_off(system)


@pytest.mark.parametrize(
    ("pattern", "limit", "off", "level"),
    [
        ("core\n", 0, False, Level.OK),
        ("core\n", -1, False, Level.WARNING),
        ("|/bin/false\n", -1, False, Level.OK),
        ("|/usr/lib/systemd/systemd-coredump %P\n", 0, False, Level.WARNING),
        ("|/usr/lib/systemd/systemd-coredump %P\n", 0, True, Level.OK),
        ("|/usr/share/apport/apport -p%p\n", 0, False, Level.WARNING),
        (None, 0, False, Level.UNKNOWN),
    ],
)
def test_core_dumps(pattern: str | None, limit: int, off: bool, level: Level) -> None:
    assert leaks.judge_core_dumps(pattern, limit=limit, storage_off=off).level is level


FLASH = Place("ext4", "/dev/sda1", Encryption.PLAIN, False, ("sda",))


def test_kind_of_disk() -> None:
    def level(rotating: Sequence[bool | None], seen: Place | None, virtual: bool = False) -> Level:
        return leaks.judge_disk_kind(rotating, seen, virtual=virtual).level

    assert level([True], FLASH) is Level.OK
    assert level([False], FLASH) is Level.WARNING
    assert level([False], replace(FLASH, encryption=Encryption.ENCRYPTED)) is Level.OK
    assert level([True, None], FLASH) is Level.UNKNOWN
    assert level([True], FLASH, virtual=True) is Level.UNKNOWN
    assert level([], None) is Level.UNKNOWN


@pytest.mark.parametrize(
    ("fs_type", "virtual", "level"),
    [
        ("ext4", False, Level.OK),
        ("ext4", True, Level.UNKNOWN),
        ("btrfs", False, Level.WARNING),
        ("zfs", True, Level.WARNING),
        ("overlay", False, Level.UNKNOWN),
    ],
)
def test_snapshots(fs_type: str, virtual: bool, level: Level) -> None:
    seen = replace(FLASH, fs_type=fs_type)
    assert leaks.judge_snapshots(seen, DATA, virtual=virtual).level is level


def test_backup_programs_are_found_by_their_configuration(computer: Computer) -> None:
    assert leaks.backup_tools(computer.system()) == []
    computer.file("/etc/timeshift/timeshift.json")
    computer.file("/home/anna/.cache/deja-dup/metadata")
    assert leaks.backup_tools(computer.system()) == ["Timeshift", "Déjà Dup"]
    assert leaks.judge_backups(["Timeshift"], DATA).level is Level.WARNING


# --- machines

HOME = Path("/home/anna/.config")


def test_libvirt_takes_the_first_address_that_works(computer: Computer) -> None:
    def connect(uri: str) -> LibvirtFacts:
        return LibvirtFacts(uri, "9.0.0", "7.2.0", "down" if uri.endswith("session") else None)

    system = computer.system(uid=1000)
    verdict = machines.libvirt(system, connect, machines.candidates({}, 1000), HOME)
    assert verdict.level is Level.OK
    assert "qemu:///system" in verdict.detail
    assert machines.candidates({}, 0) == ("qemu:///system",)
    for uris in (("qemu:///session", "qemu:///system"), ("qemu:///system",)):
        assert choose_uri({}, 1000 if len(uris) == 2 else 0, connect) == "qemu:///system"


def test_open_and_doctor_prefer_the_session(computer: Computer) -> None:
    def connect(uri: str) -> LibvirtFacts:
        return LibvirtFacts(uri, "9.0.0", "7.2.0")

    uris = machines.candidates({"LIBVIRT_DEFAULT_URI": "qemu:///system"}, 1000)  # as on Ubuntu
    verdict = machines.libvirt(computer.system(uid=1000), connect, uris, HOME)
    assert choose_uri({}, 1000, connect) == "qemu:///session"
    assert "qemu:///session works" in verdict.detail


def test_a_libvirt_that_confines_by_apparmor_is_a_warning() -> None:
    facts = LibvirtFacts("qemu:///system", "9.0.0", "7.2.0", apparmor=True)
    verdict = machines.judge_libvirt(facts, preferred=True)
    assert verdict.level is Level.WARNING and "AppArmor" in verdict.detail
    assert machines.judge_libvirt(replace(facts, apparmor=False), preferred=True).level is Level.OK


def test_a_home_too_deep_for_the_sockets_of_libvirt(computer: Computer) -> None:
    def connect(uri: str) -> LibvirtFacts:
        return LibvirtFacts(uri, "9.0.0", "7.2.0")

    def level(config_home: Path, uri: str = "qemu:///session") -> Level:
        return machines.libvirt(computer.system(uid=1000), connect, [uri], config_home).level

    assert level(Path("/" + "x" * 42)) is Level.OK
    assert level(Path("/" + "x" * 43)) is Level.PROBLEM
    assert level(Path("/" + "x" * 43), "qemu:///system") is Level.OK


def test_a_start_that_fails_for_a_deep_home_names_it() -> None:
    said = "internal error: UNIX socket path '/very/deep/monitor.sock' too long"
    error = start_error(said)
    assert error.code == "path-too-long" and "XDG_CONFIG_HOME" in error.resolution
    assert start_error("internal error: boom").code == "libvirt-error"


@pytest.mark.parametrize(
    ("root", "systemd", "installed", "remedy"),
    [
        (True, False, True, "virtlogd -d; libvirtd -d"),
        (True, True, True, "systemctl start libvirtd"),
        (False, True, True, "systemctl start libvirtd"),
        (False, False, True, "libvirtd --timeout"),
        (False, False, False, "apt-get install libvirt-daemon"),
    ],
)
def test_libvirt_says_what_to_start(
    root: bool, systemd: bool, installed: bool, remedy: str
) -> None:
    tried = [LibvirtFacts("qemu:///system", error="no such socket")]
    verdict = machines.judge_no_libvirt(tried, root=root, systemd=systemd, installed=installed)
    assert verdict.level is Level.PROBLEM
    assert remedy in verdict.remedy
    assert "no such socket" in verdict.detail


@pytest.mark.parametrize(
    ("output", "level"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", Level.OK),
        ("QEMU emulator version 10.0.2", Level.OK),
        ("QEMU emulator version 6.2.0 (Debian 1:6.2+dfsg-2ubuntu6)", Level.PROBLEM),
        ("", Level.UNKNOWN),
    ],
)
def test_qemu_versions(output: str, level: Level) -> None:
    assert machines.judge_qemu(output, "install").level is level


DEVICE = KvmDevice(present=True, permitted=True, api_version=12)


@pytest.mark.parametrize(
    ("device", "proof", "level"),
    [
        (KvmDevice(False), None, Level.WARNING),
        (KvmDevice(True), None, Level.WARNING),
        (DEVICE, KvmProof(True, ProofKind.KERNEL, "", 0.8), Level.OK),
        (DEVICE, KvmProof(True, ProofKind.BOOT_SECTOR, ""), Level.UNKNOWN),
        (DEVICE, KvmProof(False, ProofKind.BOOT_SECTOR, "no answer"), Level.WARNING),
        (DEVICE, KvmProof(False, ProofKind.KERNEL, "no answer"), Level.WARNING),
        (DEVICE, KvmProof(False, ProofKind.NONE, "QEMU is not installed"), Level.UNKNOWN),
    ],
)
def test_kvm(computer: Computer, device: KvmDevice, proof: KvmProof | None, level: Level) -> None:
    def prove() -> KvmProof:
        assert proof is not None, "a device that cannot be used needs no proof"
        return proof

    assert machines.kvm(computer.system(), device, prove).level is level


def test_fuse() -> None:
    assert machines.judge_fuse(present=False, usable=False, mounter=True).level is Level.WARNING
    assert "0666" in machines.judge_fuse(present=True, usable=False, mounter=True).remedy
    assert "fuse3" in machines.judge_fuse(present=True, usable=True, mounter=False).remedy
    assert machines.judge_fuse(present=True, usable=True, mounter=True).level is Level.OK


# --- the proof of KVM


def test_the_boot_sector_is_one() -> None:
    sector = kvm.boot_sector()
    assert len(sector) == 512
    assert sector.endswith(b"\x55\xaa")
    text = int.from_bytes(sector[7:9], "little") - 0x7C00
    assert sector[text:].startswith(kvm.MARKER)


@pytest.mark.parametrize(
    ("attempt", "works"),
    [
        (kvm.Attempt(33, b"SeaBIOS\r\nMAILBOX-PROBE\r\n", "", 0.1), True),
        (kvm.Attempt(None, b"MAILBOX-PROBE\r\n", "no answer within 10 s", 10), False),
        (kvm.Attempt(33, b"", "", 0.1), False),
        (
            kvm.Attempt(-6, b"", "qemu: error: failed to set MSR 0x10a\nAssertion failed", 0.1),
            False,
        ),
    ],
)
def test_the_boot_sector_must_answer_and_end(attempt: kvm.Attempt, works: bool) -> None:
    assert kvm.judge_sector(attempt).works is works


PANIC = b"Linux version 6.12\r\nKernel panic - not syncing: VFS: Unable to mount root fs on\r\n"


@pytest.mark.parametrize(
    ("attempt", "works"),
    [
        (kvm.Attempt(0, PANIC, "", 1.0), True),
        (kvm.Attempt(None, PANIC[:20], "no answer within 10 s", 10.0), False),
        (kvm.Attempt(0, b"Linux version 6.12\r\nKernel panic - not syncing: no CPU", "", 1), False),
    ],
)
def test_a_kernel_must_start_as_a_whole(attempt: kvm.Attempt, works: bool) -> None:
    assert kvm.judge_kernel(attempt).works is works


def test_a_failed_proof_says_the_error_not_the_assertion() -> None:
    attempt = kvm.Attempt(-6, b"", "qemu: error: failed to set MSR\nqemu: kvm.c:1: Assertion", 0.1)
    assert kvm.judge_sector(attempt).detail == "qemu: error: failed to set MSR"


class Boots:
    """Counts what was booted."""

    def __init__(self, attempt: kvm.Attempt) -> None:
        self.attempt = attempt
        self.argvs: list[Sequence[str]] = []

    def __call__(self, argv: Sequence[str], serial: Path) -> kvm.Attempt:
        self.argvs.append(argv)
        return self.attempt


@pytest.fixture
def with_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(kvm, "qemu_version", lambda: "7.2.22")


def test_the_answer_is_remembered_by_kind_of_proof(tmp_path: Path, with_qemu: None) -> None:
    cache = tmp_path / "state/kvm.json"
    sector = Boots(kvm.Attempt(33, kvm.MARKER, "", 0.1))
    assert kvm.prove_kvm(cache, run=sector).works
    again = kvm.prove_kvm(cache, run=sector)
    assert again.cached
    assert len(sector.argvs) == 1
    kernel = Boots(kvm.Attempt(None, b"", "no answer within 10 s", 10.0))
    proof = kvm.prove_kvm(cache, kernel=Path("/images/vmlinuz"), run=kernel)
    assert (proof.works, proof.kind, proof.cached) == (False, ProofKind.KERNEL, False)
    assert "/images/vmlinuz" in kernel.argvs[0]
    assert kvm.prove_kvm(cache, run=sector, fresh=True).cached is False
    assert cache.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"x": 1}', "null"])
def test_a_damaged_cache_is_no_answer(tmp_path: Path, with_qemu: None, damage: str) -> None:
    cache = tmp_path / "kvm.json"
    cache.write_text(damage)
    boots = Boots(kvm.Attempt(33, kvm.MARKER, "", 0.1))
    assert not kvm.prove_kvm(cache, run=boots).cached
    assert json.loads(cache.read_text())


# --- secrets and tools


@pytest.mark.parametrize(
    ("facts", "level"),
    [
        (KeyringFacts("keyring.backends.SecretService.Keyring", True), Level.OK),
        (
            KeyringFacts("keyring.backends.SecretService.Keyring", True, True, "locked"),
            Level.WARNING,
        ),
        (KeyringFacts("keyrings.alt.file.PlaintextKeyring", False), Level.PROBLEM),
        (KeyringFacts("keyring.backends.fail.Keyring", False), Level.PROBLEM),
        (
            KeyringFacts("keyring.backends.SecretService.Keyring", True, error="no bus"),
            Level.PROBLEM,
        ),
    ],
)
def test_keyring(facts: KeyringFacts, level: Level) -> None:
    assert secrets.judge_keyring(facts).level is level


@pytest.mark.parametrize(
    ("output", "level"),
    [
        ("gpg (GnuPG) 2.2.40\nlibgcrypt 1.10.1", Level.OK),
        ("gpg (GnuPG) 2.4.7-unknown", Level.OK),
        ("gpg (GnuPG) 2.2.19", Level.PROBLEM),
        ("", Level.UNKNOWN),
    ],
)
def test_gnupg(output: str, level: Level) -> None:
    assert secrets.judge_gnupg(output).level is level


def test_pinentry_is_the_configured_one(computer: Computer) -> None:
    listed = "gpg:OpenPGP:/usr/bin/gpg\npinentry:Passphrase Entry:/opt/with%3acolon/pinentry\n"
    system = computer.system(programs={"gpgconf": listed})
    assert secrets.pinentry(system).level is Level.WARNING
    computer.file("/opt/with:colon/pinentry")
    assert secrets.pinentry(system).level is Level.OK


@pytest.mark.parametrize(
    ("uid", "subuid", "clone", "level"),
    [
        (1000, "anna:100000:65536\n", "1", Level.OK),
        (1000, "1000:100000:65536\n", "1", Level.OK),
        (1000, "bert:100000:65536\n", "1", Level.WARNING),
        (1000, "anna:100000:65536\n", "0", Level.WARNING),
        (0, "", "0", Level.OK),
    ],
)
def test_image_tools(computer: Computer, uid: int, subuid: str, clone: str, level: Level) -> None:
    computer.file("/etc/subuid", subuid)
    computer.file("/etc/subgid", subuid)
    computer.file("/proc/sys/kernel/unprivileged_userns_clone", clone + "\n")
    programs = {"mmdebstrap": "", "mkfs.erofs": "", "newuidmap": ""}
    assert desk.image_tools(computer.system(programs=programs, uid=uid)).level is level


def test_missing_image_tools_name_their_packages(computer: Computer) -> None:
    remedy = desk.image_tools(computer.system()).remedy
    assert remedy == "sudo apt-get install mmdebstrap erofs-utils uidmap"


def test_space(tmp_path: Path) -> None:
    assert desk.free_bytes(tmp_path / "not/yet/there") is not None
    gib = 1 << 30
    levels = [desk.judge_space(free, DATA).level for free in (None, gib, 5 * gib, 50 * gib)]
    assert levels == [Level.UNKNOWN, Level.PROBLEM, Level.WARNING, Level.OK]


# --- all of them together


def sources(system: System, connect: Callable[[str], LibvirtFacts]) -> Sources:
    return Sources(
        data_folder=DATA,
        connect_libvirt=connect,
        keyring_facts=lambda: KeyringFacts("keyring.backends.SecretService.Keyring", True),
        prove_kvm=lambda: KvmProof(True, ProofKind.KERNEL, "", 0.9),
        sleep_facts=lambda: SleepFacts("suspend", delay_s=5.0),
        system=system,
        kvm_device=lambda: DEVICE,
        free_bytes=lambda folder: 1 << 40,
        core_limit=lambda: 0,
    )


def test_a_probe_that_crashes_is_unknown_and_hides_no_other(computer: Computer) -> None:
    def connect(uri: str) -> LibvirtFacts:
        raise RuntimeError("libvirt exploded")

    titles: list[str] = []
    findings = collect(sources(computer.system(), connect), titles.append)
    by_id = {finding.id: finding for finding in findings}
    assert by_id["libvirt"].level is Level.UNKNOWN
    assert "libvirt exploded" in by_id["libvirt"].detail
    assert by_id["keyring"].level is Level.OK
    assert len(by_id) == len(findings) == len(titles) == 20


def test_an_empty_computer_is_judged_without_a_crash(computer: Computer) -> None:
    findings = collect(sources(computer.system(), lambda uri: LibvirtFacts(uri, error="no")))
    assert not [f for f in findings if "could not be looked at" in f.detail]
    unhelped = [
        f.id for f in findings if f.level in (Level.PROBLEM, Level.WARNING) and not f.remedy
    ]
    assert unhelped == []


def test_this_computer_is_judged_without_a_crash(tmp_path: Path) -> None:
    here = sources(System(), lambda uri: LibvirtFacts(uri, error="not asked"))
    findings = collect(replace(here, data_folder=tmp_path / "mailbox"))
    assert not [f for f in findings if "could not be looked at" in f.detail]
