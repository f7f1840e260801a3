"""What a demonstration that was killed left behind: seen by the next one, ended and removed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)
_GRACE_S = 5.0


def die_with_parent() -> None:
    """For `preexec_fn`: the program ends when the one that started it does, however that ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def note(root: Path, folder: Path) -> None:
    """Write down a folder outside of `root` that this run uses."""
    with (root / "folders").open("a") as file:
        file.write(f"{folder}\n")


def sweep(root: Path) -> None:
    """End every process that works in a folder that was noted, and remove these folders."""
    noted = root / "folders"
    folders = [Path(line) for line in noted.read_text().splitlines()] if noted.exists() else []
    for sign in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + _GRACE_S
        for pid in _working_in(folders):
            with contextlib.suppress(OSError):
                os.kill(pid, sign)
        while _working_in(folders) and time.monotonic() < end:
            time.sleep(0.1)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    noted.unlink(missing_ok=True)


def _working_in(folders: list[Path]) -> list[int]:
    """The processes that name a folder in their arguments or environment; names are random."""
    needles = [os.fsencode(folder) for folder in folders]
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            if any(needle in words for needle in needles) and int(process.name) != os.getpid():
                found.append(int(process.name))
    return found
