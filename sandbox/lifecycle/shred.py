"""`shred`: keys first, then the data. Only forward: killed anywhere, it ends in shredded."""

from __future__ import annotations

import uuid
from typing import Any

from sandbox.lifecycle.close import close_locked, is_closed
from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.observe import observe
from sandbox.lifecycle.settle import unfinished_name
from sandbox.model.errors import MailboxError
from sandbox.model.secrets import ITEMS
from sandbox.state import files

_STEPS = (
    Step("close", "Closing the machine", "its memory holds the key"),
    Step("tombstone", "Leaving the tombstone", "from here on there is no way back"),
    Step("keyring", "Destroying the keys in the keyring", "without them the volume is noise"),
    Step("header", "Overwriting the keyslots", "no key or passphrase opens the volume again"),
    Step("keys", "Destroying the OpenPGP key ring", "its passphrase is gone with the keyring's"),
    Step("volume", "Removing the volume", "ciphertext without a key"),
    Step("profile", "Removing the profile", "it names the customer and the servers"),
)


def plan_shred(name: str, profile_id: uuid.UUID) -> Plan:
    """The steps of a shredding, keys before data."""
    return Plan("shred", name, _STEPS, {"profile_id": str(profile_id)})


def shred(house: House, name: str) -> Result:
    """Destroy the profile's keys and data; a name already shredded is an error that says when."""
    known = house.records.find(name) or unfinished_name(house, name) or name
    with house.locked(known, "shred"):
        pending = house.journal(known).read().pending()
        identity = _identity(house, known, pending and pending.facts)
        seconds = shred_locked(house, known, identity)
    facts = {"profile_id": str(identity), "seconds": seconds}
    return Result("shred", known, f"{known} is shredded.", facts)


def _identity(house: House, name: str, pending: Any) -> uuid.UUID:
    """The profile's id, from its file or, when that is gone or broken, from the journal."""
    try:
        return house.records.load(name).id
    except MailboxError:
        begun = house.journal(name).read().last("onboard", "begin")
        for facts in (pending, begun and begun.facts if house.records.find(name) else None):
            if facts and "profile_id" in facts:
                return uuid.UUID(str(facts["profile_id"]))
        raise


def shred_locked(house: House, name: str, profile_id: uuid.UUID) -> dict[str, float]:
    """Run all steps under a lock that the caller holds; each is idempotent."""
    work = _Shredding(house, name, profile_id)
    plan = plan_shred(name, profile_id)
    timings = run(plan, work.effects(), house.journal(name), house.progress)
    return {timing.step: round(timing.seconds, 3) for timing in timings}


class _Shredding:
    """The effects of one shredding."""

    def __init__(self, house: House, name: str, profile_id: uuid.UUID) -> None:
        self._house = house
        self._name = name
        self._id = profile_id

    def effects(self) -> dict[str, Any]:
        return {
            "close": self._close,
            "tombstone": lambda: self._house.records.bury(self._name, str(self._id)),
            "keyring": self._forget_secrets,
            "header": self._erase,
            "keys": lambda: self._house.profile_keyring(self._name).destroy(),
            "volume": self._remove_volume,
            "profile": lambda: self._house.records.remove(self._name),
        }

    def _close(self) -> None:
        seen = observe(self._house, self._name)
        if not is_closed(self._house, seen):
            close_locked(self._house, seen)

    def _forget_secrets(self) -> dict[str, Any]:
        return {kind: self._house.vault.delete(self._id, kind) for kind in ITEMS}

    def _erase(self) -> dict[str, Any]:
        return {"erased": self._house.volumes.erase_header(self._house.paths.volume(self._name))}

    def _remove_volume(self) -> None:
        self._house.volumes.remove(self._house.paths.volume(self._name))
        files.remove(self._house.paths.blank(self._name))
