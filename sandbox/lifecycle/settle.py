"""What a killed command left: seen by the next one, undone (onboard, open) or finished."""

from __future__ import annotations

import uuid
from typing import Any

from sandbox.lifecycle import kept
from sandbox.lifecycle.close import close_locked
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.observe import observe
from sandbox.model.errors import InvalidInputError, MailboxError
from sandbox.model.names import name_problem, same_name
from sandbox.state import files
from sandbox.state.journal import Entry

# Verbs that change keyslots; they work on closed mailboxes only.
_KEYSLOT_VERBS = ("recovery-code", "recover", "header-backup", "header-restore")
# Verbs that write the profile at once or not at all; an open machine goes on meanwhile.
_PROFILE_VERBS = ("keys add", "keys remove", "keys smime", "keys check")
# Verbs that put a changed key ring in the old one's place; an open machine goes on meanwhile.
_RING_VERBS = ("keys generate", "keys rotate", "keys extend", "keys revoke", "keys forget")


def settle(house: House, name: str) -> str:
    """Bring an unfinished verb to an end, under the caller's lock; returns what was done."""
    from sandbox.lifecycle.keychange import settle_change
    from sandbox.lifecycle.onboard import undo_onboard
    from sandbox.lifecycle.password import settle_password
    from sandbox.lifecycle.retain import resume as resume_retention
    from sandbox.lifecycle.shred import shred_locked
    from sandbox.lifecycle.shredding import Order
    from sandbox.lifecycle.smime import tidy as tidy_smime

    pending = house.journal(name).recent().pending()
    if pending is None:
        return ""
    house.progress.warn(f"An earlier `mailbox {pending.verb} {name}` did not finish.")
    identity = str((pending.facts or {}).get("profile_id", ""))
    if pending.verb == "onboard":
        undo_onboard(house, name, uuid.UUID(identity))
        _ended(house, name, pending.verb, pending.run)
        return "Its beginnings were removed."
    if pending.verb == "shred":
        shred_locked(house, name, uuid.UUID(identity), Order.read(pending.facts or {}))
        return "It was finished."
    if pending.verb == "retain":
        resume_retention(house, name, dict(pending.facts or {}))
        return "It was finished."
    if pending.verb in _KEYSLOT_VERBS:
        return _settle_keyslots(house, name, pending)
    if pending.verb in _RING_VERBS:
        done = settle_change(house, name, pending.run)
        _ended(house, name, pending.verb, pending.run)
        return done
    if pending.verb == "password":
        done = settle_password(house, name)
        _ended(house, name, pending.verb, pending.run)
        return done
    if pending.verb in _PROFILE_VERBS:
        files.remove_unfinished(house.paths.profile(name))
        if pending.verb == "keys smime":
            tidy_smime(house, name)
        _ended(house, name, pending.verb, pending.run)
        return f"`mailbox keys list {name}` shows whose keys are accepted."
    close_locked(house, observe(house, name))
    finished = pending.verb == "suspend" and kept.is_kept(house, name)
    _ended(house, name, pending.verb, pending.run)
    if finished:
        return "It was finished."
    return "The machine was closed; the mail is on its volume."


def _settle_keyslots(house: House, name: str, pending: Entry) -> str:
    from sandbox.lifecycle import rings
    from sandbox.lifecycle.codes import end_renewal
    from sandbox.lifecycle.header import renewed_backup

    if pending.verb in ("header-backup", "header-restore"):
        return _settle_header(house, name, pending)
    if pending.verb == "recovery-code":
        done = end_renewal(house, name, pending)
    else:
        rings.tidy(house, name)
        files.remove_unfinished(house.paths.profile(name))
        done = f"`mailbox recover {name}` begins anew; the recovery code is as before."
    files.remove_unfinished(house.paths.header_backup(name))
    house.progress.warn(done)
    try:
        header = house.keyslots.fingerprints(house.paths.volume(name))
    except MailboxError:
        _ended(house, name, pending.verb, pending.run)  # its damage is told where it matters
    else:
        renewed = renewed_backup(house, name, pending)
        _ended(house, name, pending.verb, pending.run, header=header, **renewed)
    return done


def _settle_header(house: House, name: str, pending: Entry) -> str:
    """An unfinished copy is made anew if there is one; a header half put back is put back again."""
    from sandbox.lifecycle.header import has_backup, mend_header, renewed_backup

    backup = house.paths.header_backup(name)
    files.remove_unfinished(backup)
    if pending.verb == "header-restore":
        _ended(house, name, pending.verb, pending.run)
        return mend_header(house, name) or "The header is whole."
    facts = renewed_backup(house, name, pending) if has_backup(house, name) else {"removed": True}
    _ended(house, name, pending.verb, pending.run, **facts)
    return "There is a header backup." if has_backup(house, name) else "There is no header backup."


def find_name(house: House, name: str) -> str:
    """The name as it is written of a profile, or of one that an unfinished verb left.

    Raises:
        InvalidInputError: `name` is no name.
        MailboxError: `profile-unknown`, `profile-shredded`.
    """
    problem = name_problem(name)
    if problem:
        raise InvalidInputError("The name", [problem])
    known = house.records.find(name) or unfinished_name(house, name)
    return known or house.records.load(name).name


def unfinished_name(house: House, name: str) -> str | None:
    """The name as it is written of what a killed verb left, told apart case-insensitively."""
    found = (path.stem for path in house.paths.journals.glob("*.jsonl"))
    same = sorted(known for known in found if same_name(known, name))
    return next((known for known in same if house.journal(known).recent().pending()), None)


def settle_name(house: House, name: str) -> str:
    """As `find_name`, after an unfinished verb other than open and close was settled."""
    known = find_name(house, name)
    pending = house.journal(known).recent().pending()
    settled = (
        "onboard",
        "shred",
        "retain",
        "password",
        *_KEYSLOT_VERBS,
        *_PROFILE_VERBS,
        *_RING_VERBS,
    )
    if pending and pending.verb in settled:
        with house.locked(known, "repair"):
            settle(house, known)
    # A profile that was edited into nonsense can still be closed.
    return house.records.find(known) or house.records.load(known).name


def repair(house: House, name: str | None) -> list[Result]:
    """Settle one mailbox, or every one that a killed command left."""
    journals = sorted(path.stem for path in house.paths.journals.glob("*.jsonl"))
    results = []
    for each in [find_name(house, name)] if name else journals:
        with house.locked(each, "repair"):
            done = settle(house, each) or mend(house, each)
        if done or name:
            summary = f"{each}: {done or 'nothing was unfinished.'}"
            results.append(Result("repair", each, summary, {"repaired": bool(done)}))
    if name:
        return results
    return results + _end_orphans(house) + _end_warming(house) + _settle_images(house)


def _settle_images(house: House) -> list[Result]:
    from sandbox.lifecycle.images import settle_images

    said = "what a killed command left among the images is removed."
    return (
        [Result("repair", "images", f"Images: {said}", {"repaired": True})]
        if settle_images(house)
        else []
    )


def _end_orphans(house: House) -> list[Result]:
    from sandbox.lifecycle.orphans import end_orphans

    said = "there is no such mailbox any more; what ran in its name is closed."
    return [
        Result("repair", each, f"{each}: {said}", {"repaired": True}) for each in end_orphans(house)
    ]


def _end_warming(house: House) -> list[Result]:
    from sandbox.lifecycle.warm import end_killed

    said = "the machine of a killed `mailbox image warm` is gone."
    return [
        Result("repair", each, f"{each}: {said}", {"repaired": True}) for each in end_killed(house)
    ]


def mend(house: House, name: str) -> str:
    """Put a damaged header back from its copy; other damage is told where it matters."""
    from sandbox.lifecycle.header import has_backup, mend_header

    return mend_header(house, name) if has_backup(house, name) else ""


def _ended(house: House, name: str, verb: str, run: str, **facts: Any) -> None:
    house.journal(name).append(verb, "end", run, facts={"outcome": "settled", **facts})
