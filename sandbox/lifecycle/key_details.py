"""`keys show`: one key of a mailbox closely; and what of its keys needs care, for lists."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sandbox.lifecycle.held import is_held_by_user
from sandbox.lifecycle.house import House
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keydetails import Details
from sandbox.model.keys import problem_as
from sandbox.model.openpgp import Keys
from sandbox.model.profile import Profile
from sandbox.state.journal import History
from sandbox.state.paths import Paths

# In the journal, where a revocation certificate was saved to.
SAVED = "revocation saved"


@dataclass(frozen=True)
class Shown:
    """A key and what it is to the mailbox: own, retired, former (lost), or a correspondent's.

    `addresses` are those that a correspondent's is accepted for; `since` when that was, or when
    the mailbox got it. `revocation` is the certificate's file; empty: there is none.
    """

    name: str
    role: str
    fingerprint: str
    details: Details
    addresses: tuple[str, ...]
    problem: str
    since: str
    custody: str
    revocation: str


def show_key(house: House, name: str, fingerprint: str | None) -> Shown:
    """The mailbox's own key, or the named one of its keys.

    Raises:
        MailboxError: `key-not-found`.
    """
    profile = house.records.load(name)
    wanted = fingerprint or profile.keys.fingerprint
    if wanted is None:
        raise no_own_key(profile)
    kept = revocation_file(house.paths, profile.name, wanted)
    role = role_of(profile.keys, wanted) or ("former" if kept.exists() else "")
    details = house.own_keyring(profile.name).describe(wanted)
    if role == "own" and is_held_by_user(profile.settings):
        # Of that one the mailbox has the public part only.
        details = house.user_keyring.describe(wanted) or details
    if not role or details is None:
        raise _not_here(profile, wanted)
    known = house.profile_keyring(profile.name).look([wanted])
    accepted = {each.fingerprint: each.addresses for each in profile.keys.correspondents}
    return Shown(
        name=profile.name,
        role=role,
        fingerprint=wanted,
        details=details,
        addresses=accepted.get(wanted) or (known[0].addresses if known else ()),
        problem=(problem_as(known[0], role) or "") if known else "",
        since=since(house.journal(profile.name).read(), wanted) or profile.created,
        custody=str(profile.settings.custody.where) if role != "correspondent" else "",
        revocation=str(kept) if kept.exists() else "",
    )


def public_key(house: House, shown: Shown) -> str:
    """The public key, armored."""
    return house.profile_keyring(shown.name).public([shown.fingerprint])[shown.fingerprint]


def role_of(keys: Keys, fingerprint: str) -> str:
    """What a key is to a mailbox; empty: nothing."""
    if fingerprint == keys.fingerprint:
        return "own"
    if fingerprint in keys.retired:
        return "retired"
    known = {each.fingerprint for each in keys.correspondents}
    return "correspondent" if fingerprint in known else ""


def revocation_file(paths: Paths, name: str, fingerprint: str) -> Path:
    """Where the revocation certificate of a key is kept (GnuPG's own place for it)."""
    return paths.gnupg(name) / "openpgp-revocs.d" / f"{fingerprint}.rev"


def with_certificate(paths: Paths, name: str) -> tuple[str, ...]:
    """The fingerprints of the keys that a revocation certificate is kept for."""
    return tuple(
        sorted(path.stem for path in revocation_file(paths, name, "*").parent.glob("*.rev"))
    )


def since(history: History, fingerprint: str) -> str:
    """When the key came to the mailbox for good, as the journal tells; empty: it does not."""
    found = ""
    for entry in history.entries:
        if entry.fact("fingerprint") != fingerprint:
            continue
        if entry.verb in ("keys remove", "keys forget"):
            found = ""
        elif entry.event == "done" and entry.step in ("take", "draft", "keys"):
            found = found or entry.time
    return found


def no_own_key(profile: Profile) -> MailboxError:
    """The error of a mailbox without a key of its own."""
    return MailboxError(
        f"{profile.name} has no OpenPGP key of its own; nothing was changed.",
        resolution=f"`mailbox keys generate {profile.name}` makes one.",
        code="key-not-found",
        exit_code=Exit.KEYS,
    )


def _not_here(profile: Profile, fingerprint: str) -> MailboxError:
    return MailboxError(
        f"{profile.name} has no key {fingerprint}.",
        resolution=f"`mailbox keys list {profile.name}` shows those that it has.",
        code="key-not-found",
        exit_code=Exit.KEYS,
    )
