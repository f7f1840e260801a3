"""Thunderbird on this machine, with the very files that the image ships, on a screen of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from demo.guestcode import guest_module
from demo.proof import Proof, locally

Json = dict[str, Any]

IMAGE_ROOT = Path(__file__).parents[1] / "images" / "thunderbird" / "root"
INSTALLED = Path("/usr/lib/thunderbird")
PROGRAMS = ("Xvfb", "openbox", "wmctrl", "import")


def missing() -> str:
    """Why Thunderbird cannot run here, or an empty string."""
    if not (INSTALLED / "thunderbird-bin").exists():
        return "Thunderbird is not installed"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


class NativeThunderbird:
    """A mailbox's Thunderbird without a machine around it; a context manager."""

    def __init__(self, *, local_names: Sequence[str], size: str = "1280x800") -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="native-"))
        self._names = tuple(local_names)
        self._size = size
        self._stack = contextlib.ExitStack()
        self.port = _free_port()
        self.home = self._folder / "home"
        self.display = ""
        self.client: ModuleType
        self.proof = Proof(locally(self.port))

    def __enter__(self) -> NativeThunderbird:
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        with contextlib.ExitStack() as started:
            started.enter_context(self._stack)
            self.home.mkdir(mode=0o700)
            program = stage(self._folder / "thunderbird")
            self.display = self._stack.enter_context(screen(self._size))
            self.client = self._load_client(program)
            self._stack = started.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with self._stack:
            self.client.close(5)

    def open(self, desired: Json) -> list[Json]:
        """Provision and start, or provision again; returns the events up to `ready`."""
        self.client.prepare(desired, self.home)
        (self.client.profile_folder(self.home) / "user.js").write_text(self._preferences())
        self.client.start(desired)
        return list(self.client.events())

    def check(self, request: Json) -> dict[str, str]:
        """What it says of each key that it is to try."""
        events = list(self.client.check(request))
        assert events[-1].get("name") == "ready", events
        return {each["key"]: each["problem"] for each in events if each["event"] == "checked"}

    def close(self, deadline_s: float = 30) -> bool:
        """Close it as the machine's shutdown does."""
        return bool(self.client.close(deadline_s))

    def kill(self) -> None:
        """What a power cut does."""
        thunderbird = self.client.THUNDERBIRD
        pid = thunderbird.running()
        if pid is not None:
            os.killpg(pid, 9)
            while thunderbird.running() is not None:
                time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        """A picture of the whole screen."""
        subprocess.run(["import", "-display", self.display, "-window", "root", path], check=True)

    def profile_file(self, name: str) -> Path:
        """A file of the Thunderbird profile."""
        return Path(self.client.profile_folder(self.home)) / name

    def _load_client(self, program: Path) -> ModuleType:
        settings = {
            "MAILBOX_STATE_DIR": str(self._folder / "state"),
            "MAILBOX_THUNDERBIRD": str(program),
            "MAILBOX_USER": "",
            "MAILBOX_READY_DEADLINE": "180",
            "DISPLAY": self.display,
        }
        client = guest_module("thunderbird", "client", settings)
        scratch, usual = self._folder / "tmp", client.environment
        scratch.mkdir()
        # What it writes for a while stays here, and goes with it; a machine's is in its memory.
        client.environment = lambda *about: usual(*about) | {"TMPDIR": str(scratch)}  # type: ignore[attr-defined]
        return client

    def _preferences(self) -> str:
        """What a machine's /etc/hosts and its own loopback do: names and a free port."""
        values: Json = {
            "network.dns.localDomains": ",".join(self._names),
            "marionette.port": self.port,
        }
        return "".join(
            f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
            for name, value in values.items()
        )


def stage(folder: Path) -> Path:
    """Lay the image's files over a copy of the installed Thunderbird; returns its program.

    Links, except for what finds its folder by its own path, and the folders that we add to.
    """
    folder.mkdir()
    for entry in INSTALLED.iterdir():
        if entry.name not in ("thunderbird", "thunderbird-bin", "defaults", "distribution"):
            (folder / entry.name).symlink_to(entry.resolve())
    program = folder / "thunderbird-bin"
    shutil.copy2(INSTALLED / "thunderbird-bin", program)
    defaults = folder / "defaults"
    defaults.mkdir()
    for entry in (INSTALLED / "defaults").iterdir():
        if entry.name != "syspref":
            (defaults / entry.name).symlink_to(entry.resolve())
    shutil.copytree(IMAGE_ROOT / "etc/thunderbird/pref", defaults / "syspref")
    for entry in (IMAGE_ROOT / "usr/lib/thunderbird").iterdir():
        shutil.copy(entry, folder)
    shutil.copytree(IMAGE_ROOT / "etc/thunderbird/policies", folder / "distribution")
    return program


@contextlib.contextmanager
def screen(size: str) -> Iterator[str]:
    """An X server with a window manager; yields its display."""
    reader, writer = os.pipe()
    quiet: Json = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writer), "-screen", "0", f"{size}x24", "-nolisten", "tcp"],
        pass_fds=[writer],
        **quiet,
    )
    os.close(writer)
    with os.fdopen(reader) as answer:
        number = answer.readline().strip()
    if not number:
        raise RuntimeError("Xvfb did not start")
    display = f":{number}"
    config = IMAGE_ROOT.parents[1] / "base/root/etc/openbox/mailbox.xml"
    arguments = ["--config-file", str(config)] if config.exists() else []
    manager = subprocess.Popen(
        ["openbox", *arguments], env={**os.environ, "DISPLAY": display}, **quiet
    )
    try:
        yield display
    finally:
        for process in (manager, server):
            process.terminate()
            process.wait(10)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
