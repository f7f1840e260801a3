"""The figures that have a goal, and whether what was measured meets it.

A benchmark is a module with a `main` that takes `--json FILE` and writes a `Finding` there; the
table of docs/performance.md is made of those files (write.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A figure that should be at most `limit`, or at least."""

    key: str
    title: str
    limit: float
    unit: str = ""
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether the figure is as it should be."""
        return value >= self.limit if self.at_least else value <= self.limit

    def told(self) -> str:
        """The goal in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g} {self.unit}".rstrip()


_THAN_PLAIN = "LUKS volume / the same without encryption"
GOALS = (
    Goal("open-suspended", "open of a suspended mailbox to the inbox / stock", 0.05),
    Goal("open-warm", "open from the image's warm state / stock", 0.35),
    Goal("open-booted", "open with a boot / stock", 0.6),
    Goal("close-suspend", "close by suspending / stock", 0.08),
    Goal("volume-read", f"{_THAN_PLAIN}: sequential read", 0.8, at_least=True),
    Goal("volume-write", f"{_THAN_PLAIN}: sequential write", 0.8, at_least=True),
    Goal("volume-random-read", f"{_THAN_PLAIN}: random read", 0.8, at_least=True),
    Goal("volume-random-write", f"{_THAN_PLAIN}: random write", 0.8, at_least=True),
    Goal("channel-down", "one forward, from a server into the machine", 100, "MB/s", at_least=True),
    Goal("channel-up", "one forward, from the machine to a server", 100, "MB/s", at_least=True),
    Goal("list", "`mailbox list` with 200 profiles", 0.3, "s"),
    Goal("help", "`mailbox --help`", 0.15, "s"),
    Goal("image-size", "image with its warm state", 900, "MB"),
    Goal("profile-size", "new profile", 10, "MB"),
    Goal("suspended-size", "suspended state of the demonstration's mailbox", 400, "MB"),
    Goal("memory", "memory of an open mailbox beyond the shared image", 700, "MB"),
    Goal("shred", "`mailbox shred` of a volume that holds 10 GiB / of one that holds 10 MiB", 1.2),
    Goal("onboard", "onboard without making a key, checks of servers included", 3, "s"),
)
BY_KEY = {goal.key: goal for goal in GOALS}


@dataclass(frozen=True)
class Measured:
    """A figure with a goal: its median, its ends, and what it is made of."""

    key: str
    value: float
    least: float | None = None
    most: float | None = None
    why: str = ""

    @property
    def met(self) -> bool:
        """Whether its goal is met."""
        return BY_KEY[self.key].met(self.value)

    def told(self) -> str:
        """The figure in words."""
        return f"{number(self.value)} {BY_KEY[self.key].unit}".rstrip()


@dataclass(frozen=True)
class Table:
    """Figures beside each other, for people."""

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """What one benchmark found, on which computer; `samples` is everything it saw."""

    benchmark: str
    computer: Mapping[str, str]
    figures: Sequence[Measured]
    tables: Sequence[Table] = ()
    samples: Sequence[Any] = field(default=(), repr=False)

    def write(self, file: Path) -> None:
        """As a JSON document."""
        file.write_text(json.dumps(asdict(self), indent=2) + "\n")


def read(document: Mapping[str, Any]) -> Finding:
    """What `Finding.write` wrote."""
    tables = [
        Table(
            each["title"],
            tuple(each["heading"]),
            tuple(tuple(row) for row in each["rows"]),
            each["note"],
        )
        for each in document["tables"]
    ]
    figures = [Measured(**each) for each in document["figures"]]
    return Finding(
        document["benchmark"], document["computer"], figures, tables, document["samples"]
    )


def number(value: float) -> str:
    """A figure as people read it: three digits that count."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def report(figures: Iterable[Measured]) -> str:
    """Figures beside their goals, for a terminal."""
    rows = []
    for each in figures:
        goal = BY_KEY[each.key]
        verdict = "met" if each.met else "MISSED"
        rows.append(f"  {goal.title:<62} {each.told():>10}  {verdict} ({goal.told()})")
        if each.why and not each.met:
            rows.append(f"      {each.why}")
    return "\n".join(rows)
