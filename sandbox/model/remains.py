"""What could be left of a mailbox: what is searched for, where, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.model.profile import Profile


@dataclass(frozen=True)
class Needle:
    """Something that tells a customer: the kind of it, and its text."""

    kind: str
    text: str


@dataclass(frozen=True)
class Sought:
    """One search: `kept` are the records that may hold the identifiers in `allowed` kinds."""

    needles: tuple[Needle, ...]
    folders: tuple[Path, ...]
    kept: tuple[Path, ...] = ()
    skipped: tuple[Path, ...] = ()
    allowed: tuple[str, ...] = ("profile id", "machine", "volume id")


@dataclass(frozen=True)
class Found:
    """A file with an identifier in its name or content; `path` has identifiers blotted out."""

    path: str
    kind: str


@dataclass(frozen=True)
class Searched:
    """What a search looked at, and what it could not read."""

    folders: tuple[str, ...]
    files: int
    unread: int
    found: tuple[Found, ...] = ()


def needles(
    profile_id: str, domain: str, volume_id: str, profile: Profile | None
) -> tuple[Needle, ...]:
    """What tells this customer's mailbox from all others; servers and keys are often shared."""
    found = [Needle("profile id", profile_id), Needle("machine", domain)]
    if volume_id:
        found.append(Needle("volume id", volume_id))
    if profile:
        found.append(Needle("address", profile.account.address))
        if len(profile.account.login) >= 6:  # shorter ones are in everything
            found.append(Needle("login", profile.account.login))
    unique = {needle.text.casefold(): needle for needle in reversed(found) if needle.text}
    return tuple(reversed(unique.values()))


def blot(path: str, sought: Mapping[str, str]) -> str:
    """A path without what is searched for: the journal keeps it, and holds no address."""
    lowered = path.casefold()
    for text, kind in sought.items():
        at = lowered.find(text)
        while at >= 0 and len(lowered) == len(path):
            path = f"{path[:at]}<{kind}>{path[at + len(text) :]}"
            lowered = path.casefold()
            at = lowered.find(text, at + len(kind) + 2)
    return path
