"""Retention: a mailbox that is kept, closed for use, until a day."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime

from sandbox.model.errors import Exit, MailboxError
from sandbox.state import files
from sandbox.state.paths import Paths


@dataclass(frozen=True)
class Retention:
    """Kept until a day (by UTC), on which it may be shredded; `because` as the user states it."""

    profile_id: str
    until: date
    because: str
    since: str

    def is_over(self, today: date) -> bool:
        """Whether it may be shredded without a further reason."""
        return today >= self.until


def today() -> date:
    """The day by this computer's clock, UTC."""
    return datetime.now(UTC).date()


class Retentions:
    """The retentions of one user, one for a name."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def of(self, name: str, profile_id: str) -> Retention | None:
        """The retention of a profile; one that an earlier profile of the name left is none.

        Raises:
            MailboxError: `retention-damaged`: what cannot be read must not be taken for none.
        """
        path = self._paths.retention(name)
        with files.readable_errors(path):
            content = path.read_bytes() if path.exists() else None
        if content is None:
            return None
        try:
            found = json.loads(content)
            until = date.fromisoformat(str(found["until"]))
            kept = Retention(
                str(found["profile_id"]), until, str(found["because"]), str(found["since"])
            )
        except (ValueError, KeyError, TypeError):
            raise _damaged(name, str(path)) from None
        return kept if kept.profile_id == profile_id else None

    def keep(self, name: str, retention: Retention) -> None:
        """Write a retention, durably."""
        files.remove_unfinished(self._paths.retention(name))
        document = asdict(retention) | {"version": 1, "until": retention.until.isoformat()}
        content = json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
        files.replace(self._paths.retention(name), content)

    def remove(self, name: str) -> None:
        """Remove the retention of a name."""
        files.remove(self._paths.retention(name))


def _damaged(name: str, path: str) -> MailboxError:
    return MailboxError(
        f"The note on how long {name} is kept cannot be read; it stays closed, nothing is lost.",
        details=path,
        resolution=f"`mailbox retain {name} --until DATE --because TEXT` writes it anew; "
        f"`mailbox log {name}` shows what it said.",
        code="retention-damaged",
        exit_code=Exit.DAMAGED,
    )
