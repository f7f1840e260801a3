"""How much room a mailbox takes, on the disk and in memory, and how long onboarding takes.

python -m benchmarks.size [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import computer, goals, processes, question, scene
from benchmarks.goals import Finding, Measured, Table
from benchmarks.mailbox import Mailbox, MailboxError
from benchmarks.samples import Sample, figure
from benchmarks.scene import Scene, say

MB = 1e6
# Until the guest has given back what it freed (it tells every two seconds).
_SETTLE_S = 15.0
_NEW_PROFILE = "bench-new"


@dataclass
class Sizes:
    """Bytes, by what they are of."""

    image: dict[str, int] = field(default_factory=dict)
    profile: int = 0
    opened_volume: int = 0
    suspended: int = 0
    memory: dict[str, dict[str, int]] = field(default_factory=dict)


def allocated(paths: Iterable[Path]) -> int:
    """Bytes that the files take on the disk, each counted once however many names it has."""
    seen: dict[tuple[int, int], int] = {}
    for path in paths:
        if path.is_file() and not path.is_symlink():
            facts = path.stat()
            seen[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(seen.values())


def onboard(made: Scene, rounds: int, sizes: Sizes) -> list[Sample]:
    """Make the same mailbox anew, several times; what the first one takes on the disk."""
    home = made.session.home  # images are a link there, and are not followed
    paper = made.session.root / "paper"
    samples = []
    for number in range(1, rounds + 1):
        new = Mailbox(made, _NEW_PROFILE)
        before = allocated(home.rglob("*"))
        ran = new.renew(paper)
        sizes.profile = max(sizes.profile, allocated(home.rglob("*")) - before)
        sample = Sample("mailbox", "onboard", number)
        sample.add("onboard", ran.seconds)
        for step, seconds in json.loads(ran.stdout)["facts"]["seconds"].items():
            sample.add(f"step {step}", seconds)
        samples.append(sample)
        say(f"onboard {number}: {ran.seconds:.2f} s")
        new.remove()
        paper.unlink()
    return samples


def look(made: Scene, sizes: Sizes) -> None:
    """Open, look, suspend, look, open again, look."""
    sizes.image = {
        path.name: path.stat().st_blocks * 512 for path in made.image.iterdir() if path.is_file()
    }
    mailbox = Mailbox(made)
    mailbox.renew()
    facts = mailbox.open()
    _settled(mailbox, made.post.newest)
    sizes.memory["begun warm" if facts["warm"] else "booted"] = processes.memory(made.session)
    volume = made.session.home / "data" / "volumes" / f"{mailbox.name}.luks"
    sizes.opened_volume = volume.stat().st_blocks * 512
    sizes.suspended = json.loads(mailbox.suspend().stdout)["facts"]["bytes"]
    if not mailbox.open()["resumed"]:
        raise MailboxError("the suspended machine did not go on")
    _settled(mailbox, made.post.newest)
    sizes.memory["resumed"] = processes.memory(made.session)
    mailbox.shut()


def _settled(mailbox: Mailbox, deliver: Callable[[], str]) -> None:
    """As somebody has it who has read the new mail."""
    mailbox.run(question.program(["window", "inbox"], deliver()))
    time.sleep(_SETTLE_S)


def finding(sizes: Sizes, samples: list[Sample]) -> Finding:
    """Figures and tables."""
    whole = figure(samples, "onboard")
    assert whole is not None
    steps = {name: found for name in samples[0].seconds if (found := figure(samples, name))}
    steps.pop("onboard")
    longest = sorted(steps, key=lambda name: -steps[name].median)[:3]
    told = ", ".join(f"{name} {steps[name].median:.1f} s" for name in longest)
    state, most = max(sizes.memory.items(), key=lambda each: sum(each[1].values()))
    image = ", ".join(f"{name} {size / MB:.0f} MB" for name, size in _largest(sizes.image))
    figures = [
        Measured("image-size", sum(sizes.image.values()) / MB, why=f"{image}."),
        Measured("profile-size", sizes.profile / MB),
        Measured("suspended-size", sizes.suspended / MB),
        Measured("memory", sum(most.values()) / MB, why=f"The machine was {state}."),
        Measured("onboard", whole.median, whole.least, whole.most, f"The longest steps: {told}."),
    ]
    kinds = [kind for kind in processes.KINDS if any(kind in one for one in sizes.memory.values())]
    rows = [
        (
            state,
            *(f"{one.get(kind, 0) / MB:.0f}" for kind in kinds),
            f"{sum(one.values()) / MB:.0f}",
        )
        for state, one in sizes.memory.items()
    ]
    note = (
        "MB of each kind of process, pages that several share divided among them (Pss). The image "
        "is in the host's page cache, once for all machines, and not in these figures. After its "
        f"first open the volume takes {sizes.opened_volume / MB:.0f} MB."
    )
    table = Table("Memory of an open mailbox", ("Machine", *kinds, "All"), tuple(rows), note)
    seen = [asdict(sizes), *(asdict(sample) for sample in samples)]
    return Finding("size", computer.facts(), figures, (table,), seen)


def _largest(sizes: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(sizes.items(), key=lambda each: -each[1])[:2]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.size", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of onboarding (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found to FILE")
    said = parser.parse_args()

    def measure() -> None:
        sizes = Sizes()
        with scene.prepared() as made:
            samples = onboard(made, said.rounds, sizes)
            look(made, sizes)
        found = finding(sizes, samples)
        print("Goals\n" + goals.report(found.figures))
        print(json.dumps(found.samples[0], indent=2))
        if said.json is not None:
            found.write(said.json)

    os.umask(0o077)
    return scene.run(measure, MailboxError)


if __name__ == "__main__":
    raise SystemExit(main())
