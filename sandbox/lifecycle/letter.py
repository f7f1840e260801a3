"""The mail text that tells correspondents of another key, signed by the key before it."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.lifecycle.house import House
from sandbox.model.errors import MailboxError
from sandbox.model.profile import Profile

_TEXT = """\
My OpenPGP key for {address} has changed.

New key, to be used from now on{until}:
  {new}
{before}
Please take the new key into your mail program. Before you do, compare its fingerprint with me
by another way than mail, such as the telephone, unless you trust the signature of the old key
below.
"""
_BEFORE = """
Old key, please write to it no more:
  {old}
I can still read what was encrypted to it.
"""


@dataclass(frozen=True)
class Letter:
    """The text and the new public key below it; who signed the text (fingerprints)."""

    letter: str
    signed_by: tuple[str, ...] = ()


def compose_letter(profile: Profile) -> str:
    """The text, unsigned."""
    keys = profile.keys
    before = _BEFORE.format(old=grouped(keys.retired[0])) if keys.retired else ""
    return _TEXT.format(
        address=profile.account.address,
        until=f" (until {keys.expires})" if keys.expires else "",
        new=grouped(keys.fingerprint or ""),
        before=before,
    )


def grouped(fingerprint: str) -> str:
    """A fingerprint in groups of four, as it is read out to somebody."""
    return " ".join(fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4))


def write_letter(house: House, profile: Profile, passphrase: str) -> Letter:
    """The text as signed by the old key, and by the new one, where the old one still can."""
    text, own = compose_letter(profile), profile.keys.fingerprint or ""
    public = house.profile_keyring(profile.name).public([own])[own]
    signers = _signers(house, profile)
    if signers:
        try:
            signed = house.own_keyring(profile.name).sign(text, signers, passphrase)
        except MailboxError as error:
            house.progress.warn(f"The text for correspondents is not signed: {error.brief}")
        else:
            return Letter(f"{signed.rstrip()}\n\n{public}", signers)
    return Letter(f"{text}\n{public}")


def _signers(house: House, profile: Profile) -> tuple[str, ...]:
    """The last key before the own one, then that; nobody where the old one cannot sign."""
    ring, keys = house.own_keyring(profile.name), profile.keys
    able = [
        each
        for each in (*keys.retired[:1], keys.fingerprint or "")
        if (details := ring.describe(each)) and details.serves("sign")
    ]
    return tuple(able) if able[:1] == list(keys.retired[:1]) and able else ()
