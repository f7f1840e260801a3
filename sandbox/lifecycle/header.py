"""A copy of the volume's header on the user's wish: made, renewed, put back, and destroyed."""

from __future__ import annotations

import uuid
from typing import Any

from sandbox.lifecycle.engine import Plan, Step, run
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.settle import settle, settle_name
from sandbox.lifecycle.soundness import recorded_header, refuse_open, sound_volume, stored_key
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.profile import Profile
from sandbox.state.journal import Entry, History

BACKUP = "header-backup"
RESTORE = "header-restore"
RENEW = Step("backup", "Renewing the header backup", "the former one opens with the old code")
_WRITE = Step("backup", "Copying the header", "a damaged one is the end of the volume")
_REMOVE = Step("remove", "Destroying the header backup", "it is no longer wanted")
_PUT_BACK = Step("restore", "Putting the header back", "the one on the volume is damaged")


def back_up(house: House, name: str, *, remove: bool) -> Result:
    """Make or renew the copy, or destroy it."""
    known = settle_name(house, name)
    with house.locked(known, BACKUP):
        settle(house, known)
        plan = plan_backup(house, house.records.load(known), remove=remove)
        effects: dict[str, Any] = {
            "backup": lambda: write_backup(house, known),
            "remove": lambda: {"removed": house.headers.destroy(house.paths.header_backup(known))},
        }
        run(plan, effects, house.journal(known), house.progress)
    path = house.paths.header_backup(known)
    if remove:
        return Result(BACKUP, known, f"No header backup of {known} is left.", {"path": None})
    summary = f"The header of {known} is kept in {path}. Whoever has it and an old code has a key."
    facts = {"path": str(path), "digest": recorded_backup(house.journal(known).read())}
    return Result(BACKUP, known, summary, facts)


def plan_backup(house: House, profile: Profile, *, remove: bool) -> Plan:
    """The one step of it; what is damaged or open is not copied.

    Raises:
        MailboxError: `mailbox-open`, or what is wrong with the volume.
    """
    if not remove:
        refuse_open(house, profile.name)
        sound_volume(house, profile)
    return Plan(BACKUP, profile.name, (_REMOVE if remove else _WRITE,), _facts(profile))


def write_backup(house: House, name: str) -> dict[str, Any]:
    """Make or renew the copy; returns what is to be on record."""
    path = house.paths.header_backup(name)
    digest = house.headers.back_up(house.paths.volume(name), path)
    return {"backup": {"path": str(path), "digest": digest}}


def renewed_backup(house: House, name: str, pending: Entry) -> dict[str, Any]:
    """The copy renewed after an unfinished verb, if the key opens what is to be copied."""
    if not has_backup(house, name):
        return {}
    identity = uuid.UUID(str((pending.facts or {})["profile_id"]))
    try:
        key = stored_key(house, name, identity)
        opens = house.keyslots.find(house.paths.volume(name), key) is not None
    except MailboxError:
        return {}
    return write_backup(house, name) if opens else {}


def has_backup(house: House, name: str) -> bool:
    """Whether there is a copy."""
    return house.paths.header_backup(name).exists()


def recorded_backup(history: History) -> str:
    """The digest of the newest copy as it was noted; empty when there is none."""
    for entry in reversed(history.entries):
        facts = entry.facts or {}
        if facts.get("removed"):
            return ""
        if isinstance(facts.get("backup"), dict):
            return str(facts["backup"].get("digest", ""))
    return ""


def mend_header(house: House, name: str) -> str:
    """Put the copy back where the header is damaged, under the caller's lock; what was done."""
    try:
        profile = house.records.load(name)
        sound_volume(house, profile)
    except MailboxError as error:
        if error.code != "volume-header-damaged" or not has_backup(house, name):
            return ""
    else:
        return ""
    refuse_open(house, name)
    restore_locked(house, name, profile)
    sound_volume(house, profile)
    return "The header was put back from its backup; the volume opens again."


def restore_locked(house: House, name: str, profile: Profile) -> None:
    """Put the copy back; killed anywhere, it is put back again."""
    history = house.journal(name).read()
    noted = recorded_backup(history)
    if house.headers.digest(house.paths.header_backup(name)) != noted:
        noted = _vouched(house, name, profile)
    volume, backup = house.paths.volume(name), house.paths.header_backup(name)

    def restore() -> dict[str, Any]:
        house.headers.restore(volume, backup, noted)
        return {"header": house.keyslots.fingerprints(volume)}

    plan = Plan(RESTORE, name, (_PUT_BACK,), _facts(profile))
    run(plan, {"restore": restore}, house.journal(name), house.progress)


def _vouched(house: House, name: str, profile: Profile) -> str:
    """The digest of a copy that is not the one on record, when the key in the keyring opens it."""
    backup = house.paths.header_backup(name)
    key = stored_key(house, name, profile.id)
    geometry = recorded_header(house.journal(name).read()).get("geometry")
    as_noted = geometry in (None, house.keyslots.fingerprints(backup)["geometry"])
    if as_noted and house.keyslots.find(backup, key) is not None:
        return house.headers.digest(backup) or ""
    raise MailboxError(
        f"The header backup {backup} is not the one on record, and the key in the keyring does not "
        "open it; nothing was written.",
        resolution="Copy the volume back from a backup.",
        code="header-backup-damaged",
        exit_code=Exit.DAMAGED,
    )


def _facts(profile: Profile) -> dict[str, Any]:
    return {"profile_id": str(profile.id)}
