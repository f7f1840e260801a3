"""A desktop session of its own: D-Bus, keyring, folders; the user's own stay untouched."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from demo import traces
from demo.leftovers import die_with_parent

_KEPT = ("PATH", "LANG", "LC_ALL", "TERM", "USER", "LOGNAME", "DISPLAY", "WAYLAND_DISPLAY")
_KEPT_PREFIXES = ("http", "HTTP", "no_proxy", "NO_PROXY", "PIP_", "SSL_")


class SessionError(Exception):
    """The session could not be made."""


@dataclass(frozen=True)
class Ran:
    """A finished `mailbox` command."""

    command: tuple[str, ...]
    returncode: int
    stdout: bytes
    stderr: str
    seconds: float

    @property
    def text(self) -> str:
        """Its standard output as text."""
        return self.stdout.decode(errors="replace")


class Session:
    """Folders below `root` and the daemons that use them; use as a context manager."""

    def __init__(
        self, root: Path, *, images: Path | None = None, runtime: Path | None = None
    ) -> None:
        self.root = root
        if images is not None:
            _share(images, self.home / "data" / "images")
        # UNIX sockets need a short path (unix(7): 108 bytes), whatever the root's is; libvirt
        # makes its own below the configuration folder.
        self.runtime = runtime or Path(tempfile.mkdtemp(prefix="mbx-"))
        self.env = self._environment()
        self._daemons: list[subprocess.Popen[bytes]] = []

    @property
    def home(self) -> Path:
        """The MAILBOX_HOME."""
        return self.root / "mailbox"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Every folder that something of a mailbox could be left in."""
        return (self.root, self.runtime)

    @property
    def desktop_folders(self) -> tuple[Path, ...]:
        """Where libvirt, the viewer and the like keep what they keep for a user."""
        return (self.root / "xdg", self.runtime / "config", self.runtime / "libvirt")

    def _environment(self) -> dict[str, str]:
        env = {key: os.environ[key] for key in _KEPT if key in os.environ}
        env |= {k: v for k, v in os.environ.items() if k.startswith(_KEPT_PREFIXES)}
        places = {
            "HOME": self.root / "home",
            "MAILBOX_HOME": self.home,
            "GNUPGHOME": self.runtime / "gnupg",
            "XDG_CONFIG_HOME": self.runtime / "config",
            "XDG_DATA_HOME": self.root / "xdg/data",
            "XDG_CACHE_HOME": self.root / "xdg/cache",
            "XDG_STATE_HOME": self.root / "xdg/state",
            "XDG_RUNTIME_DIR": self.runtime,
        }
        for place in places.values():
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
        tools = str(Path(sys.executable).parent)
        env["PATH"] = f"{tools}:{env.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
        return env | {name: str(place) for name, place in places.items()}

    def __enter__(self) -> Session:
        try:
            self._start_bus()
            self.unlock_keyring()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_bus(self) -> None:
        bus = subprocess.Popen(
            ["dbus-daemon", "--session", "--nofork", "--print-address=1", "--nopidfile"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=self.env,
            preexec_fn=die_with_parent,
        )
        self._daemons.append(bus)
        assert bus.stdout is not None
        address = bus.stdout.readline().decode().strip()
        if not address:
            raise SessionError("dbus-daemon did not start")
        self.env["DBUS_SESSION_BUS_ADDRESS"] = address

    def unlock_keyring(self) -> None:
        """Start the keyring, unlocked by a password that is made once for this root."""
        note = self.root / "keyring-password"
        if not note.exists():
            note.touch(0o600)
            note.write_text(secrets.token_hex(16))
        keyring = subprocess.Popen(
            ["gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.env,
            preexec_fn=die_with_parent,
        )
        self._daemons.append(keyring)
        assert keyring.stdin is not None
        keyring.stdin.write(note.read_bytes())
        keyring.stdin.close()
        self._await_name("org.freedesktop.secrets")

    def _await_name(self, name: str) -> None:
        query = ["dbus-send", "--session", "--print-reply", "--dest=org.freedesktop.DBus", "/"]
        query += ["org.freedesktop.DBus.NameHasOwner", f"string:{name}"]
        for _ in range(100):
            answer = subprocess.run(query, env=self.env, capture_output=True, check=False)
            if b"boolean true" in answer.stdout:
                return
            time.sleep(0.1)
        raise SessionError(f"{name} did not appear on the bus")

    def stop(self) -> None:
        """End what this session started: the daemons, and libvirt's that came with it."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(10)
        self._daemons.clear()
        subprocess.run(["gpgconf", "--kill", "all"], env=self.env, check=False)
        for note in self.runtime.glob("libvirt/**/*.pid"):
            _end(note)
        shutil.rmtree(self.runtime, ignore_errors=True)

    def mailbox(
        self,
        *arguments: str,
        input: bytes = b"",
        check: bool = True,
        stderr: IO[Any] | int = subprocess.PIPE,
    ) -> Ran:
        """Run the `mailbox` command as a user would."""
        command = ("mailbox", *arguments)
        begun = time.monotonic()
        done = subprocess.run(
            [str(Path(sys.executable).parent / "mailbox"), *arguments],
            input=input,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=self.env,
            check=False,
        )
        errors = (done.stderr or b"").decode(errors="replace")
        ran = Ran(command, done.returncode, done.stdout, errors, time.monotonic() - begun)
        if check and done.returncode != 0:
            raise SessionError(
                f"{' '.join(command)} failed ({done.returncode}): {(errors or ran.text)[-1500:]}"
            )
        return ran

    def run(self, command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        """Run any program in this session."""
        return subprocess.run(command, env=self.env, check=True, capture_output=True, **options)


def _share(images: Path, link: Path) -> None:
    """Let several sessions use one folder of images: building one takes minutes."""
    images.mkdir(mode=0o700, parents=True, exist_ok=True)
    link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(images)


def find_bytes(folders: Sequence[Path], needles: Sequence[bytes]) -> list[tuple[Path, bytes]]:
    """Every file below the folders whose name or content has one of the needles."""
    found = []
    files = (path for folder in folders for path in folder.rglob("*"))
    for path in files:
        name = os.fsencode(path.name)
        found += [(path, needle) for needle in needles if needle in name]
        found += [(path, needle) for needle in traces.held(path, needles, traces.plain)]
    return found


def _end(note: Path) -> None:
    """End the daemon that wrote this note, and wait: the next session may use the same folder."""
    try:
        daemon = int(note.read_text())
        os.kill(daemon, signal.SIGTERM)
        for _ in range(100):
            os.kill(daemon, 0)
            time.sleep(0.1)
    except (OSError, ValueError):
        return
