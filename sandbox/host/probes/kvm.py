"""Proves that KVM works by running something that answers, and remembers the answer.

A boot sector is all there is before the first image is built; it can succeed where a whole
kernel hangs (seen under nested para-virtualisation), so a kernel is preferred.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sandbox.host import process
from sandbox.host.probes.facts import KvmDevice, KvmProof, ProofKind
from sandbox.host.probes.machines import version_in
from sandbox.model.errors import MailboxError

DEADLINE_S = 10.0
MARKER = b"MAILBOX-PROBE"
QEMU = "qemu-system-x86_64"

_KVM_GET_API_VERSION = 0xAE00
_DEBUG_EXIT_PORT = 0xF4
_EXIT_CODE = (0x10 << 1) | 1  # isa-debug-exit makes (value << 1) | 1 of what is written
_LOAD_ADDRESS = 0x7C00
_DISK_SIZE = 1 << 20  # SeaBIOS boots no disk of a single sector


def device_facts(path: Path = Path("/dev/kvm")) -> KvmDevice:
    """Presence, permission and API version of the KVM device."""
    if not path.exists():
        return KvmDevice(present=False)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return KvmDevice(present=True)
    try:
        return KvmDevice(True, True, fcntl.ioctl(descriptor, _KVM_GET_API_VERSION))
    except OSError:
        return KvmDevice(present=True, permitted=True)
    finally:
        os.close(descriptor)


def boot_sector() -> bytes:
    """512 bytes that write the marker to the serial port and leave by isa-debug-exit."""
    code = b"".join(
        (
            bytes.fromhex("fa 31c0 8ed8 fc"),  # cli; xor ax,ax; mov ds,ax; cld
            b"\xbe\x1d\x7c",  # mov si, message (patched below)
            bytes.fromhex("ba f803"),  # mov dx, 0x3f8: the first serial port
            bytes.fromhex(
                "ac 84c0 7403 ee ebf8"
            ),  # next: lodsb; test al,al; jz +3; out dx,al; jmp next
            b"\xba" + _DEBUG_EXIT_PORT.to_bytes(2, "little"),  # mov dx, 0xf4
            bytes.fromhex("b010 ee"),  # mov al, 0x10; out dx,al
            bytes.fromhex("f4 ebfd"),  # hlt; jmp back
        )
    )
    message = (_LOAD_ADDRESS + len(code)).to_bytes(2, "little")
    code = code[:7] + message + code[9:]
    return (code + MARKER + b"\r\n\0").ljust(510, b"\0") + b"\x55\xaa"


@dataclass(frozen=True)
class Attempt:
    """How a QEMU under test ended and what its serial port said."""

    returncode: int | None
    serial: bytes
    error: str
    seconds: float


Boot = Callable[[Sequence[str], Path], Attempt]


def boot(argv: Sequence[str], serial: Path) -> Attempt:
    """Run QEMU to its end or to the deadline; it is ended and reaped in every case."""
    started = time.monotonic()
    returncode: int | None = None
    try:
        done = process.run(argv, check=False, timeout=DEADLINE_S)
        returncode, error = done.returncode, done.last_error(2)
    except MailboxError as stopped:
        if stopped.code != "program-timeout":
            raise
        error = f"no answer within {DEADLINE_S:g} s"
    said = serial.read_bytes() if serial.exists() else b""
    return Attempt(returncode, said, error, time.monotonic() - started)


def qemu_argv(accelerator: str, cpu: str, serial: Path) -> list[str]:
    """A machine without devices but a serial port that ends instead of rebooting."""
    return [
        QEMU,
        "-machine",
        f"q35,accel={accelerator}",
        *("-cpu", cpu, "-m", "256", "-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none", "-chardev", f"file,id=serial,path={_comma(serial)}"),
        *("-serial", "chardev:serial"),
    ]


def _comma(path: Path) -> str:
    return str(path).replace(",", ",,")


def judge_sector(attempt: Attempt) -> KvmProof:
    """The boot sector must have written its marker and chosen the exit status."""
    works = MARKER in attempt.serial and attempt.returncode == _EXIT_CODE
    detail = "a boot sector answered" if works else _failure(attempt)
    return KvmProof(works, ProofKind.BOOT_SECTOR, detail, round(attempt.seconds, 2))


def judge_kernel(attempt: Attempt) -> KvmProof:
    """Without a root the kernel panics at the very end of its start, and `panic=-1` ends QEMU.

    Its first line alone would prove little: hangs come later.
    """
    whole = re.search(rb"Unable to mount root fs|Cannot open root device", attempt.serial)
    works = whole is not None and attempt.returncode == 0
    detail = "a whole kernel started" if works else _failure(attempt)
    return KvmProof(works, ProofKind.KERNEL, detail, round(attempt.seconds, 2))


def _failure(attempt: Attempt) -> str:
    last = attempt.serial.decode(errors="replace").strip().splitlines()[-1:]
    after = f" after {last[0][:100]!r}" if last else ""
    reason = attempt.error.strip().splitlines()[-1:] or [f"QEMU ended with {attempt.returncode}"]
    # an assertion's text names source files of QEMU: its first line says what it is about
    first = next((line for line in attempt.error.splitlines() if "error:" in line), reason[0])
    return f"{first.strip()}{after}"


def try_sector(accelerator: str = "kvm", cpu: str = "host", run: Boot = boot) -> KvmProof:
    """Boot the boot sector."""
    with tempfile.TemporaryDirectory(prefix="mailbox-probe-") as folder:
        disk, serial = Path(folder, "disk"), Path(folder, "serial")
        disk.write_bytes(boot_sector().ljust(_DISK_SIZE, b"\0"))
        argv = [
            *qemu_argv(accelerator, cpu, serial),
            *("-drive", f"file={_comma(disk)},format=raw,if=ide"),
            *("-device", f"isa-debug-exit,iobase={_DEBUG_EXIT_PORT:#x},iosize=1"),
        ]
        return judge_sector(run(argv, serial))


def try_kernel(
    kernel: Path, accelerator: str = "kvm", cpu: str = "host", run: Boot = boot
) -> KvmProof:
    """Boot a kernel without a root file system."""
    with tempfile.TemporaryDirectory(prefix="mailbox-probe-") as folder:
        serial = Path(folder, "serial")
        argv = [
            *qemu_argv(accelerator, cpu, serial),
            *("-kernel", str(kernel)),
            *("-append", "console=ttyS0 panic=-1 mailbox.probe=1"),
        ]
        return judge_kernel(run(argv, serial))


def qemu_version() -> str:
    """QEMU's version, as part of what an answer is remembered for."""
    text = process.run([QEMU, "--version"], check=False, timeout=DEADLINE_S).stdout.decode()
    return ".".join(map(str, version_in(text) or ()))


def cache_key(release: str, qemu: str, cpu: str, kind: ProofKind) -> str:
    """An answer holds for one host kernel, one QEMU, one CPU model and one kind of proof."""
    return f"{release} qemu-{qemu} {cpu} {kind}"


def recall(cache: Path, key: str) -> KvmProof | None:
    """An answer from before; a damaged cache is no answer."""
    try:
        entry = json.loads(cache.read_text())[key]
        return KvmProof(
            works=entry["works"] is True,
            kind=ProofKind(entry["kind"]),
            detail=str(entry["detail"]),
            seconds=float(entry["seconds"]),
            cached=True,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(cache: Path, key: str, proof: KvmProof) -> None:
    """Keep an answer; without a place to keep it, it is asked again next time."""
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    entry = {name: value for name, value in asdict(proof).items() if name != "cached"}
    entries = {**(known if isinstance(known, dict) else {}), key: entry}
    draft = cache.with_name(f"{cache.name}.{os.getpid()}")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(entries, indent=1))
        draft.replace(cache)
    except OSError:
        draft.unlink(missing_ok=True)


def prove_kvm(
    cache: Path,
    *,
    kernel: Path | None = None,
    cpu: str = "host",
    fresh: bool = False,
    run: Boot = boot,
) -> KvmProof:
    """Whether KVM works here: a remembered answer, or a new one (up to ten seconds)."""
    if process.which(QEMU) is None:
        return KvmProof(False, ProofKind.NONE, f"{QEMU} is not installed")
    kind = ProofKind.KERNEL if kernel else ProofKind.BOOT_SECTOR
    permitted = "permitted" if device_facts().permitted else "not permitted"
    key = cache_key(os.uname().release, qemu_version(), f"{cpu}, {permitted}", kind)
    known = None if fresh else recall(cache, key)
    if known:
        return known
    proof = try_kernel(kernel, cpu=cpu, run=run) if kernel else try_sector(cpu=cpu, run=run)
    remember(cache, key, proof)
    return proof
