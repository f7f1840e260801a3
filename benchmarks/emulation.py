"""How much slower a machine's processor is than this computer's: one program in both."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable

# Interpreted code, allocation and hashing: branches and memory, as a mail client's start has.
PROGRAM = b"""
import hashlib, json, time
def work():
    table = {}
    for number in range(60000):
        table[str(number)] = [number, number * 3.5, str(number)[::-1]]
    text = json.dumps(table)
    return hashlib.sha1(text.encode()).hexdigest(), sorted(json.loads(text).items())[0]
times = []
for _ in range(3):
    begun = time.perf_counter()
    work()
    times.append(time.perf_counter() - begun)
print(min(times))
"""
_TRIES = 3


def slowness(inside: Callable[[bytes], str]) -> float:
    """The program's time inside, divided by its time here."""
    ratios = []
    for _ in range(_TRIES):
        here = subprocess.run(
            [sys.executable, "-"], input=PROGRAM, capture_output=True, check=True
        ).stdout
        ratios.append(float(inside(PROGRAM)) / float(here))
    return statistics.median(ratios)
