"""Samples, and what can be said about several of them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Sample:
    """One open or start: seconds after its begin at which something was reached.

    `close` alone is a length of its own.  `load` is the computer's load when it began.
    """

    side: str
    kind: str
    round: int
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    load: float = field(default_factory=lambda: round(os.getloadavg()[0], 2))

    def add(self, name: str, seconds: float) -> None:
        """Note a figure."""
        self.seconds[name] = round(seconds, 3)


@dataclass(frozen=True)
class Figure:
    """The middle and the ends of what was measured."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:7.1f}  ({self.least:.1f} to {self.most:.1f})"


def of_kind(samples: Sequence[Sample], side: str, kind: str) -> list[Sample]:
    """The samples of one side and kind."""
    return [sample for sample in samples if (sample.side, sample.kind) == (side, kind)]


def figure(samples: Sequence[Sample], name: str) -> Figure | None:
    """What several samples say of one name, or None."""
    values = [sample.seconds[name] for sample in samples if name in sample.seconds]
    return Figure(statistics.median(values), min(values), max(values)) if values else None


def names(samples: Sequence[Sample]) -> list[str]:
    """All names of these samples, each once, in the order of their coming."""
    return list(dict.fromkeys(name for sample in samples for name in sample.seconds))
