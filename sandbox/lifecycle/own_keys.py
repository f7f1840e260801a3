"""`keys generate|rotate|extend|revoke`: the life of a mailbox's own key."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sandbox.lifecycle.engine import Plan
from sandbox.lifecycle.house import House, Result
from sandbox.lifecycle.key_details import SAVED, no_own_key
from sandbox.lifecycle.keychange import Draft, change, steps_of_change
from sandbox.lifecycle.letter import Letter, write_letter
from sandbox.lifecycle.observe import observe
from sandbox.lifecycle.onboard import KeyChoice
from sandbox.lifecycle.settle import settle, settle_name
from sandbox.model.custody import Where
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keydetails import NewKey, Reason
from sandbox.model.machine import MachineState
from sandbox.model.profile import Profile
from sandbox.model.revocation import disarmed
from sandbox.state import files


@dataclass(frozen=True)
class Rotation:
    """Where the next own key comes from: a choice as at onboarding, or (`key` unset) a new one."""

    key: KeyChoice = field(default_factory=lambda: KeyChoice(generate=True))
    new: NewKey = field(default_factory=NewKey)


@dataclass(frozen=True)
class Extension:
    """Until when, or from where the dates come: a public key as a file, or (`gnupg`) the user's."""

    lasts: str = "2y"
    file: bytes | None = None
    gnupg: bool = False


@dataclass(frozen=True)
class Revocation:
    """Which key is revoked and why; without a certificate, one is made, or the kept one taken."""

    fingerprint: str | None = None
    reason: Reason = Reason.UNSPECIFIED
    words: str = ""
    certificate: bytes | None = None


def plan_generate(profile: Profile) -> Plan:
    """The steps of `keys generate`; raises `key-exists` where there is an own key."""
    if profile.keys.fingerprint:
        raise MailboxError(
            f"{profile.name} has the key {profile.keys.fingerprint} already; nothing was changed.",
            resolution=f"`mailbox keys rotate {profile.name}` makes a new one and keeps the old "
            "one for old mail.",
            code="key-exists",
            exit_code=Exit.EXISTS,
        )
    steps = steps_of_change("Making a key", "the mailbox has no key of its own")
    return Plan("keys generate", profile.name, steps)


def plan_rotate(profile: Profile, wish: Rotation) -> Plan:
    """The steps of `keys rotate`."""
    old = profile.keys.fingerprint
    if old and old == wish.key.fingerprint:
        raise _same(profile, old)
    title = "Making a key" if wish.key.generate else "Taking the key"
    reason = "the old one stays for old mail" if old else "the mailbox has no key of its own"
    facts = {"old": old} if old else {}
    return Plan("keys rotate", profile.name, steps_of_change(title, reason), facts)


def plan_extend(profile: Profile) -> Plan:
    """The steps of `keys extend`; raises `key-not-found` where there is no own key."""
    own = profile.keys.fingerprint
    if own is None:
        raise no_own_key(profile)
    reason = "correspondents stop writing to a key that has expired"
    steps = steps_of_change("Moving the key's end", reason)
    return Plan("keys extend", profile.name, steps, {"fingerprint": own})


def plan_revoke(profile: Profile, wish: Revocation) -> Plan:
    """The steps of `keys revoke`; raises `key-not-found` where there is nothing to revoke."""
    fingerprint = wish.fingerprint or profile.keys.fingerprint
    if fingerprint is None:
        raise no_own_key(profile)
    reason = "whoever sees it published uses the key no longer"
    facts = {"fingerprint": fingerprint, "reason": str(wish.reason)}
    return Plan("keys revoke", profile.name, steps_of_change("Revoking the key", reason), facts)


def generate(house: House, name: str, new: NewKey) -> Result:
    """Make a key for a mailbox that has none."""
    with changing(house, name, "keys generate") as profile:
        plan = plan_generate(profile)
        wish = Rotation(new=new)
        keys = change(house, plan, Draft(house, profile), lambda draft: _take(draft, wish, None))
    facts = {"fingerprint": keys.fingerprint, "expires": keys.expires}
    summary = f"{keys.fingerprint} is the key of {profile.name} now."
    return result_of(house, plan.verb, profile.name, f"{summary} {_publish(profile)}", facts)


def rotate(house: House, name: str, wish: Rotation) -> Result:
    """Give the mailbox another key; the one before goes on opening old mail."""
    with changing(house, name, "keys rotate") as profile:
        plan = plan_rotate(profile, wish)
        given = _given(house, wish.key)
        draft = Draft(house, profile)
        keys = change(house, plan, draft, lambda draft: _take(draft, wish, given))
        letter = write_letter(house, house.records.load(profile.name), draft.passphrase or "")
    retired = list(keys.retired)
    facts = {"fingerprint": keys.fingerprint, "expires": keys.expires, "retired": retired}
    summary = f"{keys.fingerprint} is the key of {profile.name} now."
    if old := plan.facts.get("old"):
        summary += f" {old} only opens old mail."
    summary = f"{summary} {_publish(profile)}"
    return result_of(house, plan.verb, profile.name, summary, facts | asdict(letter))


def extend(house: House, name: str, wish: Extension) -> Result:
    """Move the end of the own key, or take the dates that it was given elsewhere."""
    with changing(house, name, "keys extend") as profile:
        plan = plan_extend(profile)
        own = str(plan.facts["fingerprint"])
        newer = house.user_keyring.public(own) if wish.gnupg else wish.file
        keys = change(house, plan, Draft(house, profile), lambda draft: _move(draft, wish, newer))
    when = f"until {keys.expires}" if keys.expires else "without an end"
    summary = f"{own} is good {when}. {_publish(profile)}"
    facts = {"fingerprint": own, "expires": keys.expires}
    return result_of(house, plan.verb, profile.name, summary, facts)


def revoke(house: House, name: str, wish: Revocation) -> Result:
    """Revoke a key of the mailbox; it still opens old mail."""
    used: list[str] = []
    with changing(house, name, "keys revoke") as profile:
        plan = plan_revoke(profile, wish)
        fingerprint = str(plan.facts["fingerprint"])

        def apply(draft: Draft) -> None:
            certificate, origin = _certificate(house, draft, fingerprint, wish)
            draft.own.revoke(fingerprint, certificate)
            used.append(origin)

        change(house, plan, Draft(house, profile, needed=False), apply)
        public = house.profile_keyring(profile.name).public([fingerprint])[fingerprint]
    summary = f"{fingerprint} is revoked here and still opens old mail. {_publish(profile)}"
    summary += f" Send the revoked key to those who have it: `mailbox keys show {profile.name} "
    summary += f"{fingerprint} --public`."
    facts = {"fingerprint": fingerprint, "reason": str(wish.reason), "certificate": used[0]}
    return result_of(house, plan.verb, profile.name, summary, {**facts, "public": public})


def letter_again(house: House, name: str) -> Letter:
    """The text of the last rotation once more; raises `key-not-found` where there was none."""
    profile = house.records.load(name)
    if not (profile.keys.fingerprint and profile.keys.retired):
        raise MailboxError(
            f"The key of {profile.name} was never replaced; there is nothing to tell.",
            resolution=f"`mailbox keys rotate {profile.name}` replaces it.",
            code="key-not-found",
            exit_code=Exit.KEYS,
        )
    return write_letter(house, profile, Draft(house, profile).passphrase or "")


def save_certificate(house: House, name: str, fingerprint: str | None, file: Path) -> Result:
    """Write the kept revocation certificate to a new file; on record, so that it is not forgotten.

    Raises:
        MailboxError: `key-not-found`, `revocation-missing`.
    """
    profile = house.records.load(name)
    wanted = fingerprint or profile.keys.fingerprint
    if wanted is None:
        raise no_own_key(profile)
    certificate = house.own_keyring(profile.name).certificate(wanted)
    if certificate is None:
        raise _no_certificate(wanted)
    where = file.expanduser().absolute()
    facts = {"fingerprint": wanted, "file": str(where)}
    house.journal(profile.name).append(SAVED, "end", secrets.token_hex(4), facts=facts)
    files.create(where, disarmed(certificate))
    summary = f"Saved {where}. Keep it where the recovery code is: it revokes {wanted}."
    return Result("keys revoke", profile.name, summary, {**facts, "saved": True})


@contextmanager
def changing(house: House, name: str, verb: str) -> Iterator[Profile]:
    """The profile, settled and locked for a change of its own keys."""
    known = settle_name(house, name)
    with house.locked(known, verb):
        settle(house, known)
        yield house.records.load(known)


def _given(house: House, choice: KeyChoice) -> tuple[bytes, str] | None:
    """The key that was chosen and its passphrase, before anything is changed."""
    if choice.fingerprint:
        return house.user_keyring.secret(choice.fingerprint, choice.ask)
    return None if choice.file is None else (choice.file, "")


def _take(draft: Draft, wish: Rotation, given: tuple[bytes, str] | None) -> str:
    account, passphrase = draft.profile.account, draft.passphrase or ""
    if given is None:
        split = draft.profile.settings.custody.where is Where.HOST
        new = replace(wish.new, split=split)
        return draft.ring.generate(account.display_name, account.address, passphrase, new)
    key = draft.ring.add_own(*given, passphrase, wish.key.ask)
    if key.fingerprint == draft.profile.keys.fingerprint:
        raise _same(draft.profile, key.fingerprint)
    return key.fingerprint


def _move(draft: Draft, wish: Extension, newer: bytes | None) -> None:
    own = draft.profile.keys.fingerprint or ""
    if newer is None:
        draft.own.extend(own, wish.lasts, draft.passphrase or "")
        return
    details = draft.own.update(own, newer)
    if not details.serves("encrypt"):
        raise MailboxError(
            f"The public key of {own} that was given has ended, too; nothing was changed.",
            resolution="Extend it where its primary part is, and export it anew.",
            code="key-unusable",
            exit_code=Exit.KEYS,
        )


def _certificate(
    house: House, draft: Draft, fingerprint: str, wish: Revocation
) -> tuple[bytes, str]:
    """What revokes the key, and where it comes from: given, made, or kept since the key came."""
    if wish.certificate is not None:
        return wish.certificate, "given"
    made = None
    if draft.passphrase is not None:
        with suppress(MailboxError):
            made = draft.own.make_certificate(
                fingerprint, draft.passphrase, wish.reason, wish.words
            )
    kept = draft.own.certificate(fingerprint)
    if made is None and kept is None:
        raise _no_certificate(fingerprint)
    if made is None and wish.reason is not Reason.UNSPECIFIED:
        house.progress.warn("The certificate that was kept is used; it does not say the reason.")
    return (made, "made") if made is not None else (kept or b"", "kept")


def _publish(profile: Profile) -> str:
    return f"Publish it: `mailbox keys publish {profile.name} FOLDER`."


def result_of(house: House, verb: str, name: str, summary: str, facts: dict[str, Any]) -> Result:
    """The result of a change of own keys, and when the mail client takes it."""
    is_open = observe(house, name).machine is not MachineState.CLOSED
    when = "once it was closed and opened again" if is_open else "at the next open"
    said = f"{summary} The mail client takes it {when}."
    return Result(verb, name, said, {**facts, "open": is_open})


def _same(profile: Profile, fingerprint: str) -> MailboxError:
    return MailboxError(
        f"{fingerprint} is the own key of {profile.name} already; nothing was changed.",
        resolution="Say nothing for a new key, or name another.",
        code="key-exists",
        exit_code=Exit.EXISTS,
    )


def _no_certificate(fingerprint: str) -> MailboxError:
    return MailboxError(
        f"There is no way to revoke {fingerprint} here: the part that certifies is elsewhere, or "
        "locked, and no certificate was kept. Nothing was changed.",
        resolution="Make one where the primary part is (`gpg --gen-revoke`), and give it with "
        "--certificate.",
        code="revocation-missing",
        exit_code=Exit.KEYS,
    )
