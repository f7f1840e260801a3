"""`recovery-code`: a new recovery code in a keyslot of its own; then the old one's is killed."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.header import RENEW, has_backup, write_backup
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.settle import settle, settle_name
from sandbox.lifecycle.soundness import Sound, refuse_open, sound_volume, stored_key
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.profile import Profile
from sandbox.model.recovery import KEY_SLOT, new_code
from sandbox.state.journal import Entry

VERB = "recovery-code"
_ALL_SLOTS = range(8)


def plan_code(
    name: str, profile_id: uuid.UUID, new: int, old: tuple[int, ...], *, backup: bool = False
) -> Plan:
    """The new keyslot, the code in somebody's hands, and only then the end of the old ones."""
    killing = Step("old", "Destroying the old code's keyslot", "the old code opens nothing more")
    steps = (
        Step("keyslot", "Making the new recovery code", "the old one opens until it is there"),
        Step("code", "Handing over the recovery code", "it is kept nowhere on this computer"),
        *((killing,) if old else ()),
        *((RENEW,) if backup else ()),
    )
    facts = {"profile_id": str(profile_id), "keyslot": new, "old": list(old)}
    return Plan(VERB, name, steps, facts)


def renew_code(
    house: House, name: str, hand_over: Callable[[str], None], *, replace: bool
) -> Result:
    """Make a recovery code; with `replace`, in place of every keyslot but the volume key's."""
    known = settle_name(house, name)
    with house.locked(known, VERB):
        settle(house, known)
        profile = house.records.load(known)
        sound, plan = look(house, profile, replace=replace)
        old = tuple(plan.facts["old"])
        work = _Renewal(house, profile, sound, int(plan.facts["keyslot"]), old, hand_over)
        run(
            plan,
            work.effects(),
            house.journal(known),
            house.progress,
            undo=lambda: _undo(house, known),
        )
    said = "the old one opens nothing any more" if old else "keep it where this computer is not"
    facts = {"replaced": bool(old), "keyslot": work.new, "killed": list(old)}
    return Result(VERB, known, f"{known} has a new recovery code; {said}.", facts)


def look(house: House, profile: Profile, *, replace: bool) -> tuple[Sound, Plan]:
    """What a renewal finds, and its plan.

    Raises:
        MailboxError: `mailbox-open`, `recovery-code-exists`, `keyslot-not-changed`, or what is
            wrong with volume or keyring.
    """
    known = profile.name
    refuse_open(house, known)
    sound = sound_volume(house, profile)
    active = house.keyslots.active(house.paths.volume(known))
    old = tuple(slot for slot in active if slot != sound.slot)
    if old and not replace:
        raise _exists(known)
    free = _free(known, active)
    return sound, plan_code(known, profile.id, free, old, backup=has_backup(house, known))


def end_renewal(house: House, name: str, pending: Entry) -> str:
    """Bring a renewal that was stopped to an end: forward once the new code was handed over."""
    path, facts = house.paths.volume(name), pending.facts or {}
    new = int(facts["keyslot"])
    try:
        key = stored_key(house, name, uuid.UUID(str(facts["profile_id"])))
        slot = house.keyslots.find(path, key)
        active = house.keyslots.active(path)
    except MailboxError as error:
        if error.exit_code not in (Exit.DAMAGED, Exit.KEYRING) or error.code == "keyring-locked":
            raise
        return "The keyslots were left as they are: they could not be looked into."
    if slot is None:
        return "The keyslots were left as they are: the keyring's key opens none of them."
    if new in active and _handed_over(house, name, pending):
        for each in active:
            if each not in (slot, new):
                house.keyslots.kill(path, each, key)
        return "The new recovery code counts; the old one opens nothing any more."
    house.keyslots.kill(path, new, key)
    return "The recovery code is as before; a new one, if it was shown, does not count."


def _undo(house: House, name: str) -> None:
    pending = house.journal(name).read().pending()
    if pending is not None:
        house.progress.warn(end_renewal(house, name, pending))


def _handed_over(house: House, name: str, pending: Entry) -> bool:
    entries = house.journal(name).read().entries
    return any(e.run == pending.run and e.event == "done" and e.step == "code" for e in entries)


def _free(name: str, active: tuple[int, ...]) -> int:
    free = [slot for slot in _ALL_SLOTS if slot not in active and slot != KEY_SLOT]
    if free:
        return free[0]
    raise MailboxError(
        f"All keyslots of {name}'s volume are in use; nothing was changed.",
        resolution="Remove one with `cryptsetup luksKillSlot`.",
        code="keyslot-not-changed",
        exit_code=Exit.HOST,
    )


def _exists(name: str) -> MailboxError:
    return MailboxError(
        f"{name} has a recovery code already; nothing was changed.",
        resolution="With --replace a new one is made, and the old one opens nothing any more.",
        code="recovery-code-exists",
        exit_code=Exit.EXISTS,
    )


class _Renewal:
    """The effects of one renewal; the code lives in this object's memory and nowhere else."""

    def __init__(
        self,
        house: House,
        profile: Profile,
        sound: Sound,
        new: int,
        old: tuple[int, ...],
        hand_over: Callable[[str], None],
    ) -> None:
        self.new = new
        self._house = house
        self._name = profile.name
        self._slots = house.keyslots
        self._path = house.paths.volume(profile.name)
        self._key = sound.key
        self._old = old
        self._hand_over = hand_over
        self._code = new_code()

    def effects(self) -> dict[str, Any]:
        return {
            "keyslot": self._add,
            "code": lambda: self._hand_over(self._code),
            "old": self._kill_old,
            "backup": lambda: write_backup(self._house, self._name),
        }

    def _add(self) -> dict[str, Any]:
        self._slots.add(self._path, self.new, self._key, self._code.encode(), slow=True)
        return {"header": self._slots.fingerprints(self._path)}

    def _kill_old(self) -> dict[str, Any]:
        for slot in self._old:
            self._slots.kill(self._path, slot, self._key)
        return {"killed": list(self._old), "header": self._slots.fingerprints(self._path)}
