"""What the journal says about one shredding, over all runs that it took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Entry(Protocol):
    """An entry of the journal (sandbox.state.journal)."""

    @property
    def time(self) -> str: ...
    @property
    def verb(self) -> str: ...
    @property
    def event(self) -> str: ...
    @property
    def run(self) -> str: ...
    @property
    def step(self) -> str: ...
    @property
    def facts(self) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True)
class Evidence:
    """Facts of every step, and times as the journal has them (UTC)."""

    name: str
    profile_id: str
    case: Mapping[str, Any]
    steps: Mapping[str, Mapping[str, Any]]
    began: str = ""
    ended: str = ""
    last_used: str = ""
    runs: int = 1
    broken_at: int | None = None
    retentions: tuple[Mapping[str, Any], ...] = field(default=())


def life(entries: Iterable[Entry], profile_id: str) -> list[Entry]:
    """The entries about one of the profiles that had the name: from its onboarding on."""
    mine: list[Entry] = []
    inside = False
    for entry in entries:
        named = str((entry.facts or {}).get("profile_id", ""))
        if entry.event == "begin" and named:
            inside = named == profile_id
        if inside:
            mine.append(entry)
    return mine


def gather(
    name: str,
    profile_id: str,
    case: Mapping[str, Any],
    entries: Iterable[Entry],
    broken_at: int | None,
) -> Evidence:
    """The evidence of a shredding, from its own entries and those of its profile before."""
    mine = life(entries, profile_id)
    shredding = [entry for entry in mine if entry.verb == "shred"]
    begun = [entry.time for entry in shredding if entry.event == "begin"]
    done = [entry for entry in shredding if entry.event == "done" and entry.step != "certificate"]
    opened = [e.time for e in mine if e.verb == "open" and e.event == "end"]
    kept = [e for e in mine if e.verb == "retain" and e.event == "begin"]
    return Evidence(
        name=name,
        profile_id=profile_id,
        case=case,
        steps=_merged(done),
        began=begun[0] if begun else "",
        ended=done[-1].time if done else "",
        last_used=opened[-1] if opened else "",
        runs=len(begun),
        broken_at=broken_at,
        retentions=tuple({"since": e.time, **(e.facts or {})} for e in kept),
    )


def _merged(done: Iterable[Entry]) -> dict[str, dict[str, Any]]:
    """What was seen in any run: a repeated step finds nothing left to destroy."""
    steps: dict[str, dict[str, Any]] = {}
    for entry in done:
        facts = dict(entry.facts or {})
        before = steps.get(entry.step, {})
        if entry.step == "look":
            # One search is one observation: the one that knew most, and of those the last.
            weaker = len(facts.get("identifiers", ())) < len(before.get("identifiers", ()))
            steps["look"] = before if weaker else facts
        else:
            both = {key: _stronger(before.get(key), facts.get(key)) for key in {**before, **facts}}
            steps[entry.step] = both
    return steps


def _stronger(before: Any, after: Any) -> Any:
    if after is None or (before and not after):
        return before
    return after
