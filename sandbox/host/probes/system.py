"""Reads the computer for the probes: files below a root, and the output of programs.

Tests give another root (a tree of recorded files) and recorded programs.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sandbox.host import process

_PROGRAM_DEADLINE_S = 10.0
_MAX_TEXT = 1 << 20


def _run_for_text(argv: Sequence[str]) -> str:
    done = process.run(argv, check=False, timeout=_PROGRAM_DEADLINE_S)
    return done.stdout.decode(errors="replace")


def _home() -> Path:
    return Path(os.environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir)


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container may run as a user without a name
        return str(os.geteuid())


@dataclass(frozen=True)
class System:
    """This computer, or a recorded one; paths are absolute and looked up below `root`."""

    root: Path = Path("/")
    which: Callable[[str], str | None] = process.which
    output: Callable[[Sequence[str]], str] = _run_for_text
    uid: int = field(default_factory=os.geteuid)
    user: str = field(default_factory=_user)
    home: Path = field(default_factory=_home)

    def at(self, path: str | Path) -> Path:
        """Where an absolute path of the computer is found."""
        return self.root / str(path).lstrip("/")

    def inside(self, path: Path) -> Path:
        """The inverse of `at`."""
        return Path("/") / path.relative_to(self.root)

    def text(self, path: str | Path) -> str | None:
        """The text of a file, or None when it cannot be read."""
        try:
            with self.at(path).open("rb") as source:
                return source.read(_MAX_TEXT).decode(errors="replace")
        except OSError:
            return None

    def names(self, folder: str | Path) -> list[str]:
        """The sorted names in a folder; none when it cannot be listed."""
        try:
            return sorted(entry.name for entry in self.at(folder).iterdir())
        except OSError:
            return []

    def exists(self, path: str | Path) -> bool:
        """Whether a path is there (and may be seen)."""
        try:
            return self.at(path).exists()
        except OSError:
            return False

    def usable(self, path: str | Path) -> bool:
        """Whether this user may read and write a path."""
        return os.access(self.at(path), os.R_OK | os.W_OK)

    def has_systemd(self) -> bool:
        """Whether systemd is PID 1 (sd_booted(3))."""
        return self.exists("/run/systemd/system")

    def is_virtual(self) -> bool:
        """Whether this computer is itself a virtual machine, as its CPU says."""
        flags = self.text("/proc/cpuinfo") or ""
        return " hypervisor" in flags
