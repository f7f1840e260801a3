"""Entries of a certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

# A note explains; it is neither seen nor stated.
OBSERVATION, STATEMENT, NOTE = "observation", "statement", "note"
_LONGEST = 500


@dataclass(frozen=True)
class Entry:
    """One field: `text` as found, or `code` with `values` to be put into words."""

    id: str
    source: str = OBSERVATION
    text: str = ""
    code: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        said = {"code": self.code, "values": self.values} if self.code else {"text": self.text}
        return {"id": self.id, "source": self.source, **said}


@dataclass(frozen=True)
class Section:
    """Entries under one heading."""

    id: str
    entries: tuple[Entry, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"id": self.id, "entries": [entry.document() for entry in self.entries]}


def text(entry: str, found: object) -> Entry:
    """An observation as it was found; nothing found is said."""
    shown = plain(found)
    return Entry(entry, text=shown) if shown else coded(entry, "unknown")


def coded(entry: str, code: str, source: str = OBSERVATION, **values: Any) -> Entry:
    """An entry with words of its own in every language."""
    clean = {k: v if isinstance(v, int) else plain(v) for k, v in values.items()}
    return Entry(entry, source, code=code, values=clean)


def stated(entry: str, said: object) -> Entry:
    """What the user states; nothing stated is said."""
    shown = plain(said)
    if not shown:
        return Entry(entry, STATEMENT, code="not-stated")
    return Entry(entry, STATEMENT, text=shown)


def plain(value: object) -> str:
    """One line without control characters, of bounded length."""
    shown = " ".join(str(value if value is not None else "").split())
    return "".join(char for char in shown if char.isprintable())[:_LONGEST]
