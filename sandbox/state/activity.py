"""What a machine did with a key on the host: one JSON line each, in a file that stays small.

Not in the journal: a command may write there at the same time, and this is written hundreds of
times a day. It is removed with its profile, as it tells when a customer's mail was read.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sandbox.state import files

MOST_BYTES = 256 * 1024


@dataclass(frozen=True)
class Use:
    """One use, or a run of equal ones: `operation` is decrypt, sign or refused."""

    time: str
    operation: str
    what: str
    outcome: str
    count: int = 1


class Activity:
    """The file of one profile; only the process that holds the key writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, operation: str, what: str, outcome: str) -> None:
        """Add a use; the older half goes when the file has grown too large."""
        files.private_folder(self._path.parent)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps(asdict(Use(now, operation, what, outcome))).encode() + b"\n"
        with files.readable_errors(self._path):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(line)
                size = file.tell()
            if size > MOST_BYTES:
                kept = self._path.read_bytes()[-MOST_BYTES // 2 :].partition(b"\n")[2]
                files.replace(self._path, kept)

    def read(self) -> list[Use]:
        """All uses, oldest first; equal ones of the same minute are one."""
        with files.readable_errors(self._path):
            lines = self._path.read_bytes().splitlines() if self._path.exists() else []
        uses: list[Use] = []
        for use in filter(None, map(_parse, lines)):
            if uses and _same(uses[-1], use):
                first = uses[-1]
                uses[-1] = Use(
                    first.time, use.operation, use.what, use.outcome, first.count + use.count
                )
            else:
                uses.append(use)
        return uses


def _same(one: Use, other: Use) -> bool:
    return (one.time[:16], one.operation, one.what, one.outcome) == (
        *(other.time[:16], other.operation),
        *(other.what, other.outcome),
    )


def _parse(line: bytes) -> Use | None:
    try:
        return Use(**json.loads(line))
    except (ValueError, TypeError):
        return None
