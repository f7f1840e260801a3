"""Every copy of a key and of the data that is known, and which of them `shred` can destroy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.model.secrets import ITEMS, SMIME_PASSPHRASE, STATE_KEY


@dataclass(frozen=True)
class Copy:
    """A copy: `holds` is key or data; `seen` is None where it cannot be seen from here.

    `id` is what `--confirm` takes; the words for it are in sandbox/report/words.
    """

    id: str
    holds: str
    where: str
    destroys: bool
    seen: bool | None = True


@dataclass(frozen=True)
class Known:
    """What was observed about copies: counts, paths, and rows of the host's own probes."""

    volume: str = ""
    keyslots: int = 0
    items: tuple[str, ...] = ITEMS
    key_ring: bool = False
    smime: str = ""
    header_backup: str = ""
    suspended: str = ""
    pictures: tuple[str, ...] = ()
    # Fingerprints with a certificate in the key ring; files of certificates that were saved.
    revocations: tuple[str, ...] = ()
    revocations_saved: tuple[str, ...] = ()
    own_key: str = ""
    own_key_here: bool = False
    outside: tuple[Copy, ...] = ()


def inventory(known: Known) -> tuple[Copy, ...]:
    """The rows, those first that `shred` destroys."""
    rows = [Copy(f"keyring:{item}", "key", "", True) for item in known.items]
    if known.volume:
        rows.append(Copy("keyslots", "key", str(known.keyslots), True))
        rows.append(Copy("volume", "data", known.volume, True))
    if known.suspended:
        rows.append(Copy(f"keyring:{STATE_KEY}", "key", "", True))
        rows.append(Copy("suspended", "data", known.suspended, True))
    if known.header_backup:
        rows.append(Copy("header-backup", "key", known.header_backup, True))
    if known.key_ring:
        rows.append(Copy("key-ring", "key", known.own_key, True))
    if known.smime:
        rows.append(Copy(f"keyring:{SMIME_PASSPHRASE}", "key", "", True))
        rows.append(Copy("smime", "key", known.smime, True))
    if known.revocations:
        rows.append(Copy("revocation", "key", ", ".join(known.revocations), True))
    if known.pictures:
        rows.append(Copy("pictures", "data", str(len(known.pictures)), True))
    return (*rows, *_beyond(known))


def _beyond(known: Known) -> list[Copy]:
    """What nobody but the user can destroy."""
    rows = []
    if not known.volume:
        # Removed by hand, or moved: whoever has it and a key can read it.
        rows.append(Copy("volume-elsewhere", "data", "", False, None))
    if known.keyslots > 1:
        rows.append(Copy("recovery-code", "key", "", False, None))
    if known.own_key_here:
        rows.append(Copy("own-gnupg", "key", known.own_key, False))
    if known.revocations_saved:
        rows.append(Copy("revocation-saved", "key", ", ".join(known.revocations_saved), False))
    rows.append(Copy("provider-mail", "data", "", False, None))
    rows.append(Copy("provider-password", "key", "", False, None))
    return [*rows, *known.outside]


def fates(rows: Sequence[Copy], confirmed: Sequence[str]) -> list[dict[str, Any]]:
    """The rows for the records; those beyond us are confirmed by the user, or open."""
    return [
        {
            "id": row.id,
            "holds": row.holds,
            "where": row.where,
            "destroys": row.destroys,
            "seen": row.seen,
            "stated_gone": not row.destroys and row.id in confirmed,
        }
        for row in rows
    ]


def unknown_ids(rows: Sequence[Copy], confirmed: Sequence[str]) -> list[str]:
    """What was confirmed though it is no row that wants it."""
    beyond = {row.id for row in rows if not row.destroys}
    return [each for each in confirmed if each not in beyond]


def open_rows(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The ids of copies that stay open."""
    return [str(row["id"]) for row in rows if not row["destroys"] and not row["stated_gone"]]
