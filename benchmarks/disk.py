"""Reads and writes a disk from inside a machine: piped into `python3 -` there as root.

It imports nothing of the package.  The last line that is put behind it calls `main` with the
serial numbers of two disks; one line of JSON comes back: MB/s by disk and kind, every round.
"""

import json
import mmap
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

LARGE, SMALL = 4 * 1024 * 1024, 4096
AT_ONCE = 4


def device(serial):
    """The disk with this serial number."""
    for note in Path("/sys/block").glob("*/serial"):
        if note.read_text().strip() == serial:
            return "/dev/" + note.parent.name
    raise SystemExit("no disk " + serial)


def run(path, size, kind, operations):
    """MB/s of one kind of work, past the guest's page cache; writes until they are durable."""
    write, block = kind.endswith("write"), SMALL if "random" in kind else LARGE
    places = range(0, size - block + 1, block)
    if "random" in kind:
        places = random.Random(operations).sample(places, operations)
    flags = os.O_DIRECT | (os.O_RDWR if write else os.O_RDONLY)
    disk = os.open(path, flags)
    begun = time.perf_counter()

    def work(mine):
        buffer = mmap.mmap(-1, block)  # aligned, as O_DIRECT wants it
        buffer.write(os.urandom(SMALL) * (block // SMALL))
        for place in mine:
            (os.pwritev if write else os.preadv)(disk, [buffer], place)

    if "random" in kind:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(work, [places[number::AT_ONCE] for number in range(AT_ONCE)]))
    else:
        work(places)
    if write:
        os.fdatasync(disk)
    seconds = time.perf_counter() - begun
    os.close(disk)
    return len(places) * block / 1e6 / seconds


def main(sides, size, operations, rounds):
    """All kinds of work on all disks, by turns."""
    found = {side: {} for side in sides}
    paths = {side: device(side) for side in sides}
    for side in sides:
        run(paths[side], size, "sequential write", 0)  # allocates its blocks; not counted
    for number in range(rounds):
        for kind in ("sequential write", "sequential read", "random write", "random read"):
            for side in sides if number % 2 else reversed(sides):
                rate = run(paths[side], size, kind, operations)
                found[side].setdefault(kind, []).append(round(rate, 3))
    print(json.dumps(found))
