"""What was measured, as a table for people and as a document for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.samples import Sample, figure, names, of_kind

GROUPS = (
    ("mailbox", "first open", "mailbox, first open (empty volume)"),
    ("mailbox", "later open", "mailbox, later open"),
    ("mailbox", "suspended", "mailbox, open of a suspended one (close: suspend)"),
    ("stock", "start", "stock machine, cold start"),
)
END = "inbox synchronised"
_WIDTH = 26


def ratios(samples: Sequence[Sample]) -> dict[str, float]:
    """Medians of the mailbox divided by those of the stock machine."""
    stock = of_kind(samples, "stock", "start")
    found = {}
    for kind in ("first open", "later open", "suspended"):
        ours = of_kind(samples, "mailbox", kind)
        for name in (END, "close"):
            above, below = figure(ours, name), figure(stock, name)
            if above and below:
                found[f"{kind}: {name}"] = round(above.median / below.median, 3)
    return found


def table(samples: Sequence[Sample]) -> str:
    """Medians and spread of everything, one group a side and kind, then the ratios."""
    parts = []
    for side, kind, title in GROUPS:
        group = of_kind(samples, side, kind)
        if group:
            parts.append("\n".join([f"{title}: {len(group)} rounds", *_rows(group)]))
    found = ratios(samples)
    if found:
        lines = [f"  {name:<{_WIDTH + 10}} {value:6.2f}" for name, value in found.items()]
        parts.append("\n".join(["mailbox / stock (medians)", *lines]))
    return "\n\n".join(parts)


def _rows(group: Sequence[Sample]) -> list[str]:
    figures = {name: found for name in names(group) if (found := figure(group, name))}
    reached = sorted(set(figures) - {"close"}, key=lambda name: figures[name].median)
    heading = f"  {'reached after':<{_WIDTH}} {'s':>7}  {'from':>7} {'to':>7}  {'step':>7}"
    rows, before = [heading], 0.0
    for name in [*reached, *({"close"} & set(figures))]:
        one = figures[name]
        step = "" if name == "close" else f"{one.median - before:7.1f}"
        before = one.median
        spread = f"{one.least:7.1f} {one.most:7.1f}"
        rows.append(f"  {name:<{_WIDTH}} {one.median:7.1f}  {spread}  {step}".rstrip())
    return rows


def write(file: Path, facts: Mapping[str, Any], samples: Sequence[Sample]) -> None:
    """Every sample, and the computer, as JSON."""
    document = {
        "computer": dict(facts),
        "samples": [asdict(sample) for sample in samples],
        "ratios": ratios(samples),
    }
    file.write_text(json.dumps(document, indent=2) + "\n")
