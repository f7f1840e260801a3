"""What of a mailbox's keys needs care, from what its profile notes: no key ring is opened."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from sandbox.model.openpgp import Keys

WARN_DAYS = 30
WITHOUT = "It has no OpenPGP key of its own any more: it writes unsigned."


def cares(keys: Keys, now: datetime | None = None) -> Iterator[str]:
    """What a list has to say: keys that have ended, or end soon."""
    today = (now or datetime.now(UTC)).date()
    ends = [("Its own key", keys.fingerprint or "", keys.expires)]
    ends += [(", ".join(c.addresses), c.fingerprint, c.expires) for c in keys.correspondents]
    for whose, fingerprint, day in ends:
        if day and day <= today.isoformat():
            yield f"{whose}: {fingerprint} expired on {day}."
        elif day and day <= (today + timedelta(days=WARN_DAYS)).isoformat():
            yield f"{whose}: {fingerprint} expires on {day}."
    if keys.retired and not keys.fingerprint:
        yield WITHOUT
