"""The case of a shredding: what is known before it begins, for the question, tombstone and report.

It outlives the profile, so it holds the names of the parties and no address.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sandbox import __version__
from sandbox.lifecycle.house import House
from sandbox.lifecycle.kept import is_anything_kept
from sandbox.lifecycle.key_details import SAVED, with_certificate
from sandbox.model.contract import write_contract
from sandbox.model.errors import MailboxError
from sandbox.model.inventory import Copy, Known, fates, inventory
from sandbox.model.profile import Profile
from sandbox.model.secrets import DAV_PASSWORD, ITEMS
from sandbox.state.journal import History

T = TypeVar("T")


def take_inventory(house: House, name: str) -> tuple[Copy, ...]:
    """Every copy of a key and of the data that is known."""
    volume, profile = house.paths.volume(name), _profile(house, name)
    backup = header_backup(volume)
    own = profile.keys.fingerprint if profile else None
    history = _or_none(lambda: house.journal(name).read()) or History(())
    return inventory(
        Known(
            volume=str(volume) if volume.exists() else "",
            keyslots=int(house.remains.describe(volume).get("keyslots", 0)),
            key_ring=house.paths.gnupg(name).exists(),
            smime=str(smime) if (smime := house.paths.smime(name)).exists() else "",
            header_backup=str(backup) if backup.exists() else "",
            suspended=str(house.paths.saved(name)) if is_anything_kept(house, name) else "",
            pictures=tuple(str(path) for path in pictures_of(history) if path.exists()),
            revocations=with_certificate(house.paths, name),
            revocations_saved=tuple(filter(os.path.exists, saved_revocations(history))),
            own_key=own or "",
            own_key_here=bool(own and _or_none(lambda: house.user_keyring.has_secret(own))),
            items=(*ITEMS, DAV_PASSWORD) if profile and profile.account.has_dav_password else ITEMS,
            outside=tuple(house.remains.copies(volume)),
        )
    )


def make_case(
    house: House, name: str, confirmed: tuple[str, ...], order: dict[str, Any]
) -> dict[str, Any]:
    """All that the certificate needs and that is gone afterwards."""
    volume, profile = house.paths.volume(name), _profile(house, name)
    facts = _or_none(lambda: house.volumes.look(volume))
    sizes = {"size": facts.size, "allocated": facts.allocated} if facts else {}
    return {
        "tool": f"mailbox {__version__}",
        "order": order,
        "volume": {"there": facts is not None, **house.remains.describe(volume), **sizes},
        "created": profile.created if profile else "",
        "contract": write_contract(profile.contract) if profile else {},
        "medium": dict(house.remains.medium(volume)),
        "copies": fates(take_inventory(house, name), confirmed),
    }


def header_backup(volume: Path) -> Path:
    """Where a copy of the volume's header lies, when one was made."""
    return volume.with_name(f"{volume.name}.header")


def saved_revocations(history: History) -> tuple[str, ...]:
    """The files that revocation certificates were saved to."""
    saved = (e.fact("file") for e in history.entries if e.verb == SAVED)
    return tuple(dict.fromkeys(saved))


def pictures_of(history: History) -> dict[Path, str]:
    """The screenshots that the journal knows: SHA-256 by path, as they were saved last."""
    return {
        Path(entry.fact("file")): entry.fact("sha256")
        for entry in history.entries
        if entry.verb == "screenshot" and entry.fact("file")
    }


def _profile(house: House, name: str) -> Profile | None:
    return _or_none(lambda: house.records.load(name, shredded=True))


def _or_none(look: Callable[[], T]) -> T | None:
    try:
        return look()
    except MailboxError:
        return None
