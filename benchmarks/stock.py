"""The stock machine: a desktop in QEMU that starts Thunderbird, measured from outside."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import question
from benchmarks.samples import Sample
from benchmarks.scene import short_folder
from benchmarks.stockimage import StockError, StockImage
from demo import inside

Json = dict[str, Any]

DOOR = "10.0.2.15:2829"
POWER_OFF_S = 120.0
# Programs whose begin tells how far the start is; names as /proc cuts them.
_MILESTONES = {"display manager": "lightdm", "X server": "Xorg", "desktop": "xfce4-session"}


@dataclass(frozen=True)
class Hardware:
    """What the mailbox's machine has, so that the other one gets the same."""

    accelerator: str
    cpu: str
    memory: int
    cpus: int


class StockMachine:
    """One desktop on a disk of its own; each `start` is one run of it."""

    def __init__(self, image: StockImage, folder: Path, hardware: Hardware) -> None:
        self._image = image
        self._folder = folder
        self._hardware = hardware
        self._disk = folder / "stock.qcow2"
        self._qemu: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._begun = 0.0
        _run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.disk, self._disk)

    def set_up(self, desired: Json, newest: str) -> None:
        """The very first start: the account is set up, its mail fetched; it is not measured."""
        note = self._folder / "desired.json"
        note.touch(0o600)
        text = json.dumps(desired)
        # A disk consists of whole sectors; blanks after the end are still JSON.
        note.write_text(text.ljust(-(-len(text.encode()) // 512) * 512 + 512, "\n"))
        try:
            with self.running(note) as session:
                question.ask(session, "inbox", newest)
                time.sleep(10)  # what the first start does afterwards
                self._close(session)
        finally:
            note.unlink()

    def measure(self, number: int, newest: str) -> Sample:
        """One start to the synchronised inbox, and its end."""
        sample = Sample("stock", "start", number)
        with self.running() as session:
            sample.add("mail client answers", self._since())
            question.ask(session, "window", newest)
            sample.add("window", self._since())
            question.ask(session, "inbox", newest)
            sample.add("inbox synchronised", self._since())
            self._add_milestones(sample, question.ask(session, "processes"))
            time.sleep(5)  # a person reads before closing
            begun = time.monotonic()
            self._close(session)
            sample.add("close", time.monotonic() - begun)
        return sample

    @contextlib.contextmanager
    def running(self, second_disk: Path | None = None) -> Iterator[inside.Marionette]:
        """Start, yield a session with its Thunderbird; it is gone afterwards whatever happens."""
        self._port = _free_port()
        console = (self._folder / "console.log").open("wb")
        self._begun = time.monotonic()
        with console:
            self._qemu = subprocess.Popen(
                self._command(second_disk),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is for us to handle
            )
        try:
            self._await_network()
            yield question.connect(self._port, ended=self._ended)
        except inside.MarionetteError as error:
            raise StockError(f"{error}\n{self._last_words()}") from None
        finally:
            self._kill()

    def _command(self, second_disk: Path | None) -> list[str]:
        hardware, folder = self._hardware, self._folder
        forward = f"hostfwd=tcp:127.0.0.1:{self._port}-{DOOR}"
        command = [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "q35"),
            *("-accel", hardware.accelerator, "-cpu", hardware.cpu),
            *("-m", f"{hardware.memory // 2**20}", "-smp", str(hardware.cpus)),
            *("-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd)),
            *("-append", "root=/dev/vda rw quiet console=ttyS0"),
            *("-drive", f"file={self._disk},format=qcow2,if=virtio"),
            *("-nic", f"user,model=virtio-net-pci,{forward}"),
            *("-device", "virtio-vga", "-vnc", f"unix:{folder}/display.sock"),
            *("-device", "virtio-tablet-pci", "-device", "virtio-keyboard-pci"),
            *("-device", "virtio-rng-pci", "-device", "virtio-balloon-pci"),
            *("-serial", "stdio"),
        ]
        if second_disk is not None:
            command += ["-drive", f"file={second_disk},format=raw,if=virtio,readonly=on"]
        return command

    def _since(self) -> float:
        return time.monotonic() - self._begun

    def _await_network(self) -> None:
        """Return when the guest's network answers, be it with a refusal: then asking is quick."""
        while not self._ended() and self._since() < question.DEADLINE_S:
            with contextlib.closing(socket.socket()) as sock:
                sock.settimeout(4)
                try:
                    sock.connect(("127.0.0.1", self._port))
                    sock.recv(1)
                    return
                except TimeoutError:
                    continue
                except OSError:
                    return

    def _add_milestones(self, sample: Sample, answer: Json) -> None:
        kernel = self._since() - answer["uptime"]
        sample.add("kernel starts", kernel)
        for title, name in _MILESTONES.items():
            if name in answer["processes"]:
                sample.add(title, kernel + answer["processes"][name])
        client = answer["processes"].get("thunderbird-bin", answer["processes"].get("thunderbird"))
        if client is not None:
            sample.add("mail client starts", kernel + client)

    def _close(self, session: inside.Marionette) -> None:
        """Quit Thunderbird; its session switches the machine off as soon as it has ended."""
        assert self._qemu is not None
        question.ask(session, "quit")
        try:
            self._qemu.wait(POWER_OFF_S)
        except subprocess.TimeoutExpired:
            raise StockError(f"It did not switch off.\n{self._last_words()}") from None

    def _ended(self) -> bool:
        return self._qemu is None or self._qemu.poll() is not None

    def _kill(self) -> None:
        qemu, self._qemu = self._qemu, None
        if qemu is not None and qemu.poll() is None:
            qemu.kill()
        if qemu is not None:
            qemu.wait(30)

    def _last_words(self) -> str:
        text = (self._folder / "console.log").read_text(errors="replace")
        return "The last lines of its console:\n" + "\n".join(text.splitlines()[-15:])


@contextlib.contextmanager
def stock_machine(image: StockImage, hardware: Hardware) -> Iterator[StockMachine]:
    """A new stock machine in a folder of its own, which is gone afterwards."""
    with short_folder() as folder:
        yield StockMachine(image, folder, hardware)


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
