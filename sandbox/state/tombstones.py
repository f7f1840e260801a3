"""Tombstones: what remains of a shredded profile, one file for each that had the name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sandbox.model.names import same_name
from sandbox.state import files
from sandbox.state.paths import Paths


@dataclass(frozen=True)
class Tombstone:
    """What remains of a shredded profile; `case` is what its certificate is made from."""

    name: str
    profile_id: str
    shredded: str
    because: str = ""
    case: Mapping[str, Any] = field(default_factory=dict)

    @property
    def when_and_why(self) -> str:
        """For the refusal of the name."""
        return self.shredded + (f" ({self.because})" if self.because else "")


class Tombstones:
    """The tombstones of one user."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def bury(self, name: str, profile_id: str, because: str, case: Mapping[str, Any]) -> None:
        """Leave the tombstone of a profile; one that stands already stays as it is."""
        path = self._paths.tombstone_of(name, profile_id)
        files.remove_unfinished(path)
        if self.of(profile_id):
            return
        stone = {
            "version": 2,
            "name": name,
            "profile_id": profile_id,
            "shredded": datetime.now(UTC).isoformat(timespec="seconds"),
            "because": because,
            "case": dict(case),
        }
        files.replace(path, json.dumps(stone, indent=1, ensure_ascii=False).encode() + b"\n")

    def all(self, name: str) -> list[Tombstone]:
        """The tombstones of a name (case does not matter), the newest last."""
        found = self._paths.tombstones.glob("*.json")
        same = [path for path in found if same_name(_name(path), name)]
        # Two of one second are told apart by their files.
        same.sort(key=lambda path: path.stat().st_mtime_ns)
        return sorted(map(_read, same), key=lambda stone: stone.shredded)

    def of(self, profile_id: str) -> Tombstone | None:
        """The tombstone of one profile, whatever name its files have now."""
        if not profile_id:
            return None
        # Others of a name are not read: `list` asks for each mailbox there is.
        mine = f"+{profile_id}.json"
        found = self._paths.tombstones.glob("*.json")
        stones = (_read(path) for path in found if "+" not in path.name or path.name.endswith(mine))
        return next((stone for stone in stones if stone.profile_id == profile_id), None)


def _name(path: Path) -> str:
    # No name holds a `+`.
    return path.stem.partition("+")[0]


def _read(path: Path) -> Tombstone:
    """A tombstone; a damaged one still stands for its name and profile."""
    try:
        stone = json.loads(path.read_bytes())
        case = stone.get("case")
        return Tombstone(
            str(stone["name"]),
            str(stone["profile_id"]),
            str(stone["shredded"]),
            str(stone.get("because", "")),
            case if isinstance(case, dict) else {},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Tombstone(_name(path), path.stem.partition("+")[2], "an unknown day")
