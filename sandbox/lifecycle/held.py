"""A key that the user's own GnuPG, or a smartcard behind it, holds: its public part is taken."""

from __future__ import annotations

from dataclasses import replace

from sandbox import ports
from sandbox.lifecycle.house import House
from sandbox.model.custody import HeldBy
from sandbox.model.errors import Exit, MailboxError
from sandbox.model.keys import Key, key_problem
from sandbox.model.packets import armored
from sandbox.model.profile import Settings


def is_held_by_user(settings: Settings) -> bool:
    """Whether the private key rests with the user, and the mailbox has no copy."""
    return settings.custody.holder is HeldBy.USER


def take_held(house: House, ring: ports.ProfileKeyring, fingerprint: str) -> Key:
    """Take the public part into the mailbox's ring, once the secret part is known to be there.

    Raises:
        MailboxError: `key-not-found`, `key-unusable` with the reason.
    """
    public = house.user_keyring.publics([fingerprint])[fingerprint]
    if not house.user_keyring.has_secret(fingerprint):
        raise MailboxError(
            f"Your GnuPG has no secret part of the key {fingerprint}; nothing was taken.",
            resolution="With a smartcard, `gpg --card-status` makes it known; else name a key of "
            "`gpg --list-secret-keys`.",
            code="key-not-found",
            exit_code=Exit.KEYS,
        )
    ring.add_correspondents([armored(public)])
    key = replace(ring.look([fingerprint])[0], secret=True)
    problem = key_problem(key, own=True)
    if problem:
        raise MailboxError(
            f"The key {fingerprint} {problem}; it was not taken.",
            code="key-unusable",
            exit_code=Exit.KEYS,
        )
    return key
