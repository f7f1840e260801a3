"""Memory that a machine need not take along when it is put away."""

import ctypes
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

PROC = Path("/proc")
KERNEL = Path("/proc/sys/vm")
# process_madvise(2); the number is the same on all architectures.
PROCESS_MADVISE = 440
MADV_PAGEOUT = 21
# The smallest block of free memory, in pages as a power of two, that the balloon's driver gives
# back (mm/page_reporting.c): usually 2 MiB, so that the host can keep its own memory in one piece.
ORDER = Path("/sys/module/page_reporting/parameters/page_reporting_order")
USUAL, SMALL = "9", "5"
# It looks every two seconds.
REPORT_S = 2.5


def let_go() -> None:
    """Empty the caches, and let go of what the mail client has mapped of files and not changed.

    It is read again when it is used again: from the image, or from the volume. What belongs to root
    stays, as that brings the machine back.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for process in PROC.glob("[0-9]*"):
        try:
            if process.stat().st_uid != 0:
                spans = mapped_files((process / "maps").read_text("ascii", "replace"))
                _page_out(libc, int(process.name), spans)
        except OSError:  # it has ended meanwhile
            continue
    (KERNEL / "drop_caches").write_text("3", "ascii")
    (KERNEL / "compact_memory").write_text("1", "ascii")


def give_back() -> None:
    """Wait until the balloon's driver has given back what is free, small pieces, too."""
    ORDER.write_text(SMALL, "ascii")
    try:
        time.sleep(REPORT_S)
    finally:
        ORDER.write_text(USUAL, "ascii")


def mapped_files(maps: str) -> Iterator[tuple[int, int]]:
    """Where a process has mapped files that it does not write to (proc_pid_maps(5))."""
    for line in maps.splitlines():
        words = line.split(maxsplit=5)
        if len(words) == 6 and words[5].startswith("/") and "w" not in words[1]:
            begin, end = (int(each, 16) for each in words[0].split("-"))
            yield begin, end


class _Span(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _page_out(libc: ctypes.CDLL, pid: int, spans: Iterable[tuple[int, int]]) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        for begin, end in spans:
            span = _Span(begin, end - begin)
            # What cannot be let go stays.
            libc.syscall(
                *(PROCESS_MADVISE, descriptor, ctypes.byref(span)),
                *(ctypes.c_size_t(1), MADV_PAGEOUT, 0),
            )
    finally:
        os.close(descriptor)
