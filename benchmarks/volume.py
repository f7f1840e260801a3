"""How fast an encrypted volume is in a machine, beside the same without encryption.

    python -m benchmarks.volume [--rounds N] [--megabytes N] [--json FILE]

Two disks of the same kind are plugged into an open mailbox's machine, one of them LUKS, for each
way in which QEMU can be told to treat its file.  The reader and writer (disk.py) runs in the
machine, passes its page cache, and takes turns between the two.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import libvirt

from benchmarks import computer, goals, scene
from benchmarks.goals import Finding, Measured, Table
from benchmarks.mailbox import Mailbox, MailboxError
from benchmarks.scene import Scene, say
from sandbox.host import storage, volumes
from sandbox.host.vault import Vault
from sandbox.model.machine import VOLUME_EXPORT

PLAIN, LUKS = "bench-plain", "bench-luks"
KINDS = {
    "volume-read": "sequential read",
    "volume-write": "sequential write",
    "volume-random-read": "random read",
    "volume-random-write": "random write",
}
_OPERATIONS = 2000
_UNPLUG_S = 60.0
_IOTHREAD = 1


@dataclass(frozen=True)
class Mode:
    """How QEMU treats a disk's file; `served` lets a storage daemon decrypt it."""

    cache: str
    io: str
    iothread: bool = False
    served: bool = False

    def __str__(self) -> str:
        words = [f"cache={self.cache}", f"io={self.io}"]
        words += ["own thread"] if self.iothread else []
        return ", ".join(words) + (" (LUKS: storage daemon)" if self.served else "")


MODES = (
    Mode("writeback", "threads"),
    Mode("writeback", "threads", iothread=True),
    Mode("writeback", "io_uring"),
    Mode("none", "threads"),
    Mode("none", "native"),
    Mode("none", "io_uring"),
    Mode("directsync", "native"),
    Mode("writeback", "threads", served=True),
)


def shipped() -> Mode:
    """The mode that volumes are plugged in with."""
    text = resources.files("sandbox.host.libvirt").joinpath("templates", "volume.xml").read_text()
    driver = re.search(r"<driver [^>]*>", text)
    options = dict(re.findall(r"(\w+)='([^']*)'", driver.group() if driver else ""))
    return Mode(options.get("cache", "writeback"), options.get("io", "threads"), served=True)


class Bench:
    """Disks for one machine, and the work on them."""

    def __init__(self, made: Scene, mailbox: Mailbox, size: int) -> None:
        self._mailbox = mailbox
        self._size = size
        self._folder = made.session.root / "disks"
        self._folder.mkdir(mode=0o700)
        self._key = Vault.new_key()
        self._connection = libvirt.open("qemu:///session")
        (self._domain,) = self._connection.listAllDomains()
        self._domain.addIOThread(_IOTHREAD, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        self._plain, self._luks = self._folder / PLAIN, self._folder / LUKS
        with self._plain.open("wb") as file:
            file.truncate(size)
        volumes.create(self._luks, size, self._key)

    def work(self, mode: Mode, rounds: int) -> dict[str, dict[str, list[float]]]:
        """MB/s by disk and kind of work."""
        source = Path(__file__).with_name("disk.py").read_text(encoding="utf-8")
        call = f"\nmain({[PLAIN, LUKS]!r}, {self._size}, {_OPERATIONS}, {rounds})\n"
        with self._plugged(mode):
            found: dict[str, Any] = json.loads(
                self._mailbox.run((source + call).encode(), root=True)
            )
        return found

    @contextmanager
    def _plugged(self, mode: Mode) -> Iterator[None]:
        socket = self._folder / "served.sock"
        plain = _disk(mode, PLAIN, "vdc", f"<source file='{escape(str(self._plain))}'/>")
        secret, identity = None, uuid.uuid4()
        try:
            if mode.served:
                storage.serve_disk(self._luks, self._key, socket)
                host = f"<host transport='unix' socket='{escape(str(socket))}'/>"
                source = f"<source protocol='nbd' name='{VOLUME_EXPORT}'>{host}</source>"
                luks = _disk(mode, LUKS, "vdd", source, kind="network")
            else:
                secret = self._connection.secretDefineXML(_secret(self._luks, identity))
                secret.setValue(self._key)
                key = f"<secret type='passphrase' uuid='{identity}'/>"
                source = (
                    f"<source file='{escape(str(self._luks))}'>"
                    f"<encryption format='luks'>{key}</encryption></source>"
                )
                luks = _disk(mode, LUKS, "vdd", source)
            for xml in (plain, luks):
                self._domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            time.sleep(1)
            yield
        finally:
            for target in ("vdc", "vdd"):
                self._unplug(target)
            if secret is not None:
                secret.undefine()
            storage.end(socket)

    def _unplug(self, target: str) -> None:
        """Take a disk away, which the guest has to agree to."""
        until = time.monotonic() + _UNPLUG_S
        while f"<target dev='{target}'" in self._domain.XMLDesc() and time.monotonic() < until:
            xml = f"<disk type='file' device='disk'><target dev='{target}' bus='virtio'/></disk>"
            with suppress(libvirt.libvirtError):
                self._domain.detachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
            time.sleep(1)


def _secret(volume: Path, identity: uuid.UUID) -> str:
    return (
        f"<secret ephemeral='yes' private='yes'><uuid>{identity}</uuid>"
        f"<usage type='volume'><volume>{escape(str(volume))}</volume></usage></secret>"
    )


def _disk(mode: Mode, serial: str, target: str, source: str, *, kind: str = "file") -> str:
    thread = f" iothread='{_IOTHREAD}'" if mode.iothread else ""
    driver = f"name='qemu' type='raw' cache='{mode.cache}' io='{mode.io}' discard='unmap'{thread}"
    return (
        f"<disk type='{kind}' device='disk'><driver {driver}/>{source}"
        f"<target dev='{target}' bus='virtio'/><serial>{serial}</serial></disk>"
    )


def finding(found: dict[Mode, dict[str, dict[str, list[float]]]]) -> Finding:
    """The shipped mode's ratios, and all modes beside each other."""
    ours = found[shipped()]
    figures = []
    for key, kind in KINDS.items():
        luks, plain = ours[LUKS][kind], ours[PLAIN][kind]
        middle = statistics.median(plain)
        ends = (min(luks) / middle, max(luks) / middle)
        why = f"{statistics.median(luks):.0f} MB/s instead of {middle:.0f} MB/s."
        figures.append(Measured(key, statistics.median(luks) / middle, *ends, why))
    rows = []
    for mode, sides in found.items():
        cells = [
            f"{statistics.median(sides[LUKS][kind]):.0f} / "
            f"{statistics.median(sides[PLAIN][kind]):.0f}"
            for kind in KINDS.values()
        ]
        rows.append((f"**{mode}**" if mode == shipped() else str(mode), *cells))
    note = (
        "MB/s of the encrypted disk / of the plain one, in the machine, past its page cache; "
        "sequential in blocks of 4 MiB, random in blocks of 4 KiB, four at once; writes until "
        "they are durable. In bold what `mailbox` uses."
    )
    table = Table("The volume", ("QEMU's mode", *KINDS.values()), tuple(rows), note)
    seen = [{"mode": str(mode), **sides} for mode, sides in found.items()]
    return Finding("volume", computer.facts(), figures, (table,), seen)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.volume", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds in each mode (default 3)")
    parser.add_argument("--megabytes", type=int, default=512, help="size of the disks")
    parser.add_argument("--quick", action="store_true", help="one small round of two modes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to FILE")
    said = parser.parse_args()
    rounds, size = (1, 64) if said.quick else (said.rounds, said.megabytes)
    modes = [shipped(), *(mode for mode in MODES if mode != shipped())]

    def measure() -> None:
        found = {}
        with scene.prepared() as made:
            os.environ.update(made.session.env)
            mailbox = Mailbox(made)
            mailbox.renew()
            mailbox.open()
            bench = Bench(made, mailbox, size * 1024**2)
            for mode in modes[:2] if said.quick else modes:
                try:
                    found[mode] = bench.work(mode, rounds)
                    say(f"{mode}: {found[mode]}")
                except libvirt.libvirtError as error:
                    say(f"{mode}: not possible here ({error})")
        result = finding(found)
        print("Goals\n" + goals.report(result.figures))
        if said.json is not None:
            result.write(said.json)

    return scene.run(measure, MailboxError)


if __name__ == "__main__":
    raise SystemExit(main())
