"""What the times of `open` say: a table for a terminal, tables for a page, figures with goals."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.goals import Measured, Table
from benchmarks.samples import Figure, Sample, figure, names, of_kind

GROUPS = (
    ("mailbox", "first open", "mailbox, first open (boot, empty volume)"),
    ("mailbox", "later open", "mailbox, later open (boot)"),
    ("mailbox", "warm open", "mailbox, later open from the warm state"),
    ("mailbox", "suspended", "mailbox, open of a suspended one (close: suspend)"),
    ("stock", "start", "stock machine, cold start"),
)
END = "inbox synchronised"
CLOSE = "close"
# What a goal is about: the kind of open, and the moment.
_RATIOS = {
    "open-suspended": ("suspended", END),
    "open-warm": ("warm open", END),
    "open-booted": ("later open", END),
    "close-suspend": ("suspended", CLOSE),
}
# What ends at these moments was done by this computer; everything else inside the machine.
_OUTSIDE = {
    "command begins",
    "image verified",
    "volume looked at",
    "machine started",
    "warden started",
    "secrets taken",
    "volume plugged in",
    "keys taken",
    "memory read back",
    "state destroyed",
}
_PART_OF_CLOSE = "suspend: "
_WIDTH = 26


def ratios(samples: Sequence[Sample]) -> dict[str, float]:
    """Medians of the mailbox divided by those of the stock machine."""
    stock = of_kind(samples, "stock", "start")
    found = {}
    for kind in ("first open", "later open", "warm open", "suspended"):
        ours = of_kind(samples, "mailbox", kind)
        for name in (END, CLOSE):
            above, below = figure(ours, name), figure(stock, name)
            if above and below:
                found[f"{kind}: {name}"] = above.median / below.median
    return found


def figures(samples: Sequence[Sample]) -> list[Measured]:
    """The ratios that have a goal, with the longest steps of what each is made of."""
    found, stock = ratios(samples), of_kind(samples, "stock", "start")
    measured = []
    for key, (kind, name) in _RATIOS.items():
        ratio, below = found.get(f"{kind}: {name}"), figure(stock, name)
        if ratio is not None and below is not None:
            group = of_kind(samples, "mailbox", kind)
            ours = figure(group, name)
            assert ours is not None
            ends = (ours.least / below.median, ours.most / below.median)
            why = f"{ours.median:.1f} s instead of {below.median:.1f} s; the longest steps: "
            steps = _closing(group) if name == CLOSE else segments(group)
            measured.append(Measured(key, ratio, *ends, why + _longest(steps)))
    return measured


def segments(group: Sequence[Sample]) -> list[tuple[str, float]]:
    """What was reached, in order, each with its distance from what was reached before (median)."""
    reached = _reached(group)
    moments = sorted((found.median, name) for name, found in reached.items() if name != CLOSE)
    steps, before = [], 0.0
    for at, name in moments:
        if at <= reached[END].median:
            steps.append((name, at - before))
            before = at
    return steps


def _closing(group: Sequence[Sample]) -> list[tuple[str, float]]:
    steps = [name for name in names(group) if name.startswith(_PART_OF_CLOSE)]
    found = ((name, figure(group, name)) for name in steps)
    return [(name.removeprefix(_PART_OF_CLOSE), each.median) for name, each in found if each]


def _longest(steps: Sequence[tuple[str, float]]) -> str:
    longest = sorted(steps, key=lambda step: -step[1])[:4]
    return ", ".join(f'to "{name}" {seconds:.1f} s' for name, seconds in longest)


def _reached(group: Sequence[Sample]) -> dict[str, Figure]:
    """By moment; what a warm machine did before it was saved took no time of this open."""
    told = [name for name in names(group) if not name.startswith(_PART_OF_CLOSE)]
    found = ((name, figure(group, name)) for name in told)
    return {name: each for name, each in found if each and each.median >= 0}


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
    found = _reached(group)
    reached = sorted(set(found) - {CLOSE}, key=lambda name: found[name].median)
    heading = f"  {'reached after':<{_WIDTH}} {'s':>7}  {'from':>7} {'to':>7}  {'step':>7}"
    rows, before = [heading], 0.0
    for name in [*reached, *({CLOSE} & set(found))]:
        one = found[name]
        step = "" if name == CLOSE else f"{one.median - before:7.1f}"
        before = one.median
        spread = f"{one.least:7.1f} {one.most:7.1f}"
        rows.append(f"  {name:<{_WIDTH}} {one.median:7.1f}  {spread}  {step}".rstrip())
    rows += [f"    {name:<{_WIDTH - 2}} {seconds:7.1f}" for name, seconds in _closing(group)]
    return rows


def tables(samples: Sequence[Sample], slower: float) -> list[Table]:
    """For a page: when everything was reached, and what to expect with hardware acceleration."""
    return [_phases(samples), _with_kvm(samples, slower)]


def _phases(samples: Sequence[Sample]) -> Table:
    groups = [(title, of_kind(samples, side, kind)) for side, kind, title in GROUPS]
    groups = [(title, group) for title, group in groups if group]
    columns = [_reached(group) for _, group in groups]
    last = {name: max(c[name].median for c in columns if name in c) for c in columns for name in c}
    order = sorted(last, key=lambda name: (name == CLOSE, last[name]))
    rows = [
        (name, *(f"{each[name].median:.1f}" if name in each else "" for each in columns))
        for name in order
    ]
    note = f"Seconds after the command was typed, medians of {len(groups[0][1])} rounds."
    heading = ("Reached", *(title.replace("mailbox, ", "") for title, _ in groups))
    return Table("When what is reached", heading, tuple(rows), note)


def _with_kvm(samples: Sequence[Sample], slower: float) -> Table:
    rows, stock = [], 0.0
    for side, kind, title in reversed(GROUPS):
        group = of_kind(samples, side, kind)
        if group:
            outside = sum(length for name, length in segments(group) if name in _OUTSIDE)
            inside = sum(length for name, length in segments(group) if name not in _OUTSIDE)
            expected = outside + inside / slower
            stock = expected if side == "stock" else stock
            ratio = f"{expected / stock:.2f}" if stock else ""
            rows.append((title, f"{outside:.1f}", f"{inside:.1f}", f"{expected:.1f}", ratio))
    note = (
        f"The same program takes {slower:.1f} times as long in the machine as here. With "
        "hardware acceleration what is done inside takes about as long as outside; what this "
        "computer does stays as it is. Seconds to the inbox; calculated, not measured."
    )
    heading = ("", "Outside", "Inside, emulated", "Expected with KVM", "Ratio to stock")
    return Table("What to expect with KVM", heading, tuple(reversed(rows)), note)
