"""What a probe says: a level, what was seen, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How much a finding matters; what could not be found out is `unknown`, never `ok`."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Verdict:
    """A judgement about one thing, before it has its name in the list."""

    level: Level
    detail: str
    remedy: str = ""


@dataclass(frozen=True)
class Finding:
    """One line of `mailbox doctor`; `id` is stable and goes into `--json`."""

    id: str
    title: str
    level: Level
    detail: str
    remedy: str


def ok(detail: str) -> Verdict:
    """All is well."""
    return Verdict(Level.OK, detail)


def warning(detail: str, remedy: str = "") -> Verdict:
    """It works, but something is lost: speed, comfort or a layer of protection."""
    return Verdict(Level.WARNING, detail, remedy)


def problem(detail: str, remedy: str) -> Verdict:
    """Something that `mailbox` needs is missing, or mail would leak."""
    return Verdict(Level.PROBLEM, detail, remedy)


def unknown(detail: str, remedy: str = "") -> Verdict:
    """It could not be found out."""
    return Verdict(Level.UNKNOWN, detail, remedy)
