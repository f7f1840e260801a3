"""A profile's key ring made anew: whole beside the old one, then put in its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sandbox.lifecycle.held import is_held_by_user, take_held
from sandbox.lifecycle.house import House
from sandbox.model.errors import MailboxError
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
    public: Mapping[str, str],
    passphrase: str,
    ask: Ask,
) -> Keys:
    """Make the ring anew and put it in the old one's place; the old one goes last."""
    name = profile.name
    tidy(house, name)
    ring = house.profile_keyring(_new(name))
    ring.create()
    fingerprint = None
    if own is not None:
        fingerprint = ring.add_own(*own, passphrase, ask).fingerprint
    elif profile.keys.fingerprint and is_held_by_user(profile.settings):
        fingerprint = take_held(house, ring, profile.keys.fingerprint).fingerprint
    ring.add_correspondents(list(public.values()))
    _move(house.paths.gnupg(name), house.paths.gnupg(_old(name)))
    _move(house.paths.gnupg(_new(name)), house.paths.gnupg(name))
    house.profile_keyring(_old(name)).destroy()
    kept = (each for each in profile.keys.correspondents if each.fingerprint in public)
    return Keys(fingerprint, tuple(kept))


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
