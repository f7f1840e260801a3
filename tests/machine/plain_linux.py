"""Another computer: a plain Debian with cryptsetup, started for a moment; nothing of ours in it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

# What a person's rescue stick has; the rest is the way to a prompt.
_PACKAGES = (
    *("linux-image-amd64", "base-files", "dash", "coreutils", "mount", "util-linux", "kmod"),
    "cryptsetup-bin",
    "grep",
)
_MODULES = (
    *("arch/x86/crypto", "crypto", "lib", "block", "drivers/block/loop.ko.xz"),
    *("drivers/md/dm-mod.ko.xz", "drivers/md/dm-crypt.ko.xz"),
    *("drivers/virtio", "fs/ext4", "fs/jbd2", "fs/mbcache.ko.xz", "fs/9p", "fs/netfs", "net/9p"),
)
_KIT = ("vmlinuz", "initrd.img")
_PROMPT = "plain-linux# "
_SLOWNESS_S = 3.0
_INIT = f"""#!/bin/sh
export PATH=/usr/sbin:/usr/bin HOME=/root PS1='{_PROMPT}'
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
for module in virtio_pci 9pnet_virtio 9p loop dm_mod; do modprobe $module; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro stick /media
cd /media
exec setsid -c sh -i </dev/ttyS0 >/dev/ttyS0 2>&1
"""
# Run by mmdebstrap with the tree as $1: the kernel out, few modules in, the rest a RAM disk.
_PACK = """set -eu
root=$1
version=$(ls "$root/usr/lib/modules")
cp "$root/boot/vmlinuz-$version" "$root/vmlinuz"
cd "$root/usr/lib/modules/$version"
mkdir kept
for part in {modules}; do
    mkdir -p "kept/$(dirname "$part")"
    [ ! -e "kernel/$part" ] || mv "kernel/$part" "kept/$part"
done
rm -rf kernel
mv kept kernel
find kernel -name '*.xz' -exec unxz {{}} +
chroot "$root" depmod "$version"
rm -rf "$root"/boot/* "$root"/usr/share/* "$root"/var/*
cp "$2" "$root/init"
chmod 755 "$root/init"
mkdir -p "$root/media" "$root/mnt" "$root/root" "$root/run" "$root/tmp"
cd "$root"
find . -xdev ! -path './proc/*' ! -path './sys/*' ! -path './dev/*' \\
    ! -name vmlinuz ! -name initrd.img |
    cpio --quiet --owner=0:0 -H newc -o >initrd.img
"""


def build(cache: Path) -> Path:
    """A folder with kernel and RAM disk, made once for each list of packages."""
    pack = _PACK.format(modules=" ".join(_MODULES))
    sum_ = hashlib.sha256("\0".join((*_PACKAGES, _INIT, pack)).encode()).hexdigest()[:16]
    made = cache / f"plain-linux-{sum_}"
    if made.exists():
        return made
    cache.mkdir(parents=True, exist_ok=True)
    # Other user numbers must get in, so not in a private folder (user_namespaces(7)).
    with tempfile.TemporaryDirectory(prefix="plain-linux-", dir="/var/tmp") as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        for file, text in (("init", _INIT), ("pack", pack)):
            (scratch / file).write_text(text)
        making = Path(tempfile.mkdtemp(dir=cache))
        subprocess.run(
            [
                *("mmdebstrap", "--mode=unshare", "--variant=extract", "--format=null"),
                *('--aptopt=APT::Install-Recommends "false"', "--skip=cleanup"),
                f"--include={','.join(_PACKAGES)}",
                f'--extract-hook=sh {scratch}/pack "$1" {scratch}/init',
                *(f"--extract-hook=download /{file} {making}/{file}" for file in _KIT),
                "trixie",
            ],
            env=os.environ | {"TMPDIR": name},
            check=True,
        )
    making.rename(made)
    return made


class PlainLinux:
    """A prompt at such a computer, into which a folder was plugged; use as a context manager."""

    def __init__(self, kit: Path, stick: Path, *, deadline_s: float = 300) -> None:
        self._deadline_s = deadline_s
        self._heard = ""
        self._new = threading.Condition()
        self._process = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-M", "q35", "-cpu", "max", "-accel", "tcg", "-m", "1G"),
                *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
                *("-kernel", str(kit / "vmlinuz"), "-initrd", str(kit / "initrd.img")),
                *("-append", "console=ttyS0 quiet panic=-1", "-virtfs"),
                f"local,path={stick},mount_tag=stick,security_model=none,readonly=on",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> PlainLinux:
        self.until(_PROMPT)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while heard := os.read(self._process.stdout.fileno(), 65536):
            with self._new:
                self._heard += heard.decode(errors="replace").replace("\r", "")
                self._new.notify()

    def until(self, *words: str) -> tuple[str, str]:
        """What the screen shows up to one of these words, which it waits for; and which it was."""
        end = time.monotonic() + self._deadline_s
        with self._new:
            while not any(word in self._heard for word in words):
                assert self._new.wait(end - time.monotonic()), f"no {words}: {self._heard}"
            found = min((word for word in words if word in self._heard), key=self._heard.index)
            shown, _, self._heard = self._heard.partition(found)
        return shown, found

    def type(self, line: str) -> None:
        """A line at the keyboard."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def run(self, command: str, question: str = "", answer: str = "") -> str:
        """What a command shows; it has to succeed.  It may ask one question, for a secret."""
        self.type(command)
        shown, found = self.until(_PROMPT, *filter(None, [question]))
        while found == question != "":
            # As slow as a person: what is typed before the terminal hides it is thrown away
            # (getpass(3)). Where it was, the question comes again.
            time.sleep(_SLOWNESS_S)
            self.type(answer)
            shown, found = self.until(_PROMPT, question)
        self.type("echo $?")
        status = self.until(_PROMPT)[0].split()[-1]
        assert status == "0", f"{command}: {status}: {shown}"
        return shown


def commands(page: Path, heading: str) -> Sequence[str]:
    """The commands of the first block of shell below a heading, without their comments."""
    below = page.read_text().partition(f"\n## {heading}\n")[2]
    found = re.search(r"```sh\n(.*?)```", below, re.DOTALL)
    assert found, f"no commands below {heading!r}"
    lines = [line.partition("  #")[0].strip() for line in found[1].splitlines()]
    return [line for line in lines if line]


def stick(folder: Path, *files: Path) -> Path:
    """A folder with these files in it: other names of the same bytes, nothing is copied."""
    folder.mkdir()
    for file in files:
        try:
            os.link(file, folder / file.name)
        except OSError:
            shutil.copy(file, folder)
    return folder
