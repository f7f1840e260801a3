"""The proof of KVM with a real QEMU: what answers is believed, what hangs is ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.host import process
from sandbox.host.probes import kvm
from sandbox.host.probes.facts import ProofKind

pytestmark = pytest.mark.skipif(process.which(kvm.QEMU) is None, reason="QEMU is not installed")


def test_the_boot_sector_answers_under_emulation() -> None:
    proof = kvm.try_sector("tcg", "max")
    assert proof.works, proof.detail
    assert proof.kind is ProofKind.BOOT_SECTOR


def test_what_hangs_is_ended_and_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "DEADLINE_S", 1.0)
    monkeypatch.setattr(kvm, "boot_sector", lambda: b"\xeb\xfe".ljust(510, b"\0") + b"\x55\xaa")
    proof = kvm.try_sector("tcg", "max")
    assert not proof.works
    assert "no answer within 1 s" in proof.detail
    assert not _running("mailbox-probe-")


def test_kvm_is_judged_here_whatever_it_is(tmp_path: Path) -> None:
    if not kvm.device_facts().permitted:
        pytest.skip("/dev/kvm is not usable here")
    first = kvm.prove_kvm(tmp_path / "kvm.json")
    again = kvm.prove_kvm(tmp_path / "kvm.json")
    assert first.detail
    assert (again.works, again.detail, again.cached) == (first.works, first.detail, True)


def _running(text: str) -> list[str]:
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:
            continue
        if text.encode() in command and b"qemu" in command:
            lines.append(command.decode(errors="replace"))
    return lines
