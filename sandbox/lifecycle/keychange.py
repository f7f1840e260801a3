"""A change of the own keys: made in a copy of the key ring, which then takes the ring's place.

Killed at any moment, the ring is the old one or the new one, and the profile follows the ring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sandbox.lifecycle import rings
from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House
from sandbox.lifecycle.machine import secrets_of
from sandbox.model.errors import MailboxError
from sandbox.model.keys import Key, day_of
from sandbox.model.openpgp import Keys
from sandbox.model.profile import Profile
from sandbox.model.secrets import KEY_PASSPHRASE
from sandbox.ports import OwnKeyring, ProfileKeyring
from sandbox.state import files

# In a plan's facts, the key that a change destroys.
DOOMED = "doomed"

_RING = Step("ring", "Putting the changed key ring in place", "it replaces the old one as a whole")
_WRITE = Step("profile", "Writing the profile", "it names the keys of the mailbox")


class Draft:
    """The copy of a ring in which a change is made.

    `passphrase` protects its secret keys; None, unless `needed`, when the keyring does not tell.
    """

    def __init__(self, house: House, profile: Profile, *, needed: bool = True) -> None:
        self.profile = profile
        self.passphrase: str | None = None
        try:
            self.passphrase = secrets_of(house, profile, KEY_PASSPHRASE)[KEY_PASSPHRASE]
        except MailboxError:
            if needed:
                raise
        self._house = house
        self._name = ""

    def begin(self) -> None:
        """Make the copy."""
        self._name = rings.begin_draft(self._house, self.profile.name)

    @property
    def ring(self) -> ProfileKeyring:
        """The copy as a key ring."""
        return self._house.profile_keyring(self._name)

    @property
    def own(self) -> OwnKeyring:
        """The copy as what own keys are changed in."""
        return self._house.own_keyring(self._name)


def steps_of_change(title: str, reason: str) -> tuple[Step, ...]:
    """The steps of every change; what differs is what is done in the copy."""
    return (Step("draft", title, reason), _RING, _WRITE)


def change(house: House, plan: Plan, draft: Draft, make: Callable[[Draft], str | None]) -> Keys:
    """Run a change; `make` returns the fingerprint of the new own key, or None for the same."""
    name, wished = plan.name, [""]
    doomed = str(plan.facts.get(DOOMED, ""))

    def in_copy() -> dict[str, Any]:
        draft.begin()
        wished[0] = make(draft) or ""
        return {"fingerprint": wished[0]} if wished[0] else {}

    run(
        plan,
        {
            "draft": in_copy,
            "ring": lambda: rings.put_in_place(house, name),
            "profile": lambda: follow_ring(house, name, wished[0], doomed),
        },
        house.journal(name),
        house.progress,
        undo=lambda: _undo(house, name, wished[0], doomed),
    )
    return house.records.load(name).keys


def settle_change(house: House, name: str, run_id: str) -> str:
    """Bring a killed change to an end; returns what came of it."""
    entries = [each for each in house.journal(name).read().entries if each.run == run_id]
    begun = next((each for each in entries if each.event == "begin"), None)
    done = next((each for each in entries if (each.event, each.step) == _DRAFTED), None)
    wished = done.fact("fingerprint") if done else ""
    _undo(house, name, wished, begun.fact(DOOMED) if begun else "")
    return f"`mailbox keys list {name}` shows the keys that it has."


_DRAFTED = ("done", "draft")


def _undo(house: House, name: str, wished: str, doomed: str) -> None:
    rings.tidy(house, name)
    files.remove_unfinished(house.paths.profile(name))
    follow_ring(house, name, wished, doomed)


def follow_ring(house: House, name: str, wished: str, doomed: str = "") -> None:
    """Let the profile say what its key ring has; a profile that cannot be read stays as it is."""
    try:
        profile = house.records.load(name)
    except MailboxError:
        return
    sought = [*profile.keys.private, *([wished] if wished else [])]
    found = {key.fingerprint: key for key in house.profile_keyring(name).look(sought)}
    keys = as_in_ring(profile.keys, found, wished, doomed)
    if keys != profile.keys:
        house.records.save(replace(profile, keys=keys))


def as_in_ring(keys: Keys, ring: Mapping[str, Key], wished: str, doomed: str = "") -> Keys:
    """What a profile has to say of its own keys when its ring holds these.

    The wished key is the own one as soon as it is there; the one before is retired, and so is one
    that was revoked. The doomed one is forgotten as soon as its secret is not there any more.
    """
    wish = ring.get(wished)
    own = wished if wish and wish.secret else keys.fingerprint
    key = ring.get(own or "")
    if key and key.validity == "r":
        own, key = None, None
    retired = tuple(dict.fromkeys(each for each in keys.private if each != own))
    forgotten = keys.forgotten
    if doomed in retired and not (ring.get(doomed) and ring[doomed].secret):
        retired = tuple(each for each in retired if each != doomed)
        forgotten = (*forgotten, doomed)
    known = day_of(key.expires) if key else keys.expires
    return replace(
        keys,
        fingerprint=own,
        retired=retired,
        expires=known if own else "",
        forgotten=tuple(each for each in forgotten if each not in (own, *retired)),
    )
