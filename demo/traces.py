"""Where on this whole computer something is found: every file, process and daemon's memory.

A file that was not changed since the mailbox was made holds nothing of it (the kernel sets the time
of change itself, inode(7)), so what is searched is every file that was changed since.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import subprocess
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from pathlib import Path

CHUNK = 4 * 1024 * 1024
# Not files: the kernel's own, and what is searched by itself below.
NO_FILES = ("proc", "sysfs")


@cache
def shapes(needle: bytes) -> list[bytes]:
    """A text as it is, as UTF-16, and within base64 wherever it begins."""
    encoded = []
    for shift in range(3):
        within = base64.b64encode(b"\0" * shift + needle)
        # What also depends on the neighbours is left away at both ends.
        encoded.append(within[4 if shift else 0 : len(within) - 4])
    return [needle, needle.decode().encode("utf-16-le"), *encoded]


def in_files(
    needles: Collection[bytes],
    *,
    since: float,
    passing: Sequence[Path] = (),
    own: bool = False,
) -> list[tuple[Path, bytes]]:
    """Every file on this computer, changed after `since` (s, Unix time), with a needle in it.

    What is below `passing` is passed over; `own` searches this user's files only.
    """
    found: list[tuple[Path, bytes]] = []
    for path in changed(since, passing=passing, own=own):
        name = os.fsencode(path)
        found += [(path, each) for each in needles if each in name]
        found += [(path, each) for each in held(path, needles)]
    return found


def changed(
    since: float, *, top: Path = Path("/"), passing: Sequence[Path] = (), own: bool = False
) -> list[Path]:
    """Everything below `top`, of whatever type, that was changed after `since` (s, Unix time)."""
    pruned: list[str] = []
    for each in (*_of_the_kernel(), *map(str, passing)):
        pruned += ["-path", each, "-prune", "-o"]
    mine = ["-user", str(os.getuid())] if own else []
    command = ["find", str(top), *pruned, "-newerct", f"@{since - 1:.3f}", *mine, "-print0"]
    # It exits with 1 where folders may not be read: these are not of this user's making.
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return [Path(os.fsdecode(each)) for each in done.stdout.split(b"\0") if each]


def plain(needle: bytes) -> list[bytes]:
    """A text as it is, and nothing else."""
    return [needle]


def held(
    path: Path, needles: Collection[bytes], forms: Callable[[bytes], list[bytes]] = shapes
) -> set[bytes]:
    """The needles that a regular file has in any of their forms; what cannot be read has none."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            return _within(_data(path), {each: forms(each) for each in needles})
    return set()


def _of_the_kernel() -> list[str]:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [words[1] for words in mounts if words[2] in NO_FILES]


def _within(pieces: Iterator[bytes], looked: dict[bytes, list[bytes]]) -> set[bytes]:
    found: set[bytes] = set()
    longest = max(len(shape) for each in looked.values() for shape in each)
    end = b""
    for piece in pieces:
        text = end + piece
        found |= {n for n, each in looked.items() if any(shape in text for shape in each)}
        end = piece[-longest:]
    return found


def _data(path: Path) -> Iterator[bytes]:
    """What is in a file, without its holes: a volume is mostly one."""
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        size, at = file.seek(0, os.SEEK_END), 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            piece = os.pread(file.fileno(), CHUNK, at)
            if not piece:
                return
            at += len(piece)
            yield piece


def processes() -> Iterator[tuple[Path, bytes]]:
    """Each process of this computer, with its arguments."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield process, (process / "cmdline").read_bytes()


def told(needles: Collection[bytes]) -> list[tuple[bytes, str, bytes]]:
    """Every process that was told a needle in its arguments or its environment."""
    found = []
    for process, arguments in processes():
        for part in ("cmdline", "environ"):
            with contextlib.suppress(OSError):
                text = (process / part).read_bytes()
                found += [(arguments, part, each) for each in needles if each in text]
    return found


def in_memory(
    needles: Collection[bytes], *, passing: Callable[[bytes], bool]
) -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
    """Every process of this user that holds a needle in memory, and all that were searched.

    `passing` tells by a process's arguments that it is passed over; so is this one.
    """
    looked = {each: plain(each) for each in needles}
    found: list[tuple[bytes, bytes]] = []
    searched: list[bytes] = []
    for process, arguments in processes():
        if int(process.name) == os.getpid() or passing(arguments):
            continue
        with contextlib.suppress(OSError):
            if process.stat().st_uid != os.getuid():
                continue
            found += [(arguments, each) for each in _within(_memory(process), looked)]
            searched.append(arguments)
    return found, searched


def _memory(process: Path) -> Iterator[bytes]:
    """What a process can write to; raises OSError where it may not be looked at (ptrace(2))."""
    with (process / "mem").open("rb", buffering=0) as memory:
        for line in (process / "maps").read_text().splitlines():
            span, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            begin, end = (int(each, 16) for each in span.split("-"))
            for at in range(begin, end, CHUNK):
                with contextlib.suppress(OSError):  # not there, or a device's
                    yield os.pread(memory.fileno(), min(CHUNK, end - at), at)
