"""`password`: a login's new password, tried, stored, and handed to an open machine.

The keyring replaces an item as a whole: killed at any moment, each password is the old or the new
one. What is noted of an open machine (sandbox.lifecycle.given) says that it was not told the new
one, so that the next open tells it, and so that it is not resumed after a suspend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.lifecycle import given, kept
from sandbox.lifecycle.check import check_passwords
from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.machine import carries_all, is_usable
from sandbox.lifecycle.observe import Observation, observe
from sandbox.lifecycle.opening import provision_again
from sandbox.lifecycle.settle import settle, settle_name
from sandbox.model.errors import InvalidInputError, MailboxError
from sandbox.model.machine import MachineState
from sandbox.model.profile import Profile
from sandbox.model.secrets import DAV_PASSWORD
from sandbox.state import files

VERB = "password"
_STORE = Step("secret", "Storing the password in the keyring", "it rests nowhere else on this host")
_DISCARD = Step("discard", "Discarding the suspended machine", "it knows only the old password")
_HAND = Step("hand", "Handing it to the mail client", "the open machine has the old one")


@dataclass(frozen=True)
class Needs:
    """What a change asks for: which kinds differ, and who else has the old ones."""

    kinds: tuple[str, ...]
    suspended: bool = False
    usable: bool = False


def plan_password(name: str, needs: Needs) -> Plan:
    """The steps; none when the keyring has these passwords and the machine knows them."""
    store = (_STORE,) if needs.kinds else ()
    discard = (_DISCARD,) if needs.kinds and needs.suspended else ()
    hand = (_HAND,) if needs.usable else ()
    return Plan(VERB, name, (*store, *discard, *hand))


def look(house: House, profile: Profile, words: Mapping[str, str]) -> tuple[Needs, Observation]:
    """What there is need for, and what is seen; raises `invalid-input`, `keyring-…`."""
    if DAV_PASSWORD in words and not profile.account.has_dav_password:
        raise no_own_password(profile.name)
    house.vault.check()
    seen = observe(house, profile.name)
    kinds = tuple(kind for kind in words if house.vault.get(profile.id, kind) != words[kind])
    is_closed = seen.machine is MachineState.CLOSED
    due = bool(kinds) or given.has_old_secret(house, profile.name)
    usable = due and is_usable(house, seen, pending_allowed=True)
    return Needs(kinds, is_closed and seen.remains, usable), seen


def change(house: House, name: str, words: Mapping[str, str], *, check: bool) -> Result:
    """Store passwords, by the kind of secret, once the servers take them."""
    known = settle_name(house, name)
    with house.locked(known, VERB):
        settle(house, known)
        profile = house.records.load(known)
        needs, seen = look(house, profile, words)
        checked = check_passwords(house, profile.account, words) if check else None
        work = _Changing(house, profile, seen, {kind: words[kind] for kind in needs.kinds})
        plan = plan_password(known, needs)
        if plan.steps:
            run(plan, work.effects(), house.journal(known), house.progress, undo=work.undo)
    is_open = seen.machine is not MachineState.CLOSED
    summary = _summary(known, needs, is_open=is_open, handed=work.handed)
    facts = {
        "changed": list(needs.kinds),
        "servers_checked": check,
        "server_check": checked,
        "open": is_open,
        "handed": work.handed,
        "discarded": bool(needs.kinds) and needs.suspended,
    }
    return Result(VERB, known, summary, facts)


def _summary(name: str, needs: Needs, *, is_open: bool, handed: bool) -> str:
    if handed:
        return f"{name} has the new password, and so has its mail client."
    if not needs.kinds and not needs.usable:
        return f"{name} has that password already."
    if is_open:
        return f"{name} has the new password; `mailbox open {name}` hands it to its mail client."
    if needs.suspended:
        return f"{name} has the new password; the next open starts its machine afresh."
    return f"{name} has the new password; the mail client takes it at the next open."


class _Changing:
    """The effects; the passwords live in this object's memory, the keyring and the machine."""

    def __init__(
        self, house: House, profile: Profile, seen: Observation, new: Mapping[str, str]
    ) -> None:
        self.handed = False
        self._house = house
        self._profile = profile
        self._seen = seen
        self._new = new
        self._old = {kind: house.vault.get(profile.id, kind) for kind in new}

    def effects(self) -> dict[str, Any]:
        return {
            "secret": self._store,
            "discard": lambda: kept.discard(self._house, self._profile.name, self._profile.id),
            "hand": self._hand,
        }

    def _store(self) -> dict[str, Any]:
        given.secret_changes(self._house, self._profile.name)
        for kind, secret in self._new.items():
            self._house.vault.put(self._profile.id, kind, secret)
        return {"stored": list(self._new)}

    def _hand(self) -> dict[str, Any]:
        """What the machine does not take counts at the next open: the keyring has it."""
        house, profile = self._house, self._profile
        if not carries_all(house, profile):
            house.progress.warn(
                "The profile names other servers, or another custody, than at the open."
            )
            return {"handed": False}
        try:
            provision_again(house, profile, self._seen)
        except MailboxError as error:
            house.progress.warn(f"The open machine did not take it: {error.brief}")
            return {"handed": False, "code": error.code}
        self.handed = True
        return {"handed": True}

    def undo(self) -> None:
        """As before; a machine stays marked, since it may have been told already."""
        for kind, secret in self._old.items():
            if secret is None:
                self._house.vault.delete(self._profile.id, kind)
            else:
                self._house.vault.put(self._profile.id, kind, secret)
        kept.tidy(self._house, self._profile.name, self._profile.id)


def settle_password(house: House, name: str) -> str:
    """After a kill: whole or not, nothing of it has to be undone; what is half made goes."""
    kept.tidy(house, name)
    files.remove_unfinished(house.paths.given(name))
    return f"The keyring has the old password or the new one; `mailbox password {name}` says it."


def no_own_password(name: str) -> MailboxError:
    """The error of a password that nothing would be opened with."""
    return InvalidInputError(
        f"The profile {name}",
        ['account: no calendar and no address book says password = "own"'],
        meaning="no password was stored",
    )
