"""How long `mailbox shred` takes for a small and for a large volume (benchmarks/README.md)."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import computer
from benchmarks.goals import Finding, Measured, Table
from benchmarks.samples import Figure, Sample, figure, of_kind
from demo.session import Session
from sandbox.model.names import human_size

_UNITS = {"M": 1024**2, "G": 1024**3}
# A volume is never smaller; what it holds is less.
_LEAST = "64M"


def parse_size(text: str) -> int:
    """Bytes of a size such as 10M or 10G."""
    return int(text[:-1]) * _UNITS[text[-1]]


def onboard(session: Session, name: str, size: int) -> None:
    """A mailbox whose volume has `size` bytes of allocated blocks."""
    wanted = _LEAST if size < parse_size(_LEAST) else f"{size // _UNITS['M']}M"
    session.mailbox(
        *("onboard", name, "--offline", "--address", "a@kunde.test", "--size", wanted),
        *("--imap", "imap.kunde.test", "--smtp", "smtp.kunde.test", "--password-stdin"),
        *("--no-recovery-code", "--reuse-name", "--generate-key"),
        input=b"password\n",
    )
    volume = session.home / "data/volumes" / f"{name}.luks"
    with volume.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, min(volume.stat().st_size, size + 2 * 1024**2))
        # Or the first entry of the journal would wait for what was allocated here.
        os.fsync(file.fileno())


def measure(session: Session, size: int, number: int) -> Sample:
    """One mailbox made and shredded."""
    name = f"bench-{human_size(size).replace(' ', '')}"
    onboard(session, name, size)
    sample = Sample("mailbox", str(size), number)
    ran = session.mailbox("shred", name, "--yes", "--json")
    sample.add("whole", ran.seconds)
    for step, seconds in json.loads(ran.stdout)["facts"]["seconds"].items():
        sample.add(step, seconds)
    return sample


def table(samples: Sequence[Sample], sizes: Sequence[int]) -> str:
    """Medians and ends of each size, the steps that take longest, and the ratio."""
    rows, found = [], []
    for size in sizes:
        group = of_kind(samples, "mailbox", str(size))
        whole = figure(group, "whole")
        assert whole is not None
        found.append(whole)
        steps = {name: _median(group, name) for name in group[0].seconds if name != "whole"}
        longest = sorted(steps, key=lambda name: -steps[name])[:3]
        told = ", ".join(f"{name} {steps[name]:.2f}" for name in longest)
        rows.append(
            f"  {human_size(size):>8} {whole.median:7.2f} s  "
            f"({whole.least:.2f} to {whole.most:.2f}); {told}"
        )
    ratio = found[-1].median / found[0].median
    rows.append(f"  {human_size(sizes[-1])} / {human_size(sizes[0])}: {ratio:.3f}")
    return "\n".join(["mailbox shred (median, ends; longest steps in s)", *rows])


def finding(samples: Sequence[Sample], sizes: Sequence[int]) -> Finding:
    """The ratio of the largest to the smallest, and a table."""
    found = {size: figure(of_kind(samples, "mailbox", str(size)), "whole") for size in sizes}
    rows = tuple(
        (human_size(size), f"{each.median:.2f}", f"{each.least:.2f} to {each.most:.2f}")
        for size, each in found.items()
        if each
    )
    small, large = found[sizes[0]], found[sizes[-1]]
    assert small is not None and large is not None
    why = f"{large.median:.2f} s instead of {small.median:.2f} s."
    figures = [Measured("shred", large.median / small.median, why=why)]
    table = Table("Shredding", ("Volume holds", "Seconds", "Ends"), rows)
    seen = [vars(sample) for sample in samples]
    return Finding("shred", computer.facts(), figures, (table,), seen)


def _median(group: Sequence[Sample], name: str) -> float:
    found: Figure | None = figure(group, name)
    return found.median if found else 0.0


def main() -> int:
    """The entry point."""
    parser = argparse.ArgumentParser(prog="benchmarks.shred", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", default="10M,10G", help="the smallest first")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--json", type=Path)
    said = parser.parse_args()
    sizes = [parse_size(text) for text in said.sizes.split(",")]
    samples = []
    with (
        tempfile.TemporaryDirectory(prefix="mailbox-bench-", dir=said.folder) as root,
        Session(Path(root)) as session,
    ):
        measure(session, sizes[0], 0)  # starts libvirtd and fills caches; not counted
        for number in range(1, said.rounds + 1):
            for size in sizes if number % 2 else reversed(sizes):
                samples.append(measure(session, size, number))
                print(f"round {number}, {human_size(size)}: {samples[-1].seconds['whole']:.2f} s")
    print(table(samples, sizes))
    if said.json:
        finding(samples, sizes).write(said.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
