"""A profile's key ring made anew: whole beside the old one, then put in its place."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from sandbox.lifecycle.held import is_held_by_user, take_held
from sandbox.lifecycle.house import House
from sandbox.model.errors import MailboxError
from sandbox.model.keys import day_of
from sandbox.model.openpgp import Keys
from sandbox.model.packets import armored
from sandbox.model.profile import Profile
from sandbox.ports import Ask
from sandbox.state import files


def is_locked(house: House, profile: Profile, passphrase: str | None) -> bool:
    """Whether the ring is missing, or its own key cannot be used with this passphrase."""
    if not house.paths.gnupg(profile.name).exists():
        return True
    if profile.keys.fingerprint is None or is_held_by_user(profile.settings):
        return False
    try:
        house.profile_keyring(profile.name).export(profile.keys.fingerprint, passphrase or "")
    except MailboxError:
        return True
    return passphrase is None


def correspondents(house: House, profile: Profile) -> dict[str, str]:
    """The correspondents' public keys by fingerprint, from the ring or else the user's GnuPG."""
    known: dict[str, str] = {}
    fingerprints = [each.fingerprint for each in profile.keys.correspondents]
    if house.paths.gnupg(profile.name).exists():
        known = house.profile_keyring(profile.name).public(fingerprints)
    found = {each: known.get(each) or _from_user(house, each) for each in fingerprints}
    return {each: public for each, public in found.items() if public}


def _from_user(house: House, fingerprint: str) -> str:
    try:
        return armored(house.user_keyring.publics([fingerprint])[fingerprint])
    except MailboxError:
        house.progress.warn(
            f"The correspondent's key {fingerprint} is neither here nor in your GnuPG; the mail "
            "client keeps its own copy on the volume."
        )
        return ""


def renew(
    house: House,
    profile: Profile,
    own: tuple[bytes, str] | None,
    retired: tuple[tuple[bytes, str], ...],
    public: Mapping[str, str],
    passphrase: str,
    ask: Ask,
) -> Keys:
    """Make the ring anew and put it in the old one's place; the old one goes last.

    Revocation certificates stay: they need no passphrase, and may be all that is left of a key.
    """
    name = profile.name
    tidy(house, name)
    ring = house.profile_keyring(_new(name))
    ring.create()
    fingerprint, expires = None, ""
    if own is not None:
        key = ring.add_own(*own, passphrase, ask)
        fingerprint, expires = key.fingerprint, day_of(key.expires)
    elif profile.keys.fingerprint and is_held_by_user(profile.settings):
        key = take_held(house, ring, profile.keys.fingerprint)
        fingerprint, expires = key.fingerprint, day_of(key.expires)
    had = [ring.add_own(*each, passphrase, ask, retired=True).fingerprint for each in retired]
    ring.add_correspondents(list(public.values()))
    _keep_certificates(house, profile)
    put_in_place(house, name)
    kept = (each for each in profile.keys.correspondents if each.fingerprint in public)
    return Keys(fingerprint, tuple(kept), tuple(had), expires, profile.keys.forgotten)


def _keep_certificates(house: House, profile: Profile) -> None:
    name = profile.name
    source, target = (house.paths.gnupg(each) for each in (name, _new(name)))
    if not source.exists():
        return
    for path in source.glob("openpgp-revocs.d/*.rev"):
        copy = target / path.parent.name / path.name
        if not copy.exists():
            files.replace(copy, path.read_bytes())
    # A key whose secret is lost can still be revoked, as long as its public part is here.
    ring = house.own_keyring(_new(name))
    for each, public in house.profile_keyring(name).public(list(profile.keys.private)).items():
        if public and ring.describe(each) is None:
            ring.update(each, public.encode())


def begin_draft(house: House, name: str) -> str:
    """Copy the ring beside the old one; returns the name that the copy goes by."""
    tidy(house, name)
    source, target = house.paths.gnupg(name), house.paths.gnupg(_new(name))
    with files.readable_errors(target):
        # No sockets, and no locks of programs that work on the other one.
        shutil.copytree(source, target, ignore=_not_kept)
    return _new(name)


def _not_kept(folder: str, names: list[str]) -> list[str]:
    return [
        name
        for name in names
        if name.startswith((".#", "S.")) or name.endswith((".lock", ".tmp", "~"))
    ]


def put_in_place(house: House, name: str) -> None:
    """Let the new ring take the old one's place; may be repeated."""
    if house.paths.gnupg(_new(name)).exists():
        files.sync_tree(house.paths.gnupg(_new(name)))
        _move(house.paths.gnupg(name), house.paths.gnupg(_old(name)))
        _move(house.paths.gnupg(_new(name)), house.paths.gnupg(name))
    house.profile_keyring(_old(name)).destroy()


def tidy(house: House, name: str) -> None:
    """What a renewal that was stopped left: one ring stays, the old one if it was not replaced."""
    if not house.paths.gnupg(name).exists():
        _move(house.paths.gnupg(_old(name)), house.paths.gnupg(name))
    destroy_drafts(house, name)


def destroy_drafts(house: House, name: str) -> None:
    """Destroy the rings beside the profile's own."""
    for each in (_new(name), _old(name)):
        if house.paths.gnupg(each).exists():
            house.profile_keyring(each).destroy()


def _move(source: Path, target: Path) -> None:
    with files.readable_errors(source):
        if source.exists():
            source.rename(target)
            files.sync_folder(target.parent)


# No profile's name begins with a dot.
def _new(name: str) -> str:
    return f".{name}.new"


def _old(name: str) -> str:
    return f".{name}.old"
