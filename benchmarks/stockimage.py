"""The disk of the machine that the mailbox is compared with: made once, without root, and kept."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent / "stock"
CLIENT = Path(__file__).parents[1] / "images" / "thunderbird"
SUITE = "trixie"
# The same settings of Thunderbird as in a mailbox, and the program that sets the account up.
SHARED = (
    "etc/thunderbird/pref/mailbox.js",
    "etc/thunderbird/policies/policies.json",
    "usr/lib/thunderbird/mailbox.cfg",
)
FILES = ("vmlinuz", "initrd.img", "root.ext4", "packages")

Say = Callable[[str], None]


class StockError(Exception):
    """The stock machine could not be made or did not do what was asked of it."""


@dataclass(frozen=True)
class StockImage:
    """A Debian desktop that nobody has used yet."""

    folder: Path

    @property
    def kernel(self) -> Path:
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd.img"

    @property
    def disk(self) -> Path:
        return self.folder / "root.ext4"

    def version(self, package: str) -> str:
        """The version of an installed package."""
        lines = (self.folder / "packages").read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines).get(package, "")


def packages() -> list[str]:
    """A desktop, and exactly what a mailbox's image has of the mail client."""
    lines = (HERE / "packages.txt").read_text().splitlines()
    desktop = [line for line in lines if line and not line.startswith("#")]
    client = tomllib.loads((CLIENT / "recipe.toml").read_text())["packages"]
    return [*desktop, *client]


def build(cache: Path, say: Say) -> StockImage:
    """The image that this recipe makes, made now or earlier."""
    overlay = _overlay()
    digest = _digest(overlay)
    target = cache / f"stock-{digest}"
    if not target.exists():
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        say(f"building the stock machine (once, into {target})")
        _build(overlay, target)
    return StockImage(target)


def _digest(overlay: bytes) -> str:
    parts = (overlay, (HERE / "hook").read_bytes(), "\n".join(packages()).encode(), SUITE.encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _overlay() -> bytes:
    """A tar archive of the files laid over the installed system, owned by root."""
    own = {path.relative_to(HERE / "root"): path for path in (HERE / "root").rglob("*")}
    shared = {Path(name): CLIENT / "root" / name for name in SHARED}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, path in sorted((own | shared).items()):
            if path.is_file():
                entry = tarfile.TarInfo(str(name))
                entry.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                entry.size = path.stat().st_size
                archive.addfile(entry, io.BytesIO(path.read_bytes()))
    return buffer.getvalue()


def _build(overlay: bytes, target: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix=".stock-", dir=target.parent))
    try:
        with _scratch() as scratch:
            _mmdebstrap(overlay, draft, scratch)
            for name in FILES:
                subprocess.run(
                    ["cp", "--sparse=always", str(scratch / name), str(draft / name)], check=True
                )
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    """Where the tree is made; our subordinate user numbers put the finished files beside it."""
    parent = os.environ.get("TMPDIR") or "/var/tmp"
    scratch = Path(tempfile.mkdtemp(prefix="mailbox-stock-", dir=parent))
    try:
        scratch.chmod(0o1777)
        yield scratch
    finally:
        trees = [str(path) for path in scratch.glob("mmdebstrap.*")]
        if trees:
            # Its files belong to our subordinate user numbers: only their root may remove them.
            subprocess.run(["mmdebstrap", "--unshare-helper", "rm", "-rf", *trees], check=False)
        shutil.rmtree(scratch, ignore_errors=True)


def _mmdebstrap(overlay: bytes, draft: Path, scratch: Path) -> None:
    archive = draft / "overlay.tar"
    archive.write_bytes(overlay)
    command = [
        *("mmdebstrap", "--quiet", "--mode=unshare", "--variant=important", "--format=null"),
        *("--skip=cleanup", '--aptopt=APT::Install-Recommends "false"'),
        f"--include={','.join(packages())}",
        f"--customize-hook=tar-in {shlex.quote(str(archive))} /",
        f'--customize-hook={shlex.quote(str(HERE / "hook"))} "$1"',
        SUITE,
    ]
    env = {**os.environ, "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}
    env["PATH"] = f"{env.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode != 0:
        raise StockError(f"mmdebstrap failed: {done.stderr.decode(errors='replace')[-2000:]}")
    archive.unlink()
